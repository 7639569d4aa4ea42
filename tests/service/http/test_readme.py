"""What the README tells people to type is there and works as pasted."""

import json
import re
from pathlib import Path

import pytest
import typer.main

from pipelines.cli.main import app

ROOT = Path(__file__).parents[3]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CALLS = re.findall(r"curl -s [\d.:]+(/\S+) .*?-d '(.*?)'", README, flags=re.DOTALL)


@pytest.mark.parametrize(("path", "body"), CALLS)
def test_each_curl_line_is_answered(retail_client, path, body):
    """The series it names is in the bundled data, and the stamp is the next one."""
    response = retail_client.post(path, json=json.loads(body))

    assert response.status_code == 200, response.text


def test_there_are_curl_lines_to_try():
    """One forecast and one observation, at least."""
    assert {path for path, _ in CALLS} == {"/v1/forecasts", "/v1/observations"}


def test_every_make_target_it_names_exists():
    """`make run`, `make test` and the others."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))

    assert set(re.findall(r"^make ([a-z-]+)", README, flags=re.MULTILINE)) <= targets


def test_every_command_it_names_exists():
    """`statecast init`, `train` and the others."""
    known = set(typer.main.get_command(app).commands)

    named = set(re.findall(r"^statecast ([a-z]+)", README, flags=re.MULTILINE))

    assert named
    assert named <= known


def test_every_page_it_links_to_exists():
    """Documents and pictures."""
    links = re.findall(r"\]\(([^)#]+)", README)

    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []

"""Commands, requests and links in the README work as they are written."""

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
def test_each_curl_command_succeeds(retail_client, path, body):
    """It names a series of the bundled data, and the stamp that follows its history."""
    response = retail_client.post(path, json=json.loads(body))

    assert response.status_code == 200, response.text


def test_the_readme_has_curl_commands():
    """It requests a forecast and reports an observation."""
    assert {path for path, _ in CALLS} == {"/v1/forecasts", "/v1/observations"}


def test_every_make_target_in_the_readme_exists():
    """`make run`, `make test` and the others are targets of the Makefile."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))

    assert set(re.findall(r"^make ([a-z-]+)", README, flags=re.MULTILINE)) <= targets


def test_every_command_in_the_readme_exists():
    """`statecast init`, `train` and the others are commands of the CLI."""
    known = set(typer.main.get_command(app).commands)

    mentioned = set(re.findall(r"^statecast ([a-z]+)", README, flags=re.MULTILINE))

    assert mentioned
    assert mentioned <= known


def test_every_file_that_the_readme_links_to_exists():
    """Links lead to documents and pictures of the repository."""
    links = re.findall(r"\]\(([^)#]+)", README)

    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []

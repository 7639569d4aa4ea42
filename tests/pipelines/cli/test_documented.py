"""The documentation covers every command, option and error code."""

import re

import pytest
import typer

from forecast.errors import ForecastError
from pipelines import errors
from pipelines.cli import main as cli
from tests.helpers.paths import ROOT

ERRORS = [
    error
    for error in vars(errors).values()
    if isinstance(error, type)
    and issubclass(error, ForecastError)
    and "code" in vars(error)
    and error is not ForecastError
]


def commands(group, path=()):
    """Yield every command with its full name."""
    for name, child in group.commands.items():
        if hasattr(child, "commands"):
            yield from commands(child, (*path, name))
        else:
            yield " ".join((*path, name)), child


def test_every_command_and_option_is_documented():
    """docs/cli.md has one section per command, which names each of its options."""
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    shared, *rest = re.split(r"^### ", page, flags=re.MULTILINE)
    sections = {part.partition("\n")[0]: part for part in rest}
    tree = dict(commands(typer.main.get_command(cli.app)))

    assert set(sections) == set(tree)
    for name, command in tree.items():
        for option in command.params:
            if option.param_type_name == "option" and option.name != "help":
                text = sections[name] + shared.partition("## Settings")[0]
                assert f"`{option.opts[-1]}" in text, (name, option.opts)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.code)
def test_every_code_of_the_command_line_is_documented(error):
    """docs/errors.md has a section with an example for each error code of the pipelines."""
    page = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")

    _, heading, section = page.partition(f"\n## {error.code}\n")

    assert heading
    assert "```text" in section.partition("\n## ")[0]

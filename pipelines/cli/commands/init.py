"""`statecast init`."""

from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.command import Session, command
from pipelines.cli.project import FILE
from pipelines.errors import UsageError


def install(app: typer.Typer) -> None:
    """Add the command."""

    @command(app, "init", rich_help_panel="Data")
    def init(
        session: Session,
        source: Annotated[
            str | None,
            typer.Option("--from", metavar="FILE", help="Guess columns and frequency from it."),
        ] = None,
        force: Annotated[
            bool, typer.Option("--force", help="Replace the file that is there.")
        ] = False,
        dry_run: Annotated[
            bool, typer.Option("--dry-run", help="Print it, write nothing.")
        ] = False,
    ) -> None:
        """Write a commented statecast.toml here; with --from, filled in from your data."""
        path = Path(FILE)
        if path.exists() and not force and not dry_run:
            raise UsageError(
                f"there is a {FILE} here already",
                where=str(path.resolve()),
                help="add --force to replace it, or --dry-run to see what would be written",
            )
        from pipelines.cli.autodetect import blank, detect, to_toml

        guessed = blank() if source is None else detect(source)
        text = to_toml(guessed)
        if not dry_run:
            path.write_text(text, encoding="utf-8")
        document = {
            "path": str(path),
            "written": not dry_run,
            "settings": guessed.values,
            "reasons": guessed.reasons,
            "toml": text,
        }
        session.console.result(document, text if dry_run else f"wrote {path}")
        for name, reason in guessed.reasons.items():
            session.console.step(name, reason)
        if source is None:
            session.console.then("statecast data check FILE", "statecast train FILE")
        else:
            session.console.then("statecast data check", "statecast train")

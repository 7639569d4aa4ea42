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
            typer.Option("--from", metavar="FILE", help="Detect the settings from this file."),
        ] = None,
        force: Annotated[
            bool, typer.Option("--force", help="Replace an existing statecast.toml.")
        ] = False,
        dry_run: Annotated[
            bool, typer.Option("--dry-run", help="Print the file without writing it.")
        ] = False,
    ) -> None:
        """Write a commented statecast.toml, filled in from your data if --from is given."""
        path = Path(FILE)
        if path.exists() and not force and not dry_run:
            raise UsageError(
                f"{FILE} already exists",
                where=str(path.resolve()),
                help="add --force to replace it, or --dry-run to print the new one",
            )
        from pipelines.cli.autodetect import DetectedSettings, detect

        detected = DetectedSettings() if source is None else detect(source)
        text = detected.to_toml()
        if not dry_run:
            path.write_text(text, encoding="utf-8")
        document = {
            "path": str(path),
            "written": not dry_run,
            "settings": detected.values,
            "reasons": detected.reasons,
            "toml": text,
        }
        session.console.print_result(document, text if dry_run else f"wrote {path}")
        for name, reason in detected.reasons.items():
            session.console.print_step(name, reason)
        if source is None:
            session.console.suggest("statecast data check FILE", "statecast train FILE")
        else:
            session.console.suggest("statecast data check", "statecast train")

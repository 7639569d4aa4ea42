"""`statecast runs`."""

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from pipelines.tracking.store import RunRow
from pipelines.cli.command import Session, command
from pipelines.cli.commands.models import open_store
from pipelines.cli.console import format_duration, make_table
from pipelines.cli.project import resolve_project

COLUMNS = ("started", "run", "name", "status", "duration", "MASE", "naive", "promoted", "reason")
NUMBERS = ("duration", "MASE", "naive")


def install(app: typer.Typer) -> None:
    """Add the command."""

    @command(app, "runs", rich_help_panel="Models")
    def runs(
        session: Session,
        limit: Annotated[
            int, typer.Option("-n", "--limit", min=1, help="Number of runs to list.")
        ] = 20,
    ) -> None:
        """List the latest training runs with their scores and verdicts."""
        store = open_store(resolve_project(session.config))
        latest = store.runs(limit) if store else []
        rows = [_make_row(run) for run in latest]
        session.console.print_result(
            {"runs": [_make_document(run) for run in latest]},
            make_table(*COLUMNS, rows=rows, right=NUMBERS) if rows else None,
        )
        if not rows:
            session.console.say("no runs yet")
            session.console.suggest("statecast train FILE")


def _make_row(run: "RunRow") -> tuple[object, ...]:
    scores = (run.metrics.get("mase"), run.metrics.get("mase_SeasonalNaive"))
    return (
        time.strftime("%Y-%m-%d %H:%M", time.gmtime(run.started)),
        run.run_id[:8],
        run.name,
        run.status.lower(),
        "" if run.seconds is None else format_duration(run.seconds),
        *("" if score is None else f"{score:.3f}" for score in scores),
        run.tags.get("gate.promote", ""),
        run.tags.get("gate.reason", ""),
    )


def _make_document(run: "RunRow") -> dict[str, Any]:
    return {
        "run_id": run.run_id,
        "name": run.name,
        "status": run.status.lower(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(run.started)),
        "seconds": run.seconds,
        "metrics": run.metrics,
        "tags": run.tags,
    }

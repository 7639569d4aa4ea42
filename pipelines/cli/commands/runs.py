"""`statecast runs`."""

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from pipelines.tracking.store import RunRow
from pipelines.cli.command import Session, command
from pipelines.cli.commands.models import open_store
from pipelines.cli.console import elapsed, table

COLUMNS = ("started", "run", "name", "status", "took", "MASE", "naive", "promoted", "reason")


def install(app: typer.Typer) -> None:
    """Add the command."""

    @command(app, "runs", rich_help_panel="Models")
    def runs(
        session: Session,
        limit: Annotated[int, typer.Option("-n", "--limit", min=1, help="How many.")] = 20,
    ) -> None:
        """The latest training runs with their scores and verdicts."""
        tracking = open_store(session)
        found = tracking.runs(limit) if tracking else []
        rows = [_row(run) for run in found]
        right = ("took", "MASE", "naive")
        session.console.result(
            {"runs": [_document(run) for run in found]},
            table(*COLUMNS, rows=rows, right=right) if rows else None,
        )
        if not rows:
            session.console.say("no run yet")
            session.console.then("statecast train FILE")


def _row(run: "RunRow") -> tuple[object, ...]:
    started = time.strftime("%Y-%m-%d %H:%M", time.gmtime(run.started))
    scores = (run.metrics.get("mase"), run.metrics.get("mase_SeasonalNaive"))
    shown = ("" if score is None else f"{score:.3f}" for score in scores)
    return (
        started,
        run.run_id[:8],
        run.name,
        run.status.lower(),
        "" if run.seconds is None else elapsed(run.seconds),
        *shown,
        run.tags.get("gate.promote", ""),
        run.tags.get("gate.reason", ""),
    )


def _document(run: "RunRow") -> dict[str, Any]:
    return {
        "run_id": run.run_id,
        "name": run.name,
        "status": run.status.lower(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(run.started)),
        "seconds": run.seconds,
        "metrics": run.metrics,
        "tags": run.tags,
    }

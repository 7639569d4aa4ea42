"""`statecast data check`."""

import shlex
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.table import Table
from forecast.redact import redact_url
from pipelines.cli import project
from pipelines.cli.command import USAGE, Refused, Session, command
from pipelines.cli.commands.train import Fill, Freq, Kind, as_freq
from pipelines.cli.console import table

KINDS = {
    "positive": "never below 0",
    "count": "zeros are common; forecast by its mean",
    "real": "may be negative",
    "price": "the last value is forecast, with learned intervals",
    "volatility": "a variance, above 0; forecast by its mean",
}
"""What the kind of the data means for their forecasts."""


def install(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(help="Look at data before training on them.", no_args_is_help=True)
    app.add_typer(group, name="data", rich_help_panel="Data")

    @command(group, "data check")
    def check(
        session: Session,
        file: Annotated[
            str | None, typer.Argument(metavar="FILE", help="CSV, Parquet or SQLAlchemy URL.")
        ] = None,
        freq: Freq = None,
        kind: Kind = None,
        fill: Fill = None,
        query: Annotated[str | None, typer.Option(help="SQL, when FILE is a database.")] = None,
    ) -> None:
        """
        Report what FILE holds and everything that is wrong with it.

        Exit code 2, with each problem on stderr, when it cannot be trained on as it is.
        """
        found = project.find(
            session.config,
            {
                "project.source": file,
                "project.query": query,
                "data.freq": as_freq(freq),
                "data.kind": kind,
                "data.fill": fill,
            },
        )
        _check(session, found)


def _check(session: Session, found: project.ResolvedProject) -> None:
    from forecast.data import validation
    from forecast.data.future_covariates import read_history
    from pipelines.cli.commands.train import need_source

    source = need_source(found)
    data = found.config.data
    history, ahead = read_history(source, data, query=found.project.query)
    told = {**validation.report(history, data), "rows_ahead": len(ahead)}
    session.console.result(
        {"source": redact_url(source), "usable": not told["problems"], **told}, _text(told)
    )
    for problem in told["problems"]:
        session.console.problem(**problem)
    if told["problems"]:
        raise Refused(USAGE)
    session.console.say("ready to train on")
    session.console.then(f"statecast train {shlex.quote(redact_url(source))}")


def _text(told: dict[str, Any]) -> "Table":
    rows: list[tuple[object, ...]] = [
        ("series", f"{told['series']:,}"),
        ("rows", f"{told['rows']:,}"),
        ("span", f"{told['first']} to {told['last']}"),
        ("freq", told["freq"]),
        ("kind", f"{told['kind']} ({KINDS[told['kind']]})"),
        ("zeros", f"{told['zero_share']:.1%}"),
        ("shortest", f"{told['shortest']['unique_id']} ({told['shortest']['rows']:,} rows)"),
        ("longest", f"{told['longest']['unique_id']} ({told['longest']['rows']:,} rows)"),
        ("ended early", f"{told['ended_before_last']:,} series"),
        ("unused columns", ", ".join(told["unused_columns"]) or "none"),
    ]
    return table("", "", rows=rows)

"""`statecast data check`."""

import shlex
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.table import Table
from forecast.redact import redact_url
from pipelines.cli.command import (
    USAGE,
    FillOption,
    FreqOption,
    KindOption,
    QueryOption,
    Session,
    command,
    parse_freq,
)
from pipelines.cli.console import make_table
from pipelines.cli.project import ResolvedProject, require_source, resolve_project

KINDS = {
    "positive": "never negative",
    "count": "many zeros; the mean is forecast",
    "real": "may be negative",
    "price": "the last value is forecast, with learned intervals",
    "volatility": "a variance above 0; the mean is forecast",
}
"""What each kind of data means for its forecasts."""


def install(app: typer.Typer) -> None:
    """Add the group of commands."""
    group = typer.Typer(help="Check data before training.", no_args_is_help=True)
    app.add_typer(group, name="data", rich_help_panel="Data")

    @command(group, "data check")
    def check(
        session: Session,
        file: Annotated[
            str | None,
            typer.Argument(
                metavar="FILE",
                help="CSV or Parquet file, or SQLAlchemy URL; default: source in statecast.toml.",
            ),
        ] = None,
        freq: FreqOption = None,
        kind: KindOption = None,
        fill: FillOption = None,
        query: QueryOption = None,
    ) -> None:
        """
        Summarise FILE and list every problem in it.

        Problems are printed to stderr. The exit code is 2 if FILE cannot be used for training as it
        is.
        """
        settings = resolve_project(
            session.config,
            {
                "project.source": file,
                "project.query": query,
                "data.freq": parse_freq(freq),
                "data.kind": kind,
                "data.fill": fill,
            },
        )
        _check(session, settings)


def _check(session: Session, settings: ResolvedProject) -> None:
    from forecast.data import validation
    from forecast.data.future_covariates import read_history

    source = require_source(settings)
    data = settings.config.data
    history, future = read_history(source, data, query=settings.project.query)
    report = {**validation.report(history, data), "rows_ahead": len(future)}
    session.console.print_result(
        {"source": redact_url(source), "usable": not report["problems"], **report},
        _make_table(report),
    )
    for problem in report["problems"]:
        session.console.print_problem(**problem)
    if report["problems"]:
        raise typer.Exit(USAGE)
    session.console.say("no problems: ready for training")
    session.console.suggest(f"statecast train {shlex.quote(redact_url(source))}")


def _make_table(report: dict[str, Any]) -> "Table":
    shortest, longest = report["shortest"], report["longest"]
    rows: list[tuple[object, ...]] = [
        ("series", f"{report['series']:,}"),
        ("rows", f"{report['rows']:,}"),
        ("span", f"{report['first']} to {report['last']}"),
        ("freq", report["freq"]),
        ("kind", f"{report['kind']} ({KINDS[report['kind']]})"),
        ("zeros", f"{report['zero_share']:.1%}"),
        ("shortest", f"{shortest['unique_id']} ({shortest['rows']:,} rows)"),
        ("longest", f"{longest['unique_id']} ({longest['rows']:,} rows)"),
        ("ended early", f"{report['ended_before_last']:,} series"),
        ("unused columns", ", ".join(report["unused_columns"]) or "none"),
    ]
    return make_table("", "", rows=rows)

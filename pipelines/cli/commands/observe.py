"""`statecast observe`."""

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import pandas as pd
from pipelines.cli import project
from pipelines.cli.command import Session, command
from pipelines.errors import ServerRefused

BATCH = 5_000
"""Rows in one request; each is stored whole or not at all."""


def install(app: typer.Typer) -> None:
    """Add the command."""

    @command(app, "observe", rich_help_panel="Forecasts")
    def observe(
        session: Session,
        file: Annotated[str, typer.Argument(help="CSV, Parquet or SQLAlchemy URL.")],
        server: Annotated[
            str | None, typer.Option(help="Base URL; default: [project] server.")
        ] = None,
        offline: Annotated[
            bool, typer.Option("--offline", help="Write to the log; no server may run.")
        ] = False,
        query: Annotated[str | None, typer.Option(help="SQL, when FILE is a database.")] = None,
        name: Annotated[
            str | None,
            typer.Option(help="Of which model, where STATECAST_MODELS names several."),
        ] = None,
    ) -> None:
        """Report what happened: new, duplicate and revised observations are counted."""
        found = project.find(session.config, {"project.server": server})
        put = _import if offline else _send
        counts = put(session, found, file, query, name)
        told = ", ".join(f"{counts[key]:,} {key}" for key in ("new", "duplicate", "revised"))
        session.console.result(counts, told)
        if counts["created"]:
            session.console.say(f"{counts['created']:,} series were not known before")
        if counts["filled"]:
            session.console.say(f"{counts['filled']:,} missing steps filled by the model's policy")


def _send(
    session: Session, found: project.ResolvedProject, file: str, query: str | None, name: str | None
) -> dict[str, Any]:
    from forecast.data.future_covariates import read_history
    from pipelines.cli.http_client import base_url, call
    from pipelines.cli.json_rows import to_rows

    server = base_url(found.project.server, name)
    models = call(server, "/v1/models")["models"]
    served = next((model for model in models if model["in_service"]), models[0])
    data = replace(found.config.data, known_future=tuple(served["known_future"]))
    table, _ = read_history(file, data, query=query)
    table = _columns(table, found, served)
    counts = dict.fromkeys(("new", "duplicate", "revised", "created", "filled"), 0)
    with session.console.progress("observe", len(table)) as steps:
        for start in range(0, len(table), BATCH):
            rows = to_rows(table.iloc[start : start + BATCH])
            try:
                answer = call(server, "/v1/observations", {"observations": rows})
            except ServerRefused as error:
                raise _with_progress(error, start, len(table)) from None
            for key in ("new", "duplicate", "revised"):
                counts[key] += answer[key]
            counts["created"] += len(answer["created"])
            counts["filled"] += sum(gap["steps"] for gap in answer["filled"])
            steps(min(start + BATCH, len(table)))
    return {"server": server, **counts}


def _columns(
    table: "pd.DataFrame", found: project.ResolvedProject, served: dict[str, Any]
) -> "pd.DataFrame":
    """The columns that the model takes, under the names of the service, in order of time."""
    from forecast.data.columns import need_columns
    from forecast.data.locator import Locator
    from forecast.data.parsing import read_names

    data = found.config.data
    need_columns(table, data, ("id_col", "time_col", "target_col"))
    series, ids = read_names(table[data.id_col], Locator(table, data.id_col))
    names = {data.id_col: "unique_id", data.time_col: "ds", data.target_col: "y"}
    named = table.rename(columns=names).assign(unique_id=[ids[i] for i in series])
    covariates = [*served["known_future"], *served["past_only"]]
    kept = ["unique_id", "ds", "y", *(name for name in covariates if name in named.columns)]
    return named[kept].sort_values(["unique_id", "ds"], kind="stable", ignore_index=True)


def _with_progress(error: ServerRefused, stored: int, total: int) -> ServerRefused:
    """The same problem, with what was stored before it."""
    said = (
        f"rows 1 to {stored:,} of {total:,} were stored, nothing after"
        if stored
        else ("nothing was stored")
    )
    return ServerRefused(
        error.message,
        code=error.code,
        status=error.status,
        where=error.where,
        help="\n".join(part for part in (error.help, f"({said})") if part),
    )


def _import(
    session: Session, found: project.ResolvedProject, file: str, query: str | None, name: str | None
) -> dict[str, Any]:
    from pipelines.cli import launch as serving
    from pipelines.cli.model_choice import choose_bundle, data_settings

    settings = serving.log_of(found, name)
    bundle, told = choose_bundle(found, settings.model)
    session.console.step("model", told)
    return serving.read_into_log(settings, file, data_settings(found, bundle), query=query)

"""`statecast observe`."""

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import pandas as pd
from pipelines.cli.command import QueryOption, Session, command
from pipelines.cli.project import ResolvedProject, resolve_project
from pipelines.errors import ServerRefused

BATCH = 5_000
"""Rows per request; the server stores all rows of a request or none."""


def install(app: typer.Typer) -> None:
    """Add the command."""

    @command(app, "observe", rich_help_panel="Forecasts")
    def observe(
        session: Session,
        file: Annotated[str, typer.Argument(help="CSV or Parquet file, or SQLAlchemy URL.")],
        server: Annotated[
            str | None,
            typer.Option(help="Base URL of the server; default: server in statecast.toml."),
        ] = None,
        offline: Annotated[
            bool,
            typer.Option("--offline", help="Write to the log directly; no server may be running."),
        ] = False,
        query: QueryOption = None,
        name: Annotated[
            str | None,
            typer.Option(
                help="Model that receives the observations, if STATECAST_MODELS names several "
                "models."
            ),
        ] = None,
    ) -> None:
        """Report observations, and count those that are new, duplicate or revised."""
        settings = resolve_project(session.config, {"project.server": server})
        store = _import_into_log if offline else _send_to_server
        counts = store(session, settings, file, query, name)
        session.console.print_result(
            counts,
            ", ".join(f"{counts[key]:,} {key}" for key in ("new", "duplicate", "revised")),
        )
        if counts["created"]:
            session.console.say(f"{counts['created']:,} new series")
        if counts["filled"]:
            session.console.say(
                f"{counts['filled']:,} missing steps filled according to the model's settings"
            )


def _send_to_server(
    session: Session, settings: ResolvedProject, file: str, query: str | None, name: str | None
) -> dict[str, Any]:
    from forecast.data.future_covariates import read_history
    from pipelines.cli.http_client import base_url, call
    from pipelines.cli.json_rows import to_rows

    server = base_url(settings.project.server, name)
    models = call(server, "/v1/models")["models"]
    served = next((model for model in models if model["in_service"]), models[0])
    data = replace(settings.config.data, known_future=tuple(served["known_future"]))
    table, _ = read_history(file, data, query=query)
    table = _select_columns(table, settings, served)
    counts = dict.fromkeys(("new", "duplicate", "revised", "created", "filled"), 0)
    with session.console.track_progress("observe", len(table)) as report_progress:
        for start in range(0, len(table), BATCH):
            rows = to_rows(table.iloc[start : start + BATCH])
            try:
                answer = call(server, "/v1/observations", {"observations": rows})
            except ServerRefused as error:
                raise _add_stored_rows(error, start, len(table)) from None
            for key in ("new", "duplicate", "revised"):
                counts[key] += answer[key]
            counts["created"] += len(answer["created"])
            counts["filled"] += sum(gap["steps"] for gap in answer["filled"])
            report_progress(min(start + BATCH, len(table)))
    return {"server": server, **counts}


def _select_columns(
    table: "pd.DataFrame", settings: ResolvedProject, served: dict[str, Any]
) -> "pd.DataFrame":
    """Return the columns the model takes, named as the service expects, sorted by time."""
    from forecast.data.columns import need_columns
    from forecast.data.locator import Locator
    from forecast.data.parsing import read_names

    data = settings.config.data
    need_columns(table, data, ("id_col", "time_col", "target_col"))
    codes, ids = read_names(table[data.id_col], Locator(table, data.id_col))
    names = {data.id_col: "unique_id", data.time_col: "ds", data.target_col: "y"}
    renamed = table.rename(columns=names).assign(unique_id=[ids[code] for code in codes])
    covariates = [
        name for name in (*served["known_future"], *served["past_only"]) if name in renamed.columns
    ]
    columns = ["unique_id", "ds", "y", *covariates]
    return renamed[columns].sort_values(["unique_id", "ds"], kind="stable", ignore_index=True)


def _add_stored_rows(error: ServerRefused, stored: int, total: int) -> ServerRefused:
    """Return the same error with help that says which rows were stored before it."""
    note = "no row was stored"
    if stored:
        note = f"rows 1 to {stored:,} of {total:,} were stored, and none after them"
    return ServerRefused(
        error.message,
        code=error.code,
        status=error.status,
        where=error.where,
        help="\n".join(line for line in (error.help, f"({note})") if line),
    )


def _import_into_log(
    session: Session, settings: ResolvedProject, file: str, query: str | None, name: str | None
) -> dict[str, Any]:
    from pipelines.cli import launch
    from pipelines.cli.model_choice import load_chosen_bundle, make_data_config

    server_settings = launch.build_log_settings(settings, name)
    bundle, description = load_chosen_bundle(settings, server_settings.model)
    session.console.print_step("model", description)
    data = make_data_config(settings, bundle)
    return launch.import_into_log(server_settings, file, data, query=query)

"""`statecast forecast`."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import pandas as pd
from pipelines.cli.command import DataArgument, HorizonOption, ModelOption, Session, command
from pipelines.cli.project import ResolvedProject, require_source, resolve_project
from pipelines.errors import UsageError

SUFFIXES = (".csv", ".parquet", ".json")


def install(app: typer.Typer) -> None:
    """Add the command."""

    @command(app, "forecast", rich_help_panel="Forecasts")
    def forecast(
        session: Session,
        data: DataArgument = None,
        ids: Annotated[
            list[str] | None, typer.Option("--id", help="Forecast only this series; repeatable.")
        ] = None,
        model: ModelOption = None,
        server: Annotated[
            str | None,
            typer.Option(help="Base URL of a server whose live states to use instead of DATA."),
        ] = None,
        h: HorizonOption = None,
        level: Annotated[
            list[float] | None,
            typer.Option(help="Prediction interval in percent, such as 80; repeatable."),
        ] = None,
        future: Annotated[
            str | None, typer.Option(help="Table of covariates known in advance.")
        ] = None,
        output: Annotated[
            Path | None,
            typer.Option("-o", "--output", help="CSV, Parquet or JSON file to write."),
        ] = None,
    ) -> None:
        """Forecast the series of DATA with a trained model, or live series of a server."""
        if output is not None and output.suffix.lower() not in SUFFIXES:
            raise UsageError(
                f"cannot write {output.suffix or 'a file without a suffix'!r}",
                where=str(output),
                help="use the suffix .csv, .parquet or .json",
            )
        for percent in level or ():
            if not 0 < percent < 100:
                raise UsageError(
                    f"--level {percent:g} is not between 0 and 100", help="for example --level 80"
                )
        if server is not None and not ids:
            raise UsageError(
                "--server needs the names of the series to forecast",
                help="--id SERIES, once for each series",
            )
        settings = resolve_project(session.config, {"project.source": data})
        if server is not None:
            forecasts = _request(settings, server, ids or [], h, level or [], future)
        else:
            forecasts = _compute(session, settings, ids or [], model, h, level or [], future)
        _write(session, forecasts, output)


def _compute(
    session: Session,
    settings: ResolvedProject,
    ids: Sequence[str],
    model: str | None,
    h: int | None,
    level: Sequence[float],
    future: str | None,
) -> "pd.DataFrame":
    """Forecast in this process from the whole history."""
    source = require_source(settings)
    from forecast.data import io
    from forecast.inference.batch import forecast_table, select_series
    from pipelines.cli.model_choice import load_chosen_bundle, make_data_config

    start = time.perf_counter()
    bundle, description = load_chosen_bundle(settings, model)
    session.console.print_step("model", description, time.perf_counter() - start)
    start = time.perf_counter()
    data = make_data_config(settings, bundle)
    table = io.read_table(source, query=settings.project.query, data=data)
    if ids:
        table = select_series(table, data, ids)
    covariates = None if future is None else io.read_table(future, data=data)
    forecasts = forecast_table(bundle, table, horizon=h, level=level, futr_df=covariates, data=data)
    size = f"{forecasts['unique_id'].nunique():,} series, {len(forecasts):,} rows"
    session.console.print_step("forecast", size, time.perf_counter() - start)
    return forecasts


def _request(
    settings: ResolvedProject,
    server: str,
    ids: Sequence[str],
    h: int | None,
    level: Sequence[float],
    future: str | None,
) -> "pd.DataFrame":
    """Request forecasts from a server."""
    import pandas as pd

    from pipelines.cli.http_client import call

    body: dict[str, Any] = {"unique_ids": list(ids), "level": list(level)}
    if h is not None:
        body["h"] = h
    if future is not None:
        body["futr"] = _read_covariates(settings, server, ids, future)
    frames = []
    for series in call(server, "/v1/forecasts", body)["forecasts"]:
        columns = {name: series[name] for name in ("unique_id", "ds", "statecast")}
        for percent in level:
            for side in ("lo", "hi"):
                columns[f"statecast-{side}-{percent:g}"] = series[f"{side}-{percent:g}"]
        frames.append(pd.DataFrame(columns))
    return pd.concat(frames, ignore_index=True)


def _read_covariates(
    settings: ResolvedProject, server: str, ids: Sequence[str], future: str
) -> list[dict[str, Any]]:
    """Return the rows of some series with the covariates that the served model takes."""
    from forecast.data import io
    from pipelines.cli.http_client import call
    from pipelines.cli.json_rows import to_rows

    data = settings.config.data
    table = io.read_table(future, data=data)
    table = table.rename(columns={data.id_col: "unique_id", data.time_col: "ds"})
    models = call(server, "/v1/models")["models"]
    served = next((model for model in models if model.get("in_service")), models[0])
    covariates = [name for name in served["known_future"] if name in table.columns]
    table["unique_id"] = table["unique_id"].astype(str)
    return to_rows(table.loc[table["unique_id"].isin(ids), ["unique_id", "ds", *covariates]])


def _write(session: Session, forecasts: "pd.DataFrame", output: Path | None) -> None:
    """Write the forecasts to stdout or to a file."""
    from pipelines.cli.json_rows import to_rows

    if output is None:
        if session.console.json:
            session.console.print_result({"forecasts": to_rows(forecasts)})
        else:
            session.console.print_raw(forecasts.to_csv(index=False, float_format="%.6g"))
        return
    output.parent.mkdir(parents=True, exist_ok=True)
    if output.suffix.lower() == ".csv":
        forecasts.to_csv(output, index=False)
    elif output.suffix.lower() == ".parquet":
        forecasts.to_parquet(output, index=False)
    else:
        import json

        output.write_text(json.dumps(to_rows(forecasts), indent=1), encoding="utf-8")
    session.console.print_result(
        {"path": str(output), "rows": len(forecasts)},
        f"wrote {output} ({len(forecasts):,} rows)",
    )

"""`statecast forecast`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import pandas as pd
from pipelines.cli import project
from pipelines.cli.command import Session, command
from pipelines.cli.commands.train import Ahead, DataArgument, need_source
from pipelines.errors import UsageError

SUFFIXES = (".csv", ".parquet", ".json")


def install(app: typer.Typer) -> None:
    """Add the command."""

    @command(app, "forecast", rich_help_panel="Forecasts")
    def forecast(
        session: Session,
        data: DataArgument = None,
        ids: Annotated[
            list[str] | None, typer.Option("--id", help="Only this series; repeat for more.")
        ] = None,
        model: Annotated[
            str | None,
            typer.Option(help="Bundle directory, ALIAS or VERSION; default: the champion."),
        ] = None,
        server: Annotated[
            str | None, typer.Option(help="Ask this server's live states instead of DATA.")
        ] = None,
        h: Ahead = None,
        level: Annotated[
            list[float] | None, typer.Option(help="Interval in percent; repeat for more.")
        ] = None,
        future: Annotated[
            str | None, typer.Option(help="Table of known-future covariates.")
        ] = None,
        output: Annotated[
            Path | None, typer.Option("-o", "--output", help="CSV, Parquet or JSON file.")
        ] = None,
    ) -> None:
        """Forecast the series of DATA with a trained model, or live series of a server."""
        if output is not None and output.suffix.lower() not in SUFFIXES:
            raise UsageError(
                f"cannot write {output.suffix or 'a file without a suffix'!r}",
                where=str(output),
                help="name it .csv, .parquet or .json",
            )
        for one in level or ():
            if not 0 < one < 100:
                raise UsageError(f"--level {one:g} is not between 0 and 100", help="--level 80")
        if server is not None and not ids:
            raise UsageError(
                "name the series to ask the server for", help="--id SERIES, once for each"
            )
        found = project.find(session.config, {"project.source": data})
        if server is not None:
            made = _ask(server, ids or [], h, level or [], future, found)
        else:
            made = _compute(session, found, ids or [], model, h, level or [], future)
        _write(session, made, output)


def _compute(
    session: Session,
    found: project.ResolvedProject,
    ids: Sequence[str],
    model: str | None,
    h: int | None,
    level: Sequence[float],
    future: str | None,
) -> "pd.DataFrame":
    import time

    source = need_source(found)
    from forecast.data.io import read_table
    from forecast.inference.batch import forecast_table, only
    from pipelines.cli.model_choice import choose_bundle, data_settings

    begun = time.perf_counter()
    bundle, told = choose_bundle(found, model)
    session.console.step("model", told, time.perf_counter() - begun)
    begun = time.perf_counter()
    data = data_settings(found, bundle)
    table = read_table(source, query=found.project.query, data=data)
    if ids:
        table = only(table, data, ids)
    ahead = None if future is None else read_table(future, data=data)
    made = forecast_table(bundle, table, horizon=h, level=level, futr_df=ahead, data=data)
    told = f"{made['unique_id'].nunique():,} series, {len(made):,} rows"
    session.console.step("forecast", told, time.perf_counter() - begun)
    return made


def _ask(
    server: str,
    ids: Sequence[str],
    h: int | None,
    level: Sequence[float],
    future: str | None,
    found: project.ResolvedProject,
) -> "pd.DataFrame":
    import pandas as pd

    from forecast.data.io import read_table
    from pipelines.cli.http_client import call
    from pipelines.cli.json_rows import to_rows

    body: dict[str, Any] = {"unique_ids": list(ids), "level": list(level)}
    if h is not None:
        body["h"] = h
    if future is not None:
        table = read_table(future, data=found.config.data)
        named = {found.config.data.id_col: "unique_id", found.config.data.time_col: "ds"}
        table = table.rename(columns=named)
        kept = _covariates(call(server, "/v1/models"), table)
        table["unique_id"] = table["unique_id"].astype(str)
        wanted = table["unique_id"].isin(ids)
        body["futr"] = to_rows(table.loc[wanted, ["unique_id", "ds", *kept]])
    answer = call(server, "/v1/forecasts", body)
    frames_ = []
    for one in answer["forecasts"]:
        columns = {"unique_id": one["unique_id"], "ds": one["ds"], "statecast": one["statecast"]}
        for each in level:
            for side in ("lo", "hi"):
                columns[f"statecast-{side}-{each:g}"] = one[f"{side}-{each:g}"]
        frames_.append(pd.DataFrame(columns))
    return pd.concat(frames_, ignore_index=True)


def _covariates(models: dict[str, Any], table: "pd.DataFrame") -> list[str]:
    served = next((m for m in models["models"] if m.get("in_service")), models["models"][0])
    return [name for name in served["known_future"] if name in table.columns]


def _write(session: Session, made: "pd.DataFrame", output: Path | None) -> None:
    from pipelines.cli.json_rows import to_rows

    if output is None:
        if session.console.json:
            session.console.result({"forecasts": to_rows(made)})
        else:
            session.console.raw(made.to_csv(index=False, float_format="%.6g"))
        return
    output.parent.mkdir(parents=True, exist_ok=True)
    if output.suffix.lower() == ".csv":
        made.to_csv(output, index=False)
    elif output.suffix.lower() == ".parquet":
        made.to_parquet(output, index=False)
    else:
        import json

        output.write_text(json.dumps(to_rows(made), indent=1), encoding="utf-8")
    document = {"path": str(output), "rows": len(made)}
    session.console.result(document, f"wrote {output} ({len(made):,} rows)")

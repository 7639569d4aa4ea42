"""Import a table of history into the observation log, without a server."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from forecast.calendars.calendar import Calendar
from forecast.config import DataConfig
from forecast.data.checks import problems
from forecast.data.columns import need_columns
from forecast.data.future_covariates import read_history
from forecast.data.long_table import LongTable, read_long_table
from forecast.data.validation import validate
from service.errors import Refused
from service.ingest.planner import STATUSES, Known, plan
from service.storage.log import ObservationLog
from service.storage.records import Observations
from service.storage.transaction import Transaction

_MAX_FILLED = 10_000_000
"""Most steps that the fill policy adds, in one gap and in all."""


def import_history(
    database_url: str, table: Any, data: DataConfig, *, query: str | None = None
) -> dict[str, int]:
    """
    Import a table into the log: all of it, or nothing.

    Rows of the future are left out, as in training. The columns of static covariates may be
    missing if the log has every series already.

    Args:
        database_url: URL of the log; no server may have it open.
        table: A table as for `forecast.data.io.read_table`, one row per series and stamp.
        data: Roles, frequency and fill policy of the model that will serve: the `config.data` of
            its bundle.
        query: SQL query, if `table` is a database URL.

    Returns:
        The numbers of `rows`, `series`, `created` series, `new`, `duplicate` and `revised` rows,
        and `filled` steps.

    Raises:
        DataError: The table has a fault, or does not continue the series of the log.
        LogLocked, LogError: The log cannot be written.
    """
    frame, _ = read_history(table, data, query=query)
    has_static = not set(data.static).isdisjoint(frame.columns)
    rows = read_long_table(frame, data if has_static else replace(data, static=()))
    calendar = Calendar(data.freq) if data.freq is not None else validate(frame, data).calendar
    for problem in problems(rows, data, calendar):
        raise problem
    log = ObservationLog(database_url, (*data.known_future, *data.past_only))
    try:
        log.bind_calendar(calendar)
        with log.write() as transaction:
            read_static = partial(_static_covariates, frame, data)
            return _import(transaction, rows, read_static, data, calendar)
    except Refused as refusal:
        raise refusal.error from None
    finally:
        log.close()


def seed(database_url: str, table: Path, data: DataConfig) -> None:
    """Import a table if the log has no series yet."""
    log = ObservationLog(database_url)
    try:
        with log.read() as transaction:
            empty = not transaction.entries()
    finally:
        log.close()
    if empty:
        import_history(database_url, table, data)


def _import(
    transaction: Transaction,
    table: LongTable,
    read_static: Callable[[], Mapping[str, Mapping[str, Any]]],
    data: DataConfig,
    calendar: Calendar,
) -> dict[str, int]:
    numbers = {record.unique_id: record.number for record in transaction.entries()}
    spans = transaction.spans([numbers[name] for name in table.names if name in numbers])
    ends = [spans.get(numbers.get(name, -1)) for name in table.names]
    known = Known(
        table.names,
        np.array([span[0] if span else 0 for span in ends], np.int64),
        np.array([span[1] if span else 0 for span in ends], np.int64),
        np.array([span is None for span in ends]),
    )
    columns = [table.covariates[name] for name in transaction.covariates]
    rows = Observations(
        table.series,
        table.stamps,
        table.y,
        np.stack(columns, axis=1) if columns else np.empty((len(table.y), 0)),
        np.zeros(len(table.y), bool),
    )
    rows = _fill_values(rows, data.fill)

    stored_numbers = [numbers.get(name, -1) for name in table.names]
    planned = plan(
        rows,
        known,
        lambda steps: transaction.current(steps, stored_numbers),
        data,
        calendar,
        max_fill=_MAX_FILLED,
        max_rows=_MAX_FILLED,
        pointer=lambda row: f"row {row}",
        pruned=lambda row: bool(len(transaction.begins([stored_numbers[row]]).series)),
    )
    created = [table.names[row] for row in np.unique(rows.series) if ends[row] is None]
    added = transaction.add_series(created, read_static() if created else {})
    numbers |= dict(zip(created, added, strict=True))
    number = np.array([numbers.get(name, -1) for name in table.names], np.int64)
    fresh, revised = planned.fresh, planned.revised
    transaction.append(replace(fresh, series=number[fresh.series]))
    transaction.append(replace(revised, series=number[revised.series]), revise=True)
    counts = np.bincount(planned.status, minlength=len(STATUSES)).tolist()
    return {
        "rows": len(rows),
        "series": len(table.names),
        "created": len(created),
        **dict(zip(STATUSES, counts, strict=True)),
        "filled": planned.filled,
    }


def _fill_values(rows: Observations, fill: str) -> Observations:
    """
    Apply the fill policy to missing values: `zero` fills them, `forward` leaves the rows out.

    Other policies keep the rows, except those before the first value of a series.
    """
    missing = np.isnan(rows.y)
    if fill == "zero":
        return replace(rows, y=np.where(missing, 0.0, rows.y), filled=missing)
    present = np.flatnonzero(~missing)
    begin = np.full(int(rows.series.max(initial=-1)) + 1, len(rows))
    np.minimum.at(begin, rows.series[present], present)
    begun = np.arange(len(rows)) >= begin[rows.series]
    return rows.take(begun & ~missing if fill == "forward" else begun)


def _static_covariates(frame: pd.DataFrame, data: DataConfig) -> dict[str, dict[str, Any]]:
    """Return the static covariates by series, from the first row of each."""
    if not data.static:
        return {}
    need_columns(frame, data, ("static",))
    first = frame.drop_duplicates(data.id_col).set_index(data.id_col)[list(data.static)]
    rows = first.to_dict("index").items()
    return {str(name): {str(k): v for k, v in row.items()} for name, row in rows}

"""History read into the observation log without a server."""

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
from forecast.data.long_table import LongTable as FoundRows
from forecast.data.long_table import read_long_table
from forecast.data.validation import validate
from service.errors import Refused
from service.ingest.planner import STATUSES, Known, with_values
from service.ingest.planner import plan as plan_batch
from service.storage.log import ObservationLog
from service.storage.records import Observations
from service.storage.transaction import Transaction


def import_history(
    database_url: str, table: Any, data: DataConfig, *, query: str | None = None
) -> dict[str, int]:
    """
    Read a table into the log without a server: all of it, or nothing.

    Rows of the future are left out, as in training. The columns of static covariates may be
    left out where the log has every series already.

    Args:
        database_url: Of the log; no server may have it open.
        table: Anything `forecast.data.io.read_table` takes, one row per series and stamp.
        data: Roles, frequency and fill policy, as the model that will serve has them (its
            bundle's `config.data`).
        query: SQL, when `table` is a database URL.

    Returns:
        Counts: `rows`, `series`, `created` (series), `new`, `duplicate`, `revised`, `filled`.

    Raises:
        DataError: The table has a fault, or does not go on where the log ends.
        LogLocked, LogError: The log cannot be written.
    """
    frame, _ = read_history(table, data, query=query)
    brings_static = not set(data.static).isdisjoint(frame.columns)
    found = read_long_table(frame, data if brings_static else replace(data, static=()))
    calendar = Calendar(data.freq) if data.freq is not None else validate(frame, data).calendar
    for problem in problems(found, data, calendar):
        raise problem
    log = ObservationLog(database_url, (*data.known_future, *data.past_only))
    try:
        log.bind_calendar(calendar)
        with log.write() as transaction:
            return _import(transaction, found, partial(_static, frame, data), data, calendar)
    except Refused as refusal:
        raise refusal.error from None
    finally:
        log.close()


def seed(database_url: str, table: Path, data: DataConfig) -> None:
    """Read a table into a log that holds no series yet; one that does is left as it is."""
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
    found: FoundRows,
    static: Callable[[], Mapping[str, Mapping[str, Any]]],
    data: DataConfig,
    calendar: Calendar,
) -> dict[str, int]:
    names = transaction.covariates
    numbers = {entry.unique_id: entry.number for entry in transaction.entries()}
    spans = transaction.spans([numbers[name] for name in found.names if name in numbers])
    ends = [spans.get(numbers.get(name, -1)) for name in found.names]
    known = Known(
        found.names,
        np.array([span[0] if span else 0 for span in ends], np.int64),
        np.array([span[1] if span else 0 for span in ends], np.int64),
        np.array([span is None for span in ends]),
    )
    columns = [found.covariates[name] for name in names]
    rows = Observations(
        found.series,
        found.stamps,
        found.y,
        np.stack(columns, axis=1) if columns else np.empty((len(found.y), 0)),
        np.zeros(len(found.y), bool),
    )
    rows = with_values(rows, data.fill)

    stored_as = [numbers.get(name, -1) for name in found.names]
    plan = plan_batch(
        rows,
        known,
        lambda asked: transaction.current(asked, stored_as),
        data,
        calendar,
        max_fill=10_000_000,
        max_rows=10_000_000,
        pointer=lambda row: f"row {row}",
        pruned=lambda row: bool(len(transaction.begins([stored_as[row]]).series)),
    )
    fresh = [found.names[row] for row in np.unique(rows.series) if ends[row] is None]
    begun = transaction.add_series(fresh, static() if fresh else {})
    numbers |= dict(zip(fresh, begun, strict=True))
    number = np.array([numbers.get(name, -1) for name in found.names], np.int64)
    transaction.append(replace(plan.fresh, series=number[plan.fresh.series]))
    transaction.append(replace(plan.revised, series=number[plan.revised.series]), revise=True)
    counts = np.bincount(plan.status, minlength=len(STATUSES)).tolist()
    return {
        "rows": len(rows),
        "series": len(found.names),
        "created": len(fresh),
        **dict(zip(STATUSES, counts, strict=True)),
        "filled": plan.filled,
    }


def _static(frame: pd.DataFrame, data: DataConfig) -> dict[str, dict[str, Any]]:
    """Static covariates by series, as the first row of each has them."""
    if not data.static:
        return {}
    need_columns(frame, data, ("static",))
    first = frame.drop_duplicates(data.id_col).set_index(data.id_col)[list(data.static)]
    rows = first.to_dict("index").items()
    return {str(name): {str(k): v for k, v in row.items()} for name, row in rows}

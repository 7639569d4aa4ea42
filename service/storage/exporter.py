"""Exports the log as Parquet, one row group at a time, so that memory stays flat."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from forecast.errors import UnknownSeries, nearest
from service.storage.records import SeriesRecord
from service.storage.transaction import Transaction

GROUP = 65_536
"""Rows in a row group."""


@dataclass(frozen=True, slots=True)
class Selection:
    """The part of the log to export."""

    unique_ids: tuple[str, ...] = ()
    """Names of the series; empty for all."""
    since: int | None = None
    """First stamp, or None."""
    until: int | None = None
    """Last stamp, or None."""
    full: bool = False
    """Whether to export every revision with its details instead of the latest values."""


def export(
    transaction: Transaction,
    file: IO[bytes],
    selection: Selection,
    *,
    is_integer: bool,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, int]:
    """
    Write a part of the log in the data format: `unique_id`, `ds`, `y`, covariates.

    With `full`, `revision`, `filled` and `recorded_at` follow. A column with the name of an earlier
    one gets `_` appended. Rows are in the order of the log: by series as they were created, then by
    stamp. `ds` is a stamp in nanoseconds, or an integer.

    Args:
        transaction: A transaction of the log.
        file: File to write, from its beginning.
        selection: The part to export.
        is_integer: Whether stamps are integers.
        on_progress: Called with the rows written so far and the total.

    Returns:
        Counts: `series` selected and `rows` written.

    Raises:
        UnknownSeries: A named series is not in the log.
    """
    unique_ids = selection.unique_ids
    entries = find_series(transaction, unique_ids) if unique_ids else transaction.entries()
    numbers = [entry.number for entry in entries]
    latest = not selection.full

    part = (numbers, selection.since, selection.until)
    total, names = transaction.outline(*part, latest=latest)
    layout = _Layout(entries, tuple(names), is_integer=is_integer, full=selection.full)
    done = 0
    with pq.ParquetWriter(file, layout.schema, compression="zstd") as writer:
        for rows in transaction.stream(*part, latest=latest, size=GROUP):
            writer.write_table(layout.table(rows), row_group_size=GROUP)
            done += len(rows)
            on_progress(done, total)
    return {"series": len(entries), "rows": done}


def find_series(transaction: Transaction, unique_ids: Sequence[str]) -> list[SeriesRecord]:
    """
    Return the records of named series, in the order of the log.

    Raises:
        UnknownSeries: A series is not in the log.
    """
    names = list(dict.fromkeys(unique_ids))
    records = transaction.find(names)
    present = {record.unique_id for record in records}
    missing = [name for name in names if name not in present]
    if missing:
        known = [entry.unique_id for entry in transaction.entries()]
        near = nearest(missing[0], sorted(known))
        more = f" and {len(missing) - 1:,} more" if len(missing) > 1 else ""
        raise UnknownSeries(
            f"no series {missing[0]!r}{more}",
            where=f"among {len(known):,} series of the log",
            help=f"did you mean {near!r}?" if near else "GET /v1/series lists them",
        )
    return sorted(records, key=lambda record: record.number)


class _Layout:
    """The columns of the file; turns rows of the log into tables with them."""

    def __init__(
        self,
        entries: Sequence[SeriesRecord],
        covariates: tuple[str, ...],
        *,
        is_integer: bool,
        full: bool,
    ) -> None:
        self._place = {entry.number: at for at, entry in enumerate(entries)}
        self._ids = pa.array([entry.unique_id for entry in entries], pa.string())
        static = dict.fromkeys(name for entry in entries for name in entry.static)
        self._static = {
            name: pa.array([_text(entry.static.get(name)) for entry in entries], pa.string())
            for name in static
        }
        self._covariates = covariates
        self._full = full
        details = [
            ("revision", pa.int32()),
            ("filled", pa.bool_()),
            ("recorded_at", pa.timestamp("ms", "UTC")),
        ]
        columns = [
            ("unique_id", pa.string()),
            ("ds", pa.int64() if is_integer else pa.timestamp("ns")),
            ("y", pa.float64()),
            *((name, pa.float64()) for name in covariates),
            *((name, pa.string()) for name in static),
            *(details if full else []),
        ]
        names = _distinct([name for name, _ in columns])
        self.schema = pa.schema(list(zip(names, (kind for _, kind in columns), strict=True)))

    def table(self, rows: Sequence[Sequence[Any]]) -> pa.Table:
        """Convert at least one row, as `Transaction.stream` yields them, to a table."""
        numbers, ds, revisions, y, texts, filled, recorded = zip(*rows, strict=True)
        index = pa.array([self._place[number] for number in numbers], pa.int32())
        values = [json.loads(text) if text else {} for text in texts] if self._covariates else []
        columns = [
            self._ids.take(index),
            pa.array(ds, pa.int64()).cast(self.schema.field("ds").type),
            pa.array(y, pa.float64()),
            *(
                pa.array([row.get(name) for row in values], pa.float64())
                for name in self._covariates
            ),
            *(texts.take(index) for texts in self._static.values()),
        ]
        if self._full:
            columns += [
                pa.array(revisions, pa.int32()),
                pa.array([bool(flag) for flag in filled], pa.bool_()),
                pa.array(recorded, pa.int64()).cast(pa.timestamp("ms", "UTC")),
            ]
        return pa.table(columns, schema=self.schema)


def _distinct(names: Sequence[str]) -> list[str]:
    """
    Make names distinct by appending `_`; the first of equal names stays as it is.

    >>> _distinct(["y", "filled", "filled_", "filled"])
    ['y', 'filled', 'filled_', 'filled__']
    """
    distinct: list[str] = []
    for name in names:
        while name in distinct:
            name += "_"
        distinct.append(name)
    return distinct


def _text(value: Any) -> str | None:
    return None if value is None else str(value)

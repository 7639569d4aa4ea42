"""The log as Parquet: a row group at a time, so that memory does not grow with the log."""

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
"""Rows in one row group."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which part of the log."""

    unique_ids: tuple[str, ...] = ()
    """None named: every series."""
    since: int | None = None
    """First stamp."""
    until: int | None = None
    """Last stamp."""
    full: bool = False
    """Every revision, with what the log notes of it, instead of the values that count."""


def export(
    transaction: Transaction,
    file: IO[bytes],
    selection: Selection,
    *,
    is_integer: bool,
    told: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, int]:
    """
    Write a part of the log in the data format: `unique_id`, `ds`, `y`, covariates.

    With `full` there follow `revision`, `filled` and `recorded_at`. A column whose name one before
    it has already gets `_` behind it. The order is that of the log: series as they began, stamps
    rising. A `ds` is a stamp in nanoseconds, or an integer.

    Args:
        transaction: Read to the end.
        file: Written to from its beginning.
        selection: Which part.
        is_integer: Whether stamps are integers.
        told: Rows written so far, and how many there are.

    Returns:
        Counts: `series` looked through and `rows` written.

    Raises:
        UnknownSeries: One of those named is not there.
    """
    chosen = selection.unique_ids
    entries = named(transaction, chosen) if chosen else transaction.entries()
    numbers = [entry.number for entry in entries]
    latest = not selection.full

    asked = (numbers, selection.since, selection.until)
    total, names = transaction.outline(*asked, latest=latest)
    layout = _Layout(entries, tuple(names), is_integer=is_integer, full=selection.full)
    done = 0
    with pq.ParquetWriter(file, layout.schema, compression="zstd") as writer:
        for rows in transaction.stream(*asked, latest=latest, size=GROUP):
            writer.write_table(layout.table(rows), row_group_size=GROUP)
            done += len(rows)
            told(done, total)
    return {"series": len(entries), "rows": done}


def named(transaction: Transaction, unique_ids: Sequence[str]) -> list[SeriesRecord]:
    """
    These series, in the order of the log.

    Raises:
        UnknownSeries: One of them is not there.
    """
    names = list(dict.fromkeys(unique_ids))
    found = transaction.find(names)
    there = {entry.unique_id for entry in found}
    lost = [name for name in names if name not in there]
    if lost:
        known = [entry.unique_id for entry in transaction.entries()]
        near = nearest(lost[0], sorted(known))
        more = f" and {len(lost) - 1:,} more" if len(lost) > 1 else ""
        raise UnknownSeries(
            f"no series {lost[0]!r}{more}",
            where=f"among {len(known):,} series of the log",
            help=f"did you mean {near!r}?" if near else "GET /v1/series lists them",
        )
    return sorted(found, key=lambda entry: entry.number)


class _Layout:
    """Columns of the file, and rows of the log as a table with them."""

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
        noted = [
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
            *(noted if full else []),
        ]
        names = _apart([name for name, _ in columns])
        self.schema = pa.schema(list(zip(names, (kind for _, kind in columns), strict=True)))

    def table(self, rows: Sequence[Sequence[Any]]) -> pa.Table:
        """At least one row, as `Transaction.stream` gives them."""
        numbers, ds, revisions, y, texts, filled, recorded = zip(*rows, strict=True)
        at = pa.array([self._place[number] for number in numbers], pa.int32())
        told = [json.loads(text) if text else {} for text in texts] if self._covariates else []
        columns = [
            self._ids.take(at),
            pa.array(ds, pa.int64()).cast(self.schema.field("ds").type),
            pa.array(y, pa.float64()),
            *(pa.array([one.get(name) for one in told], pa.float64()) for name in self._covariates),
            *(values.take(at) for values in self._static.values()),
        ]
        if self._full:
            columns += [
                pa.array(revisions, pa.int32()),
                pa.array([bool(made) for made in filled], pa.bool_()),
                pa.array(recorded, pa.int64()).cast(pa.timestamp("ms", "UTC")),
            ]
        return pa.table(columns, schema=self.schema)


def _apart(names: Sequence[str]) -> list[str]:
    """
    The same names, none of them twice; the first to have one keeps it.

    >>> _apart(["y", "filled", "filled_", "filled"])
    ['y', 'filled', 'filled_', 'filled__']
    """
    made: list[str] = []
    for name in names:
        while name in made:
            name += "_"
        made.append(name)
    return made


def _text(value: Any) -> str | None:
    return None if value is None else str(value)

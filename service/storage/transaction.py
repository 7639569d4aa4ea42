"""Reads and appends to the observation log inside one transaction."""

import copy
import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np
import sqlalchemy as sa

from forecast.calendars.calendar import Calendar
from forecast.inference.states import States
from service.storage import base_states, migrations
from service.storage.base_states import PrunedSpans
from service.storage.database import among, slices, timeline_of
from service.storage.observation_table import Cuts, ObservationTable, Sum, tuples, usual_width
from service.storage.records import Observations, SeriesRecord, to_json
from service.storage.schema import base, head, meta, observation, pruned, removed, series


@dataclass(frozen=True, slots=True)
class Totals:
    """Size of the whole log."""

    series: int
    rows: int
    """Rows, including revisions."""
    first_ds: int | None
    last_ds: int | None
    pruned_series: int
    pruned_steps: int
    schema: str


def count_all(connection: sa.Connection) -> Totals:
    """Count the whole log in one query."""
    c, p = observation.c, pruned.c
    query = sa.select(
        sa.func.count(),
        sa.func.min(c.ds),
        sa.func.max(c.ds),
        sa.select(sa.func.count()).select_from(series).scalar_subquery(),
        sa.select(sa.func.count()).select_from(pruned).scalar_subquery(),
        sa.select(sa.func.coalesce(sa.func.sum(p.steps), 0)).scalar_subquery(),
    )
    rows, first, last, count, pruned_series, steps = connection.execute(query).one()
    schema = migrations.version(connection) or ""
    return Totals(count, rows, first, last, pruned_series, int(steps), schema)


@dataclass(frozen=True, slots=True)
class Changes:
    """Changes of the log after a batch."""

    batch: int
    """Last batch that is included."""
    added: list[SeriesRecord]
    """Series that were added."""
    removed: list[int]
    """Numbers of series that were deleted."""
    rows: Observations
    """New steps, without revisions; `series` are numbers."""
    revised: list[int]
    """Numbers of series with corrected values."""
    pruned: PrunedSpans
    """Series whose older steps were pruned."""


class Transaction:
    """
    A transaction of the observation log.

    Args:
        connection: Connection in a transaction of the database.
        covariates: Names of the columns of `Observations.covariates`.
        writes: Whether it may write; it then waits for other writers.
    """

    def __init__(
        self, connection: sa.Connection, covariates: tuple[str, ...], *, writes: bool = False
    ) -> None:
        self._connection = connection
        query = sa.select(head.c.batch, head.c.width).where(head.c.id == 1)
        before, width = connection.execute(query.with_for_update() if writes else query).one()
        self.before = int(before)
        """Last batch of the log when the transaction began."""
        self.timeline = timeline_of(connection)
        """History of the log; the same number is another batch in another history."""
        self._table = ObservationTable(connection, covariates, width)
        self._wrote = False

    def with_covariates(self, covariates: Sequence[str]) -> "Transaction":
        """Return the same transaction for a model with other covariates."""
        other = copy.copy(self)
        other._table = replace(self._table, covariates=tuple(covariates))
        return other

    @property
    def covariates(self) -> tuple[str, ...]:
        """Names of the columns of `Observations.covariates`."""
        return self._table.covariates

    @property
    def batch(self) -> int:
        """Last batch of the log as this transaction leaves it: its own, if it wrote anything."""
        return self.before + self._wrote

    def end(self) -> None:
        """Record the batch number if anything was written; call it just before the commit."""
        if self._wrote:
            self._connection.execute(sa.update(head).values(batch=self.batch))

    def fingerprint(self, batch: int) -> list[int]:
        """
        Return numbers that tell a batch from another of the same number in a copy of this log.

        They are the number of its rows, the latest time at which one was recorded, the last series
        that it deleted and, if it pruned any, a checksum of where their logs begin. Empty for a
        batch that the log does not have.
        """
        if batch > self.before:
            return []
        c = observation.c
        query = sa.select(sa.func.count(), sa.func.coalesce(sa.func.max(c.recorded_at), 0)).where(
            c.batch == batch
        )
        last_removed = sa.select(sa.func.coalesce(sa.func.max(removed.c.series), 0))
        count, latest = self._connection.execute(query).one()
        last = self._connection.execute(last_removed.where(removed.c.batch == batch)).scalar_one()
        cut = base_states.begins(self._connection, pruned.c.batch == batch).checksum()
        numbers = [int(count), int(latest), int(last), *([cut] if cut else [])]
        return numbers if batch else [0, 0, 0]

    def changes(self, since: int) -> Changes:
        """Return what was written after a batch."""
        s, c = series.c, observation.c
        added = sa.select(s.series, s.unique_id, s.static).where(s.batch > since)
        deleted = sa.select(removed.c.series).where(removed.c.batch > since)
        corrected = sa.select(c.series).distinct().where(c.batch > since, c.revision > 1)
        return Changes(
            batch=self.before,
            added=self._entries([added.order_by(s.series)]),
            removed=[int(n) for n in self._connection.execute(deleted).scalars()],
            rows=self._table.since(since),
            revised=[int(n) for n in self._connection.execute(corrected).scalars()],
            pruned=base_states.begins(self._connection, pruned.c.batch > since),
        )

    def changed(self, numbers: Sequence[int], since: int) -> set[int]:
        """Return the numbers of series that were written, pruned or deleted after a batch."""
        if self.before == since:
            return set()
        return {
            int(number)
            for c in (observation.c, pruned.c, removed.c)
            for chosen in among(c.series, numbers)
            for number in self._connection.execute(
                sa.select(c.series).distinct().where(c.batch > since, chosen)
            ).scalars()
        }

    def meta(self, key: str) -> str | None:
        """Return a fact about the log itself, or None."""
        query = sa.select(meta.c.value).where(meta.c.key == key)
        return self._connection.execute(query).scalar_one_or_none()

    def note_calendar(self, calendar: Calendar) -> None:
        """Record the frequency of the log; done once."""
        row = {"key": "freq", "value": json.dumps(calendar.freq)}
        self._connection.execute(sa.insert(meta).values(row))
        self._table = replace(self._table, width=usual_width(calendar))
        self._connection.execute(sa.update(head).values(width=self._table.width))

    def entries(self, numbers: Sequence[int] | None = None) -> list[SeriesRecord]:
        """Return all series, or those with some numbers, in the order of their numbers."""
        query = sa.select(series.c.series, series.c.unique_id, series.c.static)
        query = query.order_by(series.c.series)
        queries = [query]
        if numbers is not None:
            queries = [query.where(chosen) for chosen in among(series.c.series, numbers)]
        return self._entries(queries)

    def names(self) -> dict[int, str]:
        """Return all names by number, in half the time that a `SeriesRecord` each would take."""
        query = sa.select(series.c.series, series.c.unique_id).order_by(series.c.series)
        return dict(tuples(self._connection, query))

    def find(self, unique_ids: Sequence[str]) -> list[SeriesRecord]:
        """Return the named series that the log has, in no particular order."""
        query = sa.select(series.c.series, series.c.unique_id, series.c.static)
        name = series.c.unique_id
        return self._entries([query.where(name.in_(part)) for part in slices(unique_ids)])

    def created_at(self, number: int) -> int:
        """Return when a series was added, in Unix milliseconds."""
        query = sa.select(series.c.created_at).where(series.c.series == number)
        return int(self._connection.execute(query).scalar_one())

    def spans(self, numbers: Sequence[int]) -> dict[int, tuple[int, int]]:
        """Return the first and last stamp of series, by number."""
        return self._table.spans(numbers)

    def begins(self, numbers: Sequence[int]) -> PrunedSpans:
        """Return where the logs of pruned series begin, for at most some hundreds of series."""
        return base_states.begins(self._connection, pruned.c.series.in_(numbers))

    def shortened(self, digest: str) -> int:
        """Count the series that were pruned before a model was loaded, so that it has seen less."""
        return base_states.shortened(self._connection, digest)

    def bases(self, numbers: Sequence[int], digest: str) -> dict[int, States]:
        """Return the base states of a model for pruned series, by number."""
        conditions = among(base.c.series, numbers)
        parts = (base_states.load(self._connection, chosen, digest) for chosen in conditions)
        return {number: state for part in parts for number, state in part.items()}

    def first_observed(self, cuts: Cuts) -> dict[int, int]:
        """Return the first stamp with a value at or after each cut, by number, if there is one."""
        return self._table.first_observed(cuts)

    def sums_before(self, cuts: Cuts) -> dict[int, Sum]:
        """Return the amounts before the cuts, by number of the series."""
        return self._table.sums_before(cuts)

    def history_before(self, cuts: Cuts) -> Observations:
        """Return every step before the cuts with its latest value, by series and stamp."""
        return self._table.before(cuts)

    def prune(self, spans: PrunedSpans, states: Mapping[str, States]) -> None:
        """Remove the steps before `spans.first_ds` and store base states by digest of the model."""
        self._wrote = True
        self._table.cut(Cuts(spans.series, spans.first_ds))
        base_states.store(self._connection, spans, self.before + 1, states)

    def totals(self) -> Totals:
        """Return the size of the log."""
        return count_all(self._connection)

    def summary(self, number: int) -> tuple[int, int, int, int, int]:
        """Return first stamp, last stamp, steps, filled steps and revisions of a series."""
        rows = self.history([number])
        stored = self._table.count(number)
        first, last = int(rows.ds[0]), int(rows.ds[-1])
        return first, last, len(rows), int(rows.filled.sum()), stored - len(rows)

    def add_series(
        self, unique_ids: Sequence[str], static: Mapping[str, Mapping[str, Any]]
    ) -> list[int]:
        """Add new series and return their numbers, which increase and are never used again."""
        used = [
            self._connection.execute(sa.select(sa.func.max(table.c.series))).scalar_one() or 0
            for table in (series, removed)
        ]
        start, now = max(used) + 1, _now()
        rows = [
            {
                "series": start + i,
                "unique_id": name,
                "static": to_json(static.get(name, {})),
                "created_at": now,
                "batch": self.before + 1,
            }
            for i, name in enumerate(unique_ids)
        ]
        if rows:
            self._wrote = True
            self._connection.execute(sa.insert(series), rows)
        return list(range(start, start + len(rows)))

    def history(self, numbers: Sequence[int]) -> Observations:
        """Return every step of series with its latest value, by series and stamp."""
        return self._table.history(numbers)

    def outline(
        self, numbers: Sequence[int], since: int | None, until: int | None, *, latest: bool
    ) -> tuple[int, list[str]]:
        """Return how many rows `stream` yields, and the names of the covariates in them."""
        return self._table.outline(numbers, since, until, latest=latest)

    def stream(
        self,
        numbers: Sequence[int],
        since: int | None,
        until: int | None,
        *,
        latest: bool,
        size: int,
    ) -> Iterator[Sequence[Sequence[Any]]]:
        """Yield rows of series in parts of `size`, as `ObservationTable.stream` does."""
        return self._table.stream(numbers, since, until, latest=latest, size=size)

    def current(self, stamps: Observations, numbers: Sequence[int]) -> Observations:
        """
        Return the latest values of some stamps, by series and stamp.

        Args:
            stamps: Series and stamps; `series` indexes `numbers`, as in the result.
            numbers: Numbers of the series.

        Returns:
            The rows of the stamps that are stored.
        """
        known = np.asarray(numbers, np.int64)
        rows = self._table.at(known[stamps.series], stamps.ds)
        order = np.argsort(known, kind="stable")
        index = order[np.searchsorted(known, rows.series, sorter=order)]
        return replace(rows, series=index).take(np.argsort(index, kind="stable"))

    def append(self, rows: Observations, *, revise: bool = False) -> None:
        """
        Append observations, in any order.

        Args:
            rows: The observations; `series` are numbers.
            revise: Whether the stamps are already stored and get the next revision.
        """
        if len(rows):
            self._wrote = True
            self._table.insert(rows, revise=revise, now=_now(), batch=self.before + 1)

    def remove(self, numbers: Sequence[int]) -> int:
        """Delete series with all their observations and return how many rows they had."""
        rows = self._table.remove(numbers)
        for table in (base, pruned, series):
            for chosen in among(table.c.series, numbers):
                self._connection.execute(sa.delete(table).where(chosen))
        removals = [{"series": number, "batch": self.before + 1} for number in numbers]
        if removals:
            self._wrote = True
            self._connection.execute(sa.insert(removed), removals)
        return rows

    def _entries(self, queries: Iterable[sa.Select[Any]]) -> list[SeriesRecord]:
        """Read queries for number, name and static covariates."""
        rows = chain.from_iterable(tuples(self._connection, query) for query in queries)
        return [
            SeriesRecord(n, name, json.loads(static) if static else {}) for n, name, static in rows
        ]


def _now() -> int:
    return time.time_ns() // 1_000_000

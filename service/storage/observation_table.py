"""
The table of observations, ordered by bucket, series, stamp and revision.

A bucket is a span of time of 16 steps. So rows that arrive together are stored together: a new step
of every series touches the pages of one bucket instead of a page of each series, whatever the
length of their histories. The history of a series is at one place in each bucket.
"""

import json
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
import sqlalchemy as sa
from jaxtyping import Int

from forecast.calendars.calendar import Calendar
from forecast.calendars.grid import DAY
from service.storage.database import MOST, among, slices
from service.storage.records import Observations, from_texts, nullable, to_texts
from service.storage.schema import observation

BUCKET_STEPS = 16
"""Steps of the frequency in a bucket; fewer would scatter a history over more places."""
_FETCHED = 1_000
"""Rows fetched from the driver at a time."""
_ROWS = 100
"""Rows in one `INSERT`; one statement per row takes twice the time."""


@dataclass(frozen=True, slots=True)
class Cuts:
    """A stamp for each of some series, which divides its log in two."""

    series: Int[np.ndarray, " series"]
    """Increasing numbers of the log."""
    ds: Int[np.ndarray, " series"]

    def __len__(self) -> int:
        return len(self.series)


class Sum(NamedTuple):
    """Amounts of rows of a series."""

    steps: int = 0
    rows: int = 0
    """Rows, including revisions."""
    newest: int = 0
    """Last batch that wrote one of the rows."""


def usual_width(calendar: Calendar) -> int:
    """
    Return the width of a bucket for a calendar: nanoseconds, or integer steps.

    >>> usual_width(Calendar(5)), usual_width(Calendar("D")) // DAY
    (80, 16)
    """
    if isinstance(calendar.freq, int):
        return BUCKET_STEPS * calendar.freq
    return round(BUCKET_STEPS * calendar.grid.units * calendar.grid.days * DAY)


@dataclass(frozen=True, slots=True)
class ObservationTable:
    """The observations that a connection sees. Series are given by their numbers."""

    connection: sa.Connection
    covariates: tuple[str, ...]
    """Names of the columns of `Observations.covariates`."""
    width: int | None
    """Width of a bucket; None while nothing is stored."""

    def history(self, numbers: Sequence[int]) -> Observations:
        """Return every step of series with its latest value, by series and stamp."""
        return self._rows(self._select(where) for where in self._of(numbers))

    def before(self, cuts: Cuts) -> Observations:
        """Return the steps before the cuts with their latest values, by series and stamp."""
        return self._rows(self._select(where) for where in self._below(cuts))

    def at(self, series: Int[np.ndarray, " row"], ds: Int[np.ndarray, " row"]) -> Observations:
        """Return the latest values of stamps, each of its series, that are stored."""
        c = observation.c
        bucket = self._bucket(ds)
        rows = self._rows(
            self._select((c.bucket == number) & chosen)
            for number in np.unique(bucket).tolist()
            for chosen in among(c.series, np.unique(series[bucket == number]).tolist())
        )
        requested = set(zip(series.tolist(), ds.tolist(), strict=True))
        pairs = zip(rows.series.tolist(), rows.ds.tolist(), strict=True)
        return rows.take(np.array([pair in requested for pair in pairs], np.bool_))

    def since(self, batch: int) -> Observations:
        """Return new steps that were written after a batch, by series and stamp."""
        c = observation.c
        new = self._select((c.batch > batch) & (c.revision == 1))
        rows = self._rows([new.order_by(None)])  # With an order, SQLite would scan the table.
        return rows.take(np.lexsort((rows.ds, rows.series)))

    def outline(
        self, numbers: Sequence[int], since: int | None, until: int | None, *, latest: bool
    ) -> tuple[int, list[str]]:
        """Return how many rows `stream` yields, and the names of the covariates in them."""
        c, names, rows = observation.c, dict[str, None](), 0
        count = sa.select(sa.func.count()).select_from(observation)
        if latest:
            count = count.where(c.revision == 1)
        texts = sa.select(c.covariates).where(c.covariates.is_not(None))
        for where in self._of(numbers, self._buckets(since, until)):
            chosen = (where, *_within(since, until))
            rows += int(self.connection.execute(count.where(*chosen)).scalar_one())
            for (text,) in tuples(self.connection, texts.where(*chosen)):
                names |= dict.fromkeys(json.loads(text))
        return rows, list(names)

    def stream(
        self,
        numbers: Sequence[int],
        since: int | None,
        until: int | None,
        *,
        latest: bool,
        size: int,
    ) -> Iterator[Sequence[Sequence[Any]]]:
        """
        Yield rows of series by series, stamp and revision, in parts.

        Args:
            numbers: Numbers of the series.
            since: First stamp, or None.
            until: Last stamp, or None.
            latest: Whether to yield only the latest revision of each stamp.
            size: Rows in a part.

        Yields:
            Tuples of series, ds, revision, y, covariates, filled, recorded_at.
        """
        c = observation.c
        query = sa.select(c.series, c.ds, c.revision, c.y, c.covariates, c.filled, c.recorded_at)
        query = query.where(*_within(since, until))
        buckets = self._buckets(since, until)
        series_at_once = max(1, size // (BUCKET_STEPS * max(len(buckets), 1)))
        rows: list[Any] = []
        for part in slices(sorted(numbers), series_at_once):
            part_rows = [
                row
                for where in self._of(part, buckets)
                for row in tuples(self.connection, query.where(where))
            ]
            part_rows.sort(key=itemgetter(0, 1, 2))
            if latest:
                ahead = chain((row[:2] for row in part_rows[1:]), (None,))
                part_rows = [
                    row for row, later in zip(part_rows, ahead, strict=True) if row[:2] != later
                ]
            rows += part_rows
            while len(rows) >= size:
                yield rows[:size]
                rows = rows[size:]
        if rows:
            yield rows

    def spans(self, numbers: Sequence[int]) -> dict[int, tuple[int, int]]:
        """Return the first and last stamp of series, by number."""
        ds, buckets = observation.c.ds, self._buckets()
        first = self._nearest(sa.func.min(ds), numbers, buckets)
        last = self._nearest(sa.func.max(ds), numbers, buckets[::-1])
        return {number: (ds, last[number]) for number, ds in first.items()}

    def first_observed(self, cuts: Cuts) -> dict[int, int]:
        """Return the first stamp with a value at or after each cut, by number, if there is one."""
        c, buckets = observation.c, self._buckets()
        stamps: dict[int, int] = {}
        for cut, numbers in _by_stamp(cuts):
            later = buckets[bisect_left(buckets, cut // self._width) :]
            has_value = (c.ds >= cut) & c.y.is_not(None)
            stamps |= self._nearest(sa.func.min(c.ds), numbers, later, has_value)
        return stamps

    def sums_before(self, cuts: Cuts) -> dict[int, Sum]:
        """Return the amounts before the cuts, by number of the series."""
        c = observation.c
        steps = sa.func.sum(sa.case((c.revision == 1, 1), else_=0))
        query = sa.select(c.series, steps, sa.func.count(), sa.func.max(c.batch))
        sums: dict[int, Sum] = {}
        for where in self._below(cuts):
            for number, *amounts in self.connection.execute(query.where(where).group_by(c.series)):
                part, total = Sum(*map(int, amounts)), sums.get(number, Sum())
                sums[int(number)] = Sum(
                    total.steps + part.steps,
                    total.rows + part.rows,
                    max(total.newest, part.newest),
                )
        return dict(sorted(sums.items()))

    def count(self, number: int) -> int:
        """Return how many rows a series has, including revisions."""
        query = sa.select(sa.func.count()).select_from(observation)
        wheres = self._of([number])
        return sum(int(self.connection.execute(query.where(w)).scalar_one()) for w in wheres)

    def insert(self, rows: Observations, *, revise: bool, now: int, batch: int) -> None:
        """
        Insert rows, in any order.

        Args:
            rows: The observations.
            revise: Whether the stamps are already stored and get the next revision.
            now: Time of recording, in Unix milliseconds.
            batch: Batch of the rows.
        """
        bucket = self._bucket(rows.ds)
        order = np.lexsort((rows.ds, rows.series, bucket))
        bucket, rows = bucket[order], rows.take(order)
        columns = (
            bucket.tolist(),
            rows.series.tolist(),
            rows.ds.tolist(),
            self._next_revisions(rows) if revise else [1] * len(rows),
            nullable(rows.y),
            to_texts(rows.covariates, self.covariates),
            rows.filled.tolist(),
            [now] * len(rows),
            [batch] * len(rows),
        )
        values = [*chain.from_iterable(zip(*columns, strict=True))]
        size = _ROWS * len(columns)
        for start in range(0, len(values), size):
            part = tuple(values[start : start + size])
            statement = _insert(len(part) // len(columns), self.connection.dialect.paramstyle)
            self.connection.exec_driver_sql(statement, part)

    def remove(self, numbers: Sequence[int]) -> int:
        """Delete the rows of series and return how many there were."""
        return self._delete(self._of(numbers))

    def cut(self, cuts: Cuts) -> int:
        """Delete the rows before the cuts and return how many there were."""
        return self._delete(self._below(cuts))

    def _delete(self, wheres: Iterable[sa.ColumnElement[bool]]) -> int:
        deletes = (sa.delete(observation).where(where) for where in wheres)
        return sum(self.connection.execute(delete).rowcount for delete in deletes)

    def _buckets(self, since: int | None = None, until: int | None = None) -> list[int]:
        """Return the buckets that have rows, in order; each is looked up from the one before."""
        if self.width is None:
            return []
        c, later = observation.c, observation.alias("later")
        lowest = sa.select(sa.func.min(c.bucket))
        if since is not None:
            lowest = lowest.where(c.bucket >= since // self.width)
        buckets = lowest.cte("buckets", recursive=True)
        bucket = buckets.c[0]
        following = sa.select(sa.func.min(later.c.bucket)).where(later.c.bucket > bucket)
        buckets = buckets.union_all(
            sa.select(following.scalar_subquery()).where(bucket.is_not(None))
        )
        query = sa.select(buckets.c[0]).where(buckets.c[0].is_not(None))
        if until is not None:
            query = query.where(buckets.c[0] <= until // self.width)
        return [int(number) for number in self.connection.execute(query).scalars()]

    def _of(
        self, numbers: Sequence[int], buckets: Sequence[int] | None = None
    ) -> Iterator[sa.ColumnElement[bool]]:
        """Yield conditions that together find all rows of series, bucket after bucket."""
        c = observation.c
        for part in slices(self._buckets() if buckets is None else buckets):
            for chosen in among(c.series, numbers):
                yield c.bucket.in_(part) & chosen

    def _below(self, cuts: Cuts) -> Iterator[sa.ColumnElement[bool]]:
        """Yield conditions that together find all rows before the cuts."""
        buckets = self._buckets()
        for cut, numbers in _by_stamp(cuts):
            earlier = buckets[: bisect_right(buckets, cut // self._width)]
            for where in self._of(numbers, earlier):
                yield where & (observation.c.ds < cut)

    def _bucket(self, ds: Int[np.ndarray, " row"]) -> Int[np.ndarray, " row"]:
        """Return the buckets of stamps."""
        buckets: np.ndarray = ds // self._width
        return buckets

    @property
    def _width(self) -> int:
        """Width of a bucket."""
        assert self.width is not None, "nothing is stored before the frequency is recorded"
        return self.width

    def _next_revisions(self, rows: Observations) -> list[int]:
        c = observation.c
        revisions = []
        stamps = (self._bucket(rows.ds).tolist(), rows.series.tolist(), rows.ds.tolist())
        for bucket, number, ds in zip(*stamps, strict=True):
            is_stamp = (c.bucket == bucket) & (c.series == number) & (c.ds == ds)
            query = sa.select(sa.func.max(c.revision)).where(is_stamp)
            revisions.append(int(self.connection.execute(query).scalar_one()) + 1)
        return revisions

    def _nearest(
        self,
        ds: sa.ColumnElement[int],
        numbers: Sequence[int],
        buckets: Sequence[int],
        *wheres: sa.ColumnElement[bool],
    ) -> dict[int, int]:
        """Return an aggregated stamp of each series from the first bucket that has a row of it."""
        c, stamps, size = observation.c, dict[int, int](), 1
        remaining = list(numbers)
        while remaining and buckets:
            for chosen in among(c.series, remaining):
                query = sa.select(c.series, ds).where(c.bucket.in_(buckets[:size]), chosen, *wheres)
                rows = self.connection.execute(query.group_by(c.series))
                stamps |= {int(number): int(stamp) for number, stamp in rows}
            remaining = [number for number in remaining if number not in stamps]
            buckets, size = buckets[size:], min(2 * size, MOST)
        return stamps

    def _select(self, where: sa.ColumnElement[bool]) -> sa.Select[Any]:
        """Return the query of rows as `_rows` reads them."""
        c = observation.c
        query = sa.select(c.series, c.ds, c.y, c.filled, *([c.covariates] * bool(self.covariates)))
        return query.where(where).order_by(c.bucket, c.series, c.ds, c.revision)

    def _rows(self, queries: Iterable[sa.Select[Any]]) -> Observations:
        """Read queries into rows by series and stamp, with the latest revision of each stamp."""
        kinds: list[tuple[str, type]] = [
            ("series", np.int64),
            ("ds", np.int64),
            ("y", np.float64),
            ("filled", np.bool_),
        ]
        if self.covariates:
            kinds.append(("covariates", np.object_))
        lines = chain.from_iterable(tuples(self.connection, query) for query in queries)
        table = np.fromiter(lines, np.dtype(kinds))
        series = table["series"]
        if (series[1:] < series[:-1]).any():  # Rows of more than one bucket.
            table = table[np.argsort(series, kind="stable")]
        series, ds = table["series"].copy(), table["ds"].copy()
        rows = Observations(
            series,
            ds,
            table["y"].copy(),
            from_texts(
                table["covariates"].tolist() if self.covariates else (), len(table), self.covariates
            ),
            table["filled"].copy(),
        )
        latest = np.r_[(series[1:] != series[:-1]) | (ds[1:] != ds[:-1]), True][: len(table)]
        return rows if latest.all() else rows.take(latest)


def tuples(connection: sa.Connection, query: sa.Select[Any]) -> Iterator[tuple[Any, ...]]:
    """Yield rows as the driver returns them: wrapping each would take longer than reading it."""
    with connection.execute(query) as result:
        assert result.cursor is not None
        while rows := result.cursor.fetchmany(_FETCHED):
            yield from rows


def _insert(rows: int, paramstyle: str) -> str:
    """Return plain SQL with placeholders for many rows: the driver takes values as they are."""
    names = [column.name for column in observation.columns]
    mark = "?" if paramstyle == "qmark" else "%s"
    marks = f"({', '.join([mark] * len(names))})"
    return f"insert into observation ({', '.join(names)}) values {', '.join([marks] * rows)}"


def _within(since: int | None, until: int | None) -> Iterator[sa.ColumnElement[bool]]:
    """Yield the conditions that a stamp is within bounds."""
    if since is not None:
        yield observation.c.ds >= since
    if until is not None:
        yield observation.c.ds <= until


def _by_stamp(cuts: Cuts) -> Iterator[tuple[int, list[int]]]:
    """Yield each stamp with the series that are cut there."""
    for ds in np.unique(cuts.ds).tolist():
        yield ds, cuts.series[cuts.ds == ds].tolist()

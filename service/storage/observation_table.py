"""
Observations as they lie in the log: by bucket, series, stamp and revision.

A bucket is some steps of time. What comes in together then lies together: a new step of every
series touches the pages of one bucket, and not a page of each series, whatever they have had
before. The history of a series lies at one place in each bucket.
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
"""Steps of the frequency in one bucket: with fewer a history is in more places."""
_FETCHED = 1_000
"""Rows taken from the driver at a time."""
_ROWS = 100
"""Rows in one `INSERT`: a statement a row takes twice the time."""


@dataclass(frozen=True, slots=True)
class Cuts:
    """A stamp of each of some series, that parts its log in two."""

    series: Int[np.ndarray, " series"]
    """Numbers of the log, rising."""
    ds: Int[np.ndarray, " series"]

    def __len__(self) -> int:
        return len(self.series)


class Sum(NamedTuple):
    """Of the rows of one series."""

    steps: int = 0
    rows: int = 0
    """Revisions included."""
    newest: int = 0
    """The last batch that wrote one of them."""


def usual_width(calendar: Calendar) -> int:
    """
    Stamps in one bucket: nanoseconds, or integers.

    >>> usual_width(Calendar(5)), usual_width(Calendar("D")) // DAY
    (80, 16)
    """
    if isinstance(calendar.freq, int):
        return BUCKET_STEPS * calendar.freq
    return round(BUCKET_STEPS * calendar.grid.units * calendar.grid.days * DAY)


@dataclass(frozen=True, slots=True)
class ObservationTable:
    """
    The observations that a connection sees.

    Series are numbers of the log, as are those of the rows taken and given.
    """

    connection: sa.Connection
    covariates: tuple[str, ...]
    """Names in the order in which `Rows.covariates` has them."""
    width: int | None
    """Stamps in one bucket; None where nothing is stored yet."""

    def history(self, numbers: Sequence[int]) -> Observations:
        """Every step of some series with its latest value, ordered by series and stamp."""
        return self._rows(self._select(where) for where in self._of(numbers))

    def before(self, cuts: Cuts) -> Observations:
        """The same of the steps that lie before the cuts."""
        return self._rows(self._select(where) for where in self._below(cuts))

    def at(self, series: Int[np.ndarray, " row"], ds: Int[np.ndarray, " row"]) -> Observations:
        """The latest values of some stamps, each of its series; those not stored are left out."""
        c = observation.c
        bucket = self._bucket(ds)
        rows = self._rows(
            self._select((c.bucket == one) & chosen)
            for one in np.unique(bucket).tolist()
            for chosen in among(c.series, np.unique(series[bucket == one]).tolist())
        )
        asked = set(zip(series.tolist(), ds.tolist(), strict=True))
        found = zip(rows.series.tolist(), rows.ds.tolist(), strict=True)
        return rows.take(np.array([pair in asked for pair in found], np.bool_))

    def since(self, batch: int) -> Observations:
        """New steps that were written after a batch, ordered by series and stamp."""
        c = observation.c
        new = self._select((c.batch > batch) & (c.revision == 1))
        found = self._rows([new.order_by(None)])  # an order would have SQLite look through all
        return found.take(np.lexsort((found.ds, found.series)))

    def outline(
        self, numbers: Sequence[int], since: int | None, until: int | None, *, latest: bool
    ) -> tuple[int, list[str]]:
        """How many rows `stream` gives, and the names of the covariates in them."""
        c, names, rows = observation.c, dict[str, None](), 0
        counted = sa.select(sa.func.count()).select_from(observation)
        if latest:
            counted = counted.where(c.revision == 1)
        told = sa.select(c.covariates).where(c.covariates.is_not(None))
        for where in self._of(numbers, self._buckets(since, until)):
            chosen = (where, *_within(since, until))
            rows += int(self.connection.execute(counted.where(*chosen)).scalar_one())
            for (text,) in tuples(self.connection, told.where(*chosen)):
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
        Rows of some series by series, stamp and revision, so many at a time.

        Args:
            numbers: Of the series.
            since: First stamp, or None.
            until: Last stamp, or None.
            latest: Whether only the value that counts of each stamp.
            size: Rows in one part.

        Yields:
            Tuples of series, ds, revision, y, covariates, filled, recorded_at.
        """
        c = observation.c
        query = sa.select(c.series, c.ds, c.revision, c.y, c.covariates, c.filled, c.recorded_at)
        query = query.where(*_within(since, until))
        buckets = self._buckets(since, until)
        together = max(1, size // (BUCKET_STEPS * max(len(buckets), 1)))
        rows: list[Any] = []
        for part in slices(sorted(numbers), together):
            found = [
                row
                for where in self._of(part, buckets)
                for row in tuples(self.connection, query.where(where))
            ]
            found.sort(key=itemgetter(0, 1, 2))
            if latest:
                ahead = chain((row[:2] for row in found[1:]), (None,))
                found = [row for row, later in zip(found, ahead, strict=True) if row[:2] != later]
            rows += found
            while len(rows) >= size:
                yield rows[:size]
                rows = rows[size:]
        if rows:
            yield rows

    def spans(self, numbers: Sequence[int]) -> dict[int, tuple[int, int]]:
        """First and last stamp of each of some series."""
        ds, buckets = observation.c.ds, self._buckets()
        first = self._nearest(sa.func.min(ds), numbers, buckets)
        last = self._nearest(sa.func.max(ds), numbers, buckets[::-1])
        return {number: (ds, last[number]) for number, ds in first.items()}

    def first_observed(self, cuts: Cuts) -> dict[int, int]:
        """The first stamp with a value at or after each cut, of the series that have one."""
        c, buckets = observation.c, self._buckets()
        found: dict[int, int] = {}
        for cut, numbers in _alike(cuts):
            later = buckets[bisect_left(buckets, cut // self._stamps) :]
            wanted = (c.ds >= cut) & c.y.is_not(None)
            found |= self._nearest(sa.func.min(c.ds), numbers, later, wanted)
        return found

    def doomed(self, cuts: Cuts) -> dict[int, Sum]:
        """What there is before the cuts, by number of the series."""
        c = observation.c
        steps = sa.func.sum(sa.case((c.revision == 1, 1), else_=0))
        query = sa.select(c.series, steps, sa.func.count(), sa.func.max(c.batch))
        found: dict[int, Sum] = {}
        for where in self._below(cuts):
            for number, *told in self.connection.execute(query.where(where).group_by(c.series)):
                some, known = Sum(*map(int, told)), found.get(number, Sum())
                found[int(number)] = Sum(
                    known.steps + some.steps,
                    known.rows + some.rows,
                    max(known.newest, some.newest),
                )
        return dict(sorted(found.items()))

    def count(self, number: int) -> int:
        """How many rows a series has, revisions included."""
        query = sa.select(sa.func.count()).select_from(observation)
        wheres = self._of([number])
        return sum(int(self.connection.execute(query.where(w)).scalar_one()) for w in wheres)

    def insert(self, rows: Observations, *, revise: bool, now: int, batch: int) -> None:
        """
        Store rows, in any order.

        Args:
            rows: What to store.
            revise: Whether these stamps are stored already and get the next revision.
            now: Unix milliseconds.
            batch: That they are part of.
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
        """Take some series out; returns how many rows those were."""
        return self._delete(self._of(numbers))

    def cut(self, cuts: Cuts) -> int:
        """Take out what lies before the cuts; returns how many rows those were."""
        return self._delete(self._below(cuts))

    def _delete(self, wheres: Iterable[sa.ColumnElement[bool]]) -> int:
        gone = (self.connection.execute(sa.delete(observation).where(where)) for where in wheres)
        return sum(one.rowcount for one in gone)

    def _buckets(self, since: int | None = None, until: int | None = None) -> list[int]:
        """Those with anything in them, rising: each is looked up from the one before."""
        if self.width is None:
            return []
        c, later = observation.c, observation.alias("later")
        lowest = sa.select(sa.func.min(c.bucket))
        if since is not None:
            lowest = lowest.where(c.bucket >= since // self.width)
        there = lowest.cte("there", recursive=True)
        bucket = there.c[0]
        following = sa.select(sa.func.min(later.c.bucket)).where(later.c.bucket > bucket)
        there = there.union_all(sa.select(following.scalar_subquery()).where(bucket.is_not(None)))
        query = sa.select(there.c[0]).where(there.c[0].is_not(None))
        if until is not None:
            query = query.where(there.c[0] <= until // self.width)
        return [int(number) for number in self.connection.execute(query).scalars()]

    def _of(
        self, numbers: Sequence[int], buckets: Sequence[int] | None = None
    ) -> Iterator[sa.ColumnElement[bool]]:
        """Conditions that together find all rows of some series, bucket after bucket."""
        c = observation.c
        for some in slices(self._buckets() if buckets is None else buckets):
            for chosen in among(c.series, numbers):
                yield c.bucket.in_(some) & chosen

    def _below(self, cuts: Cuts) -> Iterator[sa.ColumnElement[bool]]:
        """The same of the rows before the cuts."""
        buckets = self._buckets()
        for cut, numbers in _alike(cuts):
            earlier = buckets[: bisect_right(buckets, cut // self._stamps)]
            for where in self._of(numbers, earlier):
                yield where & (observation.c.ds < cut)

    def _bucket(self, ds: Int[np.ndarray, " row"]) -> Int[np.ndarray, " row"]:
        """Where stamps lie."""
        buckets: np.ndarray = ds // self._stamps
        return buckets

    @property
    def _stamps(self) -> int:
        """In one bucket."""
        assert self.width is not None, "no stamp is stored before the log's frequency is noted"
        return self.width

    def _next_revisions(self, rows: Observations) -> list[int]:
        c = observation.c
        found = []
        stamps = (self._bucket(rows.ds).tolist(), rows.series.tolist(), rows.ds.tolist())
        for bucket, number, ds in zip(*stamps, strict=True):
            here = (c.bucket == bucket) & (c.series == number) & (c.ds == ds)
            query = sa.select(sa.func.max(c.revision)).where(here)
            found.append(int(self.connection.execute(query).scalar_one()) + 1)
        return found

    def _nearest(
        self,
        ds: sa.ColumnElement[int],
        numbers: Sequence[int],
        buckets: Sequence[int],
        *wheres: sa.ColumnElement[bool],
    ) -> dict[int, int]:
        """A stamp of each of some series, out of the first of the buckets that has one."""
        c, found, size = observation.c, dict[int, int](), 1
        left = list(numbers)
        while left and buckets:
            for chosen in among(c.series, left):
                query = sa.select(c.series, ds).where(c.bucket.in_(buckets[:size]), chosen, *wheres)
                rows = self.connection.execute(query.group_by(c.series))
                found |= {int(number): int(stamp) for number, stamp in rows}
            left = [number for number in left if number not in found]
            buckets, size = buckets[size:], min(2 * size, MOST)
        return found

    def _select(self, where: sa.ColumnElement[bool]) -> sa.Select[Any]:
        """Rows as `_rows` takes them."""
        c = observation.c
        query = sa.select(c.series, c.ds, c.y, c.filled, *([c.covariates] * bool(self.covariates)))
        return query.where(where).order_by(c.bucket, c.series, c.ds, c.revision)

    def _rows(self, queries: Iterable[sa.Select[Any]]) -> Observations:
        """What they find, ordered by series and stamp; of the revisions of a stamp the last."""
        kinds: list[tuple[str, type]] = [
            ("series", np.int64),
            ("ds", np.int64),
            ("y", np.float64),
            ("filled", np.bool_),
        ]
        if self.covariates:
            kinds.append(("covariates", np.object_))
        lines = chain.from_iterable(tuples(self.connection, query) for query in queries)
        found = np.fromiter(lines, np.dtype(kinds))
        series = found["series"]
        if (series[1:] < series[:-1]).any():  # of more than one bucket
            found = found[np.argsort(series, kind="stable")]
        series, ds = found["series"].copy(), found["ds"].copy()
        rows = Observations(
            series,
            ds,
            found["y"].copy(),
            from_texts(
                found["covariates"].tolist() if self.covariates else (), len(found), self.covariates
            ),
            found["filled"].copy(),
        )
        latest = np.r_[(series[1:] != series[:-1]) | (ds[1:] != ds[:-1]), True][: len(found)]
        return rows if latest.all() else rows.take(latest)


def tuples(connection: sa.Connection, query: sa.Select[Any]) -> Iterator[tuple[Any, ...]]:
    """Rows as the driver gives them: wrapping each would take longer than reading it."""
    with connection.execute(query) as result:
        assert result.cursor is not None
        while some := result.cursor.fetchmany(_FETCHED):
            yield from some


def _insert(rows: int, paramstyle: str) -> str:
    """Plain SQL with the marks of many rows: the driver takes their values as they are."""
    names = [column.name for column in observation.columns]
    mark = "?" if paramstyle == "qmark" else "%s"
    marks = f"({', '.join([mark] * len(names))})"
    return f"insert into observation ({', '.join(names)}) values {', '.join([marks] * rows)}"


def _within(since: int | None, until: int | None) -> Iterator[sa.ColumnElement[bool]]:
    """That a stamp is not before the one and not after the other."""
    if since is not None:
        yield observation.c.ds >= since
    if until is not None:
        yield observation.c.ds <= until


def _alike(cuts: Cuts) -> Iterator[tuple[int, list[int]]]:
    """Each stamp, with the series that are cut there."""
    for ds in np.unique(cuts.ds).tolist():
        yield ds, cuts.series[cuts.ds == ds].tolist()

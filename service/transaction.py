"""What can be read from the observation log, and appended to it, inside one transaction."""

import copy
import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np
import sqlalchemy as sa

from forecast.states import States
from service import bases
from service.bases import Begins, Cuts
from service.conditions import among, slices
from service.rows import Entry, Rows, from_texts, nullable, to_json, to_texts
from service.tables import base, head, meta, observation, pruned, removed, series
from service.totals import Totals, count_all

_FETCHED = 1_000
"""Rows taken from the driver at a time."""
_ROWS = 100
"""Rows in one `INSERT`: a statement a row takes twice the time."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What was written to the log since a batch."""

    batch: int
    """The last batch that is in it."""
    begun: list[Entry]
    """Series added since."""
    removed: list[int]
    """Numbers of series taken away since."""
    rows: Rows
    """New steps of series, each stamp for the first time; `series` are numbers."""
    revised: list[int]
    """Numbers of the series of which a stored value was corrected."""
    pruned: Begins
    """Series whose older steps were taken out since."""


class Transaction:
    """
    What can be read and appended inside one transaction.

    Args:
        connection: Where it is open.
        covariates: Names in the order in which `Rows.covariates` has them.
        writes: Whether it may append; then it waits for its turn among all that write.
    """

    def __init__(
        self, connection: sa.Connection, covariates: tuple[str, ...], *, writes: bool = False
    ) -> None:
        self._connection = connection
        self.covariates = covariates
        turn = sa.select(head.c.batch).where(head.c.id == 1)
        query = turn.with_for_update() if writes else turn
        self.before = int(connection.execute(query).scalar_one())
        """The last batch in the log when the transaction began."""
        self._wrote = False

    def seen_by(self, covariates: Sequence[str]) -> "Transaction":
        """The same transaction, to read what a model with other covariates takes."""
        other = copy.copy(self)
        other.covariates = tuple(covariates)
        return other

    @property
    def batch(self) -> int:
        """The last batch of which this transaction knows: its own, if it wrote anything."""
        return self.before + self._wrote

    def end(self) -> None:
        """Number what was written; the last thing before the commit."""
        if self._wrote:
            self._connection.execute(sa.update(head).values(batch=self.batch))

    def fingerprint(self, batch: int) -> list[int]:
        """
        What tells a batch from another of the same number in a copy of this log.

        Its rows, the latest time they were recorded at, the last series removed, and, where it
        pruned some, where their logs begin; nothing of a batch that the log does not have.
        """
        if batch > self.before:
            return []
        c = observation.c
        query = sa.select(sa.func.count(), sa.func.coalesce(sa.func.max(c.recorded_at), 0)).where(
            c.batch == batch
        )
        gone = sa.select(sa.func.coalesce(sa.func.max(removed.c.series), 0))
        count, latest = self._connection.execute(query).one()
        last = self._connection.execute(gone.where(removed.c.batch == batch)).scalar_one()
        cut = bases.begins(self._connection, pruned.c.batch == batch).checksum()
        told = [int(count), int(latest), int(last), *([cut] if cut else [])]
        return told if batch else [0, 0, 0]

    def changes(self, since: int) -> Changes:
        """What was written after a batch, up to the last one."""
        s, c = series.c, observation.c
        begun = sa.select(s.series, s.unique_id, s.static).where(s.batch > since)
        gone = sa.select(removed.c.series).where(removed.c.batch > since)
        again = sa.select(c.series).distinct().where(c.batch > since, c.revision > 1)
        fresh = sa.select(*self._columns).where(c.batch > since, c.revision == 1)
        return Changes(
            batch=self.before,
            begun=self._entries([begun.order_by(s.series)]),
            removed=[int(n) for n in self._connection.execute(gone).scalars()],
            rows=self._rows([fresh.order_by(c.series, c.ds)]),
            revised=[int(n) for n in self._connection.execute(again).scalars()],
            pruned=bases.begins(self._connection, pruned.c.batch > since),
        )

    def changed(self, numbers: Sequence[int], since: int) -> set[int]:
        """Those of some series of which anything was written, or taken out, after a batch."""
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
        """One fact about the log itself."""
        query = sa.select(meta.c.value).where(meta.c.key == key)
        return self._connection.execute(query).scalar_one_or_none()

    def set_meta(self, key: str, value: str) -> None:
        """Note a fact once."""
        self._connection.execute(sa.insert(meta).values(key=key, value=value))

    def entries(self, numbers: Sequence[int] | None = None) -> list[Entry]:
        """Every series, or those with these numbers, in the order of their numbers."""
        query = sa.select(series.c.series, series.c.unique_id, series.c.static)
        query = query.order_by(series.c.series)
        queries = [query]
        if numbers is not None:
            queries = [query.where(chosen) for chosen in among(series.c.series, numbers)]
        return self._entries(queries)

    def names(self) -> dict[int, str]:
        """Every series by its number; of a million, an `Entry` each costs twice the time."""
        query = sa.select(series.c.series, series.c.unique_id).order_by(series.c.series)
        return dict(self._tuples(query))

    def find(self, unique_ids: Sequence[str]) -> list[Entry]:
        """Those of the series that are there, in no order."""
        query = sa.select(series.c.series, series.c.unique_id, series.c.static)
        name = series.c.unique_id
        return self._entries([query.where(name.in_(part)) for part in slices(unique_ids)])

    def created_at(self, number: int) -> int:
        """Unix milliseconds at which a series was first seen."""
        query = sa.select(series.c.created_at).where(series.c.series == number)
        return int(self._connection.execute(query).scalar_one())

    def spans(self, numbers: Sequence[int] | None = None) -> dict[int, tuple[int, int]]:
        """First and last stamp of each series, or of those with these numbers."""
        c, ends = observation.c, (sa.func.min, sa.func.max)  # looked up, not counted through
        stamps = [sa.select(end(c.ds)).where(c.series == series.c.series) for end in ends]
        query = sa.select(series.c.series, *(stamp.scalar_subquery() for stamp in stamps))
        queries = [query]
        if numbers is not None:
            queries = [query.where(chosen) for chosen in among(series.c.series, numbers)]
        found = (row for one in queries for row in self._connection.execute(one))
        return {int(n): (int(a), int(b)) for n, a, b in found if a is not None}

    def begins(self, numbers: Sequence[int]) -> Begins:
        """Where those of the series begin that are pruned; at most some hundreds are asked for."""
        return bases.begins(self._connection, pruned.c.series.in_(numbers))

    def shortened(self, digest: str) -> int:
        """How many series a model knows less of than was observed, for they were pruned before."""
        return bases.shortened(self._connection, digest)

    def bases(self, numbers: Sequence[int], digest: str) -> dict[int, States]:
        """The states from which a model's replay of pruned series begins, by number."""
        chosen = among(base.c.series, numbers)
        loaded = (bases.load(self._connection, some, digest) for some in chosen)
        return {number: state for some in loaded for number, state in some.items()}

    def first_observed(self, cuts: Cuts) -> dict[int, int]:
        """The first stamp with a value at or after each cut, of the series that have one."""
        return bases.first_observed(self._connection, cuts)

    def doomed(self, cuts: Cuts) -> tuple[Begins, int]:
        """What lies before the cuts, series by series, and how many rows those are."""
        return bases.doomed(self._connection, cuts)

    def history_before(self, cuts: Cuts) -> Rows:
        """Every step before the cuts with its latest value, ordered by series and stamp."""
        c = observation.c
        query = sa.select(*self._columns).select_from(bases.before(cuts))
        return self._rows([query.order_by(c.series, c.ds, c.revision)])

    def prune(self, now: Begins, states: Mapping[str, States]) -> None:
        """Take out what lies before `now.first_ds`; of each model, these states stay for it."""
        self._wrote = True
        bases.cut(self._connection, now, self.before + 1, states)

    def totals(self) -> Totals:
        """How much there is."""
        return count_all(self._connection)

    def summary(self, number: int) -> tuple[int, int, int, int, int]:
        """First stamp, last stamp, steps, filled steps and revisions of what is stored."""
        rows = self.history([number])
        query = sa.select(sa.func.count()).where(observation.c.series == number)
        stored = int(self._connection.execute(query).scalar_one())
        first, last = int(rows.ds[0]), int(rows.ds[-1])
        return first, last, len(rows), int(rows.filled.sum()), stored - len(rows)

    def add_series(
        self, unique_ids: Sequence[str], static: Mapping[str, Mapping[str, Any]]
    ) -> list[int]:
        """Number series never seen before; numbers rise in the order given, none comes twice."""
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

    def history(self, numbers: Sequence[int]) -> Rows:
        """Every step of these series with its latest value, ordered by series and stamp."""
        c = observation.c
        order = (c.series, c.ds, c.revision)
        return self._rows(
            sa.select(*self._columns).where(chosen).order_by(*order)
            for chosen in among(c.series, numbers)
        )

    def stream(
        self, numbers: Sequence[int], since: int | None, until: int | None, *, latest: bool,
        size: int,
    ) -> Iterator[Sequence[Sequence[Any]]]:  # fmt: skip
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
        c, later = observation.c, observation.alias("later")
        query = sa.select(*(column for column in c if column is not c.batch))
        query = query.order_by(c.series, c.ds, c.revision)
        if since is not None:
            query = query.where(c.ds >= since)
        if until is not None:
            query = query.where(c.ds <= until)
        if latest:
            query = query.where(~sa.exists().where(
                later.c.series == c.series, later.c.ds == c.ds, later.c.revision == c.revision + 1
            ))  # fmt: skip
        for chosen in among(c.series, numbers):
            some = query.where(chosen).execution_options(yield_per=size)
            with self._connection.execute(some) as result:
                yield from result.partitions()

    def current(self, asked: Rows, numbers: Sequence[int]) -> Rows:
        """
        The latest values of the stamps in `asked`, ordered alike; those not stored are left out.

        Args:
            asked: Its `series` count through `numbers`, as those of the answer do.
            numbers: Of series in the log.
        """
        c = observation.c
        parts = []
        for row in np.unique(asked.series).tolist():
            stamps = np.unique(asked.ds[asked.series == row]).tolist()
            found = self._rows(
                sa.select(*self._columns)
                .where(c.series == numbers[row], c.ds.in_(part))
                .order_by(c.ds, c.revision)
                for part in slices(stamps)
            )
            parts.append(replace(found, series=np.full(len(found), row)))
        return Rows.concat(parts) if parts else asked

    def append(self, rows: Rows, *, revise: bool = False) -> None:
        """
        Store observations, in any order.

        Args:
            rows: Their `series` are numbers of the log.
            revise: Whether these stamps are stored already and get the next revision.
        """
        if not len(rows):
            return
        revisions = self._next_revisions(rows) if revise else [1] * len(rows)
        columns = (
            rows.series.tolist(), rows.ds.tolist(), revisions, nullable(rows.y),
            to_texts(rows.covariates, self.covariates), rows.filled.tolist(), [_now()] * len(rows),
            [self.before + 1] * len(rows),
        )  # fmt: skip
        self._wrote = True
        values = [*chain.from_iterable(zip(*columns, strict=True))]
        size = _ROWS * len(columns)
        for start in range(0, len(values), size):
            part = tuple(values[start : start + size])
            self._connection.exec_driver_sql(self._insert(len(part) // len(columns)), part)

    def remove(self, numbers: Sequence[int]) -> int:
        """Take series away with everything observed of them; returns how many rows those were."""
        rows = 0
        for table in (base, pruned, observation, series):
            for chosen in among(table.c.series, numbers):
                gone = self._connection.execute(sa.delete(table).where(chosen)).rowcount
                rows += gone if table is observation else 0
        noted = [{"series": number, "batch": self.before + 1} for number in numbers]
        if noted:
            self._wrote = True
            self._connection.execute(sa.insert(removed), noted)
        return rows

    def _insert(self, rows: int) -> str:
        """Plain SQL with the marks of many rows: the driver takes their values as they are."""
        mark = "?" if self._connection.dialect.paramstyle == "qmark" else "%s"
        names = [column.name for column in observation.columns]
        marks = f"({', '.join([mark] * len(names))})"
        return f"insert into observation ({', '.join(names)}) values {', '.join([marks] * rows)}"

    @property
    def _columns(self) -> list[sa.ColumnElement[Any]]:
        """Of an observation, as `_rows` takes them."""
        c = observation.c
        return [c.series, c.ds, c.y, c.filled, *([c.covariates] if self.covariates else [])]

    def _entries(self, queries: Iterable[sa.Select[Any]]) -> list[Entry]:
        """Of number, name and static covariates."""
        found = chain.from_iterable(map(self._tuples, queries))
        return [Entry(n, name, json.loads(static) if static else {}) for n, name, static in found]

    def _tuples(self, query: sa.Select[Any]) -> Iterator[tuple[Any, ...]]:
        """Rows as the driver gives them: wrapping each would take longer than reading it."""
        with self._connection.execute(query) as result:
            assert result.cursor is not None
            while some := result.cursor.fetchmany(_FETCHED):
                yield from some

    def _next_revisions(self, rows: Rows) -> list[int]:
        c = observation.c
        found = []
        for number, ds in zip(rows.series.tolist(), rows.ds.tolist(), strict=True):
            query = sa.select(sa.func.max(c.revision)).where(c.series == number, c.ds == ds)
            found.append(int(self._connection.execute(query).scalar_one()) + 1)
        return found

    def _rows(self, queries: Iterable[sa.Select[Any]]) -> Rows:
        """What they find; each is ordered by series, stamp, revision, of which the last counts."""
        kinds: list[tuple[str, type]] = [
            ("series", np.int64), ("ds", np.int64), ("y", np.float64), ("filled", np.bool_),
        ]  # fmt: skip
        if self.covariates:
            kinds.append(("covariates", np.object_))
        found = np.fromiter(chain.from_iterable(map(self._tuples, queries)), np.dtype(kinds))
        series_, ds = found["series"].copy(), found["ds"].copy()
        rows = Rows(
            series_, ds, found["y"].copy(),
            from_texts(found["covariates"].tolist() if self.covariates else (), len(found),
                       self.covariates),
            found["filled"].copy(),
        )  # fmt: skip
        latest = np.r_[(series_[1:] != series_[:-1]) | (ds[1:] != ds[:-1]), True][: len(found)]
        return rows if latest.all() else rows.take(latest)


def _now() -> int:
    return time.time_ns() // 1_000_000

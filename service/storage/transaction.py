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
    """Of the whole log."""

    series: int
    rows: int
    """Revisions included."""
    first_ds: int | None
    last_ds: int | None
    pruned_series: int
    pruned_steps: int
    schema: str


def count_all(connection: sa.Connection) -> Totals:
    """All of it, in one look."""
    c, p = observation.c, pruned.c
    query = sa.select(
        sa.func.count(),
        sa.func.min(c.ds),
        sa.func.max(c.ds),
        sa.select(sa.func.count()).select_from(series).scalar_subquery(),
        sa.select(sa.func.count()).select_from(pruned).scalar_subquery(),
        sa.select(sa.func.coalesce(sa.func.sum(p.steps), 0)).scalar_subquery(),
    )
    rows, first, last, begun, cut, steps = connection.execute(query).one()
    schema = migrations.version(connection) or ""
    return Totals(begun, rows, first, last, cut, int(steps), schema)


@dataclass(frozen=True, slots=True)
class Changes:
    """What was written to the log since a batch."""

    batch: int
    """The last batch that is in it."""
    begun: list[SeriesRecord]
    """Series added since."""
    removed: list[int]
    """Numbers of series taken away since."""
    rows: Observations
    """New steps of series, each stamp for the first time; `series` are numbers."""
    revised: list[int]
    """Numbers of the series of which a stored value was corrected."""
    pruned: PrunedSpans
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
        turn = sa.select(head.c.batch, head.c.width).where(head.c.id == 1)
        before, width = connection.execute(turn.with_for_update() if writes else turn).one()
        self.before = int(before)
        """The last batch in the log when the transaction began."""
        self.timeline = timeline_of(connection)
        """Which history of the log it sees: in another one, the same number is another batch."""
        self._stored = ObservationTable(connection, covariates, width)
        self._wrote = False

    def seen_by(self, covariates: Sequence[str]) -> "Transaction":
        """The same transaction, to read what a model with other covariates takes."""
        other = copy.copy(self)
        other._stored = replace(self._stored, covariates=tuple(covariates))
        return other

    @property
    def covariates(self) -> tuple[str, ...]:
        """Names in the order in which `Rows.covariates` has them."""
        return self._stored.covariates

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
        cut = base_states.begins(self._connection, pruned.c.batch == batch).checksum()
        told = [int(count), int(latest), int(last), *([cut] if cut else [])]
        return told if batch else [0, 0, 0]

    def changes(self, since: int) -> Changes:
        """What was written after a batch, up to the last one."""
        s, c = series.c, observation.c
        begun = sa.select(s.series, s.unique_id, s.static).where(s.batch > since)
        gone = sa.select(removed.c.series).where(removed.c.batch > since)
        again = sa.select(c.series).distinct().where(c.batch > since, c.revision > 1)
        return Changes(
            batch=self.before,
            begun=self._entries([begun.order_by(s.series)]),
            removed=[int(n) for n in self._connection.execute(gone).scalars()],
            rows=self._stored.since(since),
            revised=[int(n) for n in self._connection.execute(again).scalars()],
            pruned=base_states.begins(self._connection, pruned.c.batch > since),
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

    def note_calendar(self, calendar: Calendar) -> None:
        """Note the frequency of all series, once."""
        noted = {"key": "freq", "value": json.dumps(calendar.freq)}
        self._connection.execute(sa.insert(meta).values(noted))
        self._stored = replace(self._stored, width=usual_width(calendar))
        self._connection.execute(sa.update(head).values(width=self._stored.width))

    def entries(self, numbers: Sequence[int] | None = None) -> list[SeriesRecord]:
        """Every series, or those with these numbers, in the order of their numbers."""
        query = sa.select(series.c.series, series.c.unique_id, series.c.static)
        query = query.order_by(series.c.series)
        queries = [query]
        if numbers is not None:
            queries = [query.where(chosen) for chosen in among(series.c.series, numbers)]
        return self._entries(queries)

    def names(self) -> dict[int, str]:
        """Every series by its number; of a million, an `SeriesRecord` each costs twice the time."""
        query = sa.select(series.c.series, series.c.unique_id).order_by(series.c.series)
        return dict(tuples(self._connection, query))

    def find(self, unique_ids: Sequence[str]) -> list[SeriesRecord]:
        """Those of the series that are there, in no order."""
        query = sa.select(series.c.series, series.c.unique_id, series.c.static)
        name = series.c.unique_id
        return self._entries([query.where(name.in_(part)) for part in slices(unique_ids)])

    def created_at(self, number: int) -> int:
        """Unix milliseconds at which a series was first seen."""
        query = sa.select(series.c.created_at).where(series.c.series == number)
        return int(self._connection.execute(query).scalar_one())

    def spans(self, numbers: Sequence[int]) -> dict[int, tuple[int, int]]:
        """First and last stamp of each of some series."""
        return self._stored.spans(numbers)

    def begins(self, numbers: Sequence[int]) -> PrunedSpans:
        """Where those of the series begin that are pruned; at most some hundreds are asked for."""
        return base_states.begins(self._connection, pruned.c.series.in_(numbers))

    def shortened(self, digest: str) -> int:
        """How many series a model knows less of than was observed, for they were pruned before."""
        return base_states.shortened(self._connection, digest)

    def bases(self, numbers: Sequence[int], digest: str) -> dict[int, States]:
        """The states from which a model's replay of pruned series begins, by number."""
        chosen = among(base.c.series, numbers)
        loaded = (base_states.load(self._connection, some, digest) for some in chosen)
        return {number: state for some in loaded for number, state in some.items()}

    def first_observed(self, cuts: Cuts) -> dict[int, int]:
        """The first stamp with a value at or after each cut, of the series that have one."""
        return self._stored.first_observed(cuts)

    def doomed(self, cuts: Cuts) -> dict[int, Sum]:
        """What lies before the cuts, by number of the series."""
        return self._stored.doomed(cuts)

    def history_before(self, cuts: Cuts) -> Observations:
        """Every step before the cuts with its latest value, ordered by series and stamp."""
        return self._stored.before(cuts)

    def prune(self, now: PrunedSpans, states: Mapping[str, States]) -> None:
        """Take out what lies before `now.first_ds`; of each model, these states stay for it."""
        self._wrote = True
        self._stored.cut(Cuts(now.series, now.first_ds))
        base_states.note(self._connection, now, self.before + 1, states)

    def totals(self) -> Totals:
        """How much there is."""
        return count_all(self._connection)

    def summary(self, number: int) -> tuple[int, int, int, int, int]:
        """First stamp, last stamp, steps, filled steps and revisions of what is stored."""
        rows = self.history([number])
        stored = self._stored.count(number)
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

    def history(self, numbers: Sequence[int]) -> Observations:
        """Every step of these series with its latest value, ordered by series and stamp."""
        return self._stored.history(numbers)

    def outline(
        self, numbers: Sequence[int], since: int | None, until: int | None, *, latest: bool
    ) -> tuple[int, list[str]]:
        """How many rows `stream` gives, and the names of the covariates in them."""
        return self._stored.outline(numbers, since, until, latest=latest)

    def stream(
        self,
        numbers: Sequence[int],
        since: int | None,
        until: int | None,
        *,
        latest: bool,
        size: int,
    ) -> Iterator[Sequence[Sequence[Any]]]:
        """Rows of some series, so many at a time, as `Stored.stream` gives them."""
        return self._stored.stream(numbers, since, until, latest=latest, size=size)

    def current(self, asked: Observations, numbers: Sequence[int]) -> Observations:
        """
        The latest values of the stamps in `asked`; those not stored are left out.

        Args:
            asked: Its `series` count through `numbers`, as those of the answer do.
            numbers: Of series in the log.

        Returns:
            Ordered by series and stamp.
        """
        known = np.asarray(numbers, np.int64)
        found = self._stored.at(known[asked.series], asked.ds)
        order = np.argsort(known, kind="stable")
        place = order[np.searchsorted(known, found.series, sorter=order)]
        found = replace(found, series=place)
        return found.take(np.argsort(place, kind="stable"))

    def append(self, rows: Observations, *, revise: bool = False) -> None:
        """
        Store observations, in any order.

        Args:
            rows: Their `series` are numbers of the log.
            revise: Whether these stamps are stored already and get the next revision.
        """
        if len(rows):
            self._wrote = True
            self._stored.insert(rows, revise=revise, now=_now(), batch=self.before + 1)

    def remove(self, numbers: Sequence[int]) -> int:
        """Take series away with everything observed of them; returns how many rows those were."""
        rows = self._stored.remove(numbers)
        for table in (base, pruned, series):
            for chosen in among(table.c.series, numbers):
                self._connection.execute(sa.delete(table).where(chosen))
        noted = [{"series": number, "batch": self.before + 1} for number in numbers]
        if noted:
            self._wrote = True
            self._connection.execute(sa.insert(removed), noted)
        return rows

    def _entries(self, queries: Iterable[sa.Select[Any]]) -> list[SeriesRecord]:
        """Of number, name and static covariates."""
        found = chain.from_iterable(tuples(self._connection, query) for query in queries)
        return [
            SeriesRecord(n, name, json.loads(static) if static else {}) for n, name, static in found
        ]


def _now() -> int:
    return time.time_ns() // 1_000_000

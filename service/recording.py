"""
Observations: planned, computed, committed to the log, and only then put into the live states.

One batch at a time. Whatever fails before the commit leaves both the log and the states as they
were; once the commit is on the disk, nothing can fail but the process itself, and then a replay
at the next start gives the same states.
"""

import contextlib
import difflib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int

from forecast.errors import UnknownSeries
from forecast.states import States
from service.engine import Engine
from service.errors import DeadlinePassed, LogError, Refused
from service.log import Log, Transaction
from service.metrics import Metrics
from service.observing import STATUSES, Known, Plan, plan
from service.rows import Entry, Rows

_SHOWN = 10
_LOOKED_THROUGH = 20_000
"""Names among which the nearest is looked for; more would take too long."""


@dataclass(frozen=True, slots=True)
class Sent:
    """Observations as a request gives them, in its order."""

    names: Sequence[str]
    ds: Int[np.ndarray, " item"]
    y: Float[np.ndarray, " item"]
    covariates: Float[np.ndarray, "item covariate"]
    pointer: Callable[[int], str]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of them."""

    status: Int[np.ndarray, " item"]
    """A place in `observing.STATUSES` for each item."""
    created: tuple[str, ...]
    """Series that were not known before."""
    fills: tuple[tuple[str, int, int], ...]
    """Series, first stamp and number of the steps of each gap that the policy filled."""

    def count(self, status: int) -> int:
        """How many items have a status."""
        return int((self.status == status).sum())


@dataclass(frozen=True, slots=True)
class _Change:
    """States to put in place once the log has the observations."""

    entries: list[Entry]
    states: States
    rebuilt: bool
    first_ds: Int[np.ndarray, " series"] | None = None


class Recorder:
    """The one writer of a log and of the states beside it."""

    def __init__(
        self, engine: Engine, log: Log, metrics: Metrics, *,
        unknown_series: Literal["refuse", "create"], max_fill: int, deadline: float,
    ) -> None:  # fmt: skip
        self._engine = engine
        self._log = log
        self._metrics = metrics
        self._create = unknown_series == "create"
        self._max_fill = max_fill
        self._deadline = deadline
        self._lock = threading.Lock()
        self._doubtful: set[str] = set()

    def record(self, sent: Sent) -> Outcome:
        """
        Store a batch, all of it or nothing; it is on the disk when this returns.

        Raises:
            Refused: With the error of the catalogue and the items it concerns.
            LogError: The log cannot be written; whether it was is found out at the next batch.
            DeadlinePassed: Batches before it took too long; nothing of it is stored.
        """
        with self._writing():
            names = list(dict.fromkeys(sent.names))
            place = {name: i for i, name in enumerate(names)}
            rows = Rows(
                np.array([place[name] for name in sent.names], np.int64), sent.ds, sent.y,
                sent.covariates, np.zeros(len(sent.ds), bool),
            )  # fmt: skip
            unknown = [name for name in names if name not in self._engine.rows]
            if unknown and not self._create:
                raise self._no_such(unknown, sent)
            try:
                with self._log.write() as transaction:
                    outcome, changes = self._store(transaction, names, rows, sent.pointer)
            except LogError:
                self._doubtful.update(names)
                raise
            self._put(changes)
        for number, status in enumerate(STATUSES):
            self._metrics.observations.labels(status).inc(outcome.count(number))
        return outcome

    def rebuild(self, name: str) -> None:
        """
        Replay one series from the log.

        Raises:
            UnknownSeries: It is not in the log.
        """
        with self._writing():
            if name not in self._engine.rows:
                raise no_such_series(name, self._engine)
            with self._log.read() as transaction:
                change = self._replay(transaction, [name])
            self._put([change])
        self._metrics.rebuilds.labels("asked").inc()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """The turn of one batch, once those before it are done."""
        if not self._lock.acquire(timeout=self._deadline):
            raise DeadlinePassed(
                f"no turn to write within {self._deadline:g} s; nothing was stored",
                help="send it again, later or in fewer and larger requests",
            )
        try:
            self._settle()
            yield
        finally:
            self._lock.release()

    def _store(
        self, transaction: Transaction, names: list[str], rows: Rows,
        pointer: Callable[[int], str],
    ) -> tuple[Outcome, list[_Change]]:  # fmt: skip
        engine = self._engine
        known = self._known(names)
        numbers = [engine.numbers[engine.rows[name]] if name in engine.rows else -1
                   for name in names]  # fmt: skip

        def stored(asked: Rows) -> Rows:
            return transaction.current(asked, numbers)

        made = plan(
            rows, known, stored, engine.bundle.config.data, engine.bundle.calendar,
            max_fill=self._max_fill, pointer=pointer,
        )  # fmt: skip
        created = [name for name, empty in zip(names, known.empty, strict=True) if empty]
        fresh_numbers = iter(transaction.add_series(created, {}))
        number = np.array([n if n >= 0 else next(fresh_numbers) for n in numbers], np.int64)
        transaction.append(replace(made.fresh, series=number[made.fresh.series]))
        transaction.append(replace(made.revised, series=number[made.revised.series]), revise=True)
        changes = self._changes(transaction, names, known, made)
        return Outcome(made.status, tuple(created), _fills(made.fresh, names)), changes

    def _changes(
        self, transaction: Transaction, names: list[str], known: Known, made: Plan
    ) -> list[_Change]:
        """New states: one step on where only new steps came, a replay where the past changed."""
        again = np.zeros(len(names), bool)
        again[made.revised.series] = True
        replayed = [name for name, a, e in zip(names, again, known.empty, strict=True) if a or e]
        goes_on = ~(again | known.empty)[made.fresh.series]
        rows = made.fresh.take(goes_on)
        moved, series = np.unique(rows.series, return_inverse=True)
        changes = []
        if len(moved):
            ids = [names[i] for i in moved]
            at = np.array([self._engine.rows[name] for name in ids], np.int64)
            fresh = replace(rows, series=series.astype(np.int64))
            states = self._engine.compute.run(
                lambda: self._engine.observed(at, ids, fresh), patient=True
            )
            entries = [Entry(self._engine.numbers[row], name, {})
                       for row, name in zip(at.tolist(), ids, strict=True)]  # fmt: skip
            changes.append(_Change(entries, states, rebuilt=False))
        if replayed:
            changes.append(self._replay(transaction, replayed))
            self._metrics.rebuilds.labels("revision").inc(int(again.sum()))
        return changes

    def _replay(self, transaction: Transaction, names: list[str]) -> _Change:
        """States of some series from everything the log has of them."""
        engine = self._engine
        entries = {entry.unique_id: entry for entry in transaction.find(names)}
        wanted = sorted((entries[name] for name in names), key=lambda entry: entry.number)
        rows = transaction.history([entry.number for entry in wanted])
        numbers = np.array([entry.number for entry in wanted], np.int64)
        rows = replace(rows, series=np.searchsorted(numbers, rows.series))
        ids, static = [e.unique_id for e in wanted], [e.static for e in wanted]
        states = engine.compute.run(lambda: engine.replayed(ids, static, rows), patient=True)
        first = rows.ds[np.searchsorted(rows.series, np.arange(len(ids)))]
        return _Change(wanted, states, rebuilt=True, first_ds=first)

    def _put(self, changes: list[_Change]) -> None:
        engine = self._engine

        def work() -> None:
            for change in changes:
                engine.commit(change.entries, change.states, rebuilt=change.rebuilt,
                              first_ds=change.first_ds)  # fmt: skip

        if changes:
            engine.compute.run(work, patient=True)
            self._metrics.live_series.set(len(engine))

    def _settle(self) -> None:
        """After a commit of unknown outcome: take from the log what it has of those series."""
        if not self._doubtful:
            return
        with self._log.read() as transaction:
            there = [entry.unique_id for entry in transaction.find(sorted(self._doubtful))]
            changes = [self._replay(transaction, there)] if there else []
        self._put(changes)
        self._doubtful.clear()

    def _known(self, names: list[str]) -> Known:
        at = np.array([self._engine.rows.get(name, -1) for name in names], np.int64)
        first, last = self._engine.spans(np.maximum(at, 0))
        return Known(names, first, last, at < 0)

    def _no_such(self, unknown: list[str], sent: Sent) -> Refused:
        lost = set(unknown)
        items = [i for i, name in enumerate(sent.names) if name in lost]
        error = no_such_series(unknown[0], self._engine, len(lost))
        return Refused(
            error,
            [(f"{sent.pointer(i)}/unique_id", "no such series") for i in items[:_SHOWN]],
        )


def no_such_series(name: str, engine: Engine, count: int = 1) -> UnknownSeries:
    """The error that names the series and the nearest one there is."""
    near = difflib.get_close_matches(name, engine.ids[:_LOOKED_THROUGH], n=1)
    more = f" and {count - 1} more" if count > 1 else ""
    return UnknownSeries(
        f"no series {name!r}{more}", where=f"among {len(engine):,} series",
        help=(f"did you mean {near[0]!r}? " if near else "")
        + "GET /v1/series lists them; STATECAST_UNKNOWN_SERIES=create begins new ones",
    )  # fmt: skip


def _fills(fresh: Rows, names: Sequence[str]) -> tuple[tuple[str, int, int], ...]:
    made = fresh.filled
    if not made.any():
        return ()
    changed = np.r_[True, fresh.series[1:] != fresh.series[:-1]]
    opens = np.flatnonzero(made & (changed | ~np.r_[False, made[:-1]]))
    group = np.cumsum(np.isin(np.arange(len(fresh)), opens))[made] - 1
    sizes: Any = np.bincount(group)
    return tuple(
        (names[int(fresh.series[row])], int(fresh.ds[row]), int(size))
        for row, size in zip(opens, sizes, strict=True)
    )

"""
What is written to the log, and what becomes of the states: one batch at a time, on one thread.

Whatever fails before the commit leaves both the log and the states as they were; once the commit
is on the disk, nothing can fail but the process itself, and then a replay at the next start gives
the same states. The same way leads from the log to the states where another process wrote, or
where it is not known how a commit ended: what came since is read and taken in.
"""

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
from jaxtyping import Int

from forecast.inference.states import States
from service.engine.engine import Engine, no_such_series
from service.engine.history import Replay, Replayed, history_of, next_part_size
from service.engine.pruning import prune
from service.errors import LogError, NotReady, Refused
from service.ingest.batch import BatchResult, ObservationBatch
from service.ingest.planner import STATUSES, Known, Plan, plan
from service.metrics import Metrics
from service.settings import Limits
from service.storage.base_states import PrunedSpans
from service.storage.database import STANDBY
from service.storage.log import ObservationLog
from service.storage.records import Observations
from service.storage.retention import Pruned, RetentionRule
from service.storage.transaction import Transaction

_SHOWN = 10
_TOGETHER = 4096
"""Series whose states are computed in one go: as many as the network takes in one call."""
_FIRST_REPLAYED, _REPLAY_S = 256, 1.0
"""Series in the first part of a replay, and seconds that the later parts take."""
logger = logging.getLogger("service.writer")


@dataclass(frozen=True, slots=True)
class _Advance:
    """States after new steps, to put in place once the log has them."""

    rows: Int[np.ndarray, " series"]
    """Of the engine."""
    states: States


_Change = _Advance | Replayed


class Writer:
    """Writes to one log and moves the states of one engine; never from two threads at once."""

    def __init__(
        self,
        engine: Engine,
        log: ObservationLog,
        metrics: Metrics,
        *,
        unknown_series: Literal["refuse", "create"],
        limits: Limits,
    ) -> None:
        self.engine = engine
        self.log = log
        self._metrics = metrics
        self.waiting: dict[str, int] = {}
        """Series of the log that have no live state yet, by name, with their numbers."""
        self._create = unknown_series == "create"
        self._limits = limits

    def write(self, sent: ObservationBatch) -> BatchResult:
        """
        Store a batch, all of it or nothing; it is on the disk when this returns.

        Raises:
            Refused: With the error of the catalogue and the items it concerns.
            LogError: The log cannot be written; whether it was is found out at the next batch.
            NotReady: They were laid out for a model that is no longer in service.
        """
        if sent.columns != self.log.covariates:
            raise NotReady("another model took over meanwhile", help="send it again")
        names = list(dict.fromkeys(sent.names))
        series = np.arange(len(names))
        if len(names) < len(sent.names):
            place = {name: i for i, name in enumerate(names)}
            series = np.array([place[name] for name in sent.names], np.int64)
        rows = Observations(series, sent.ds, sent.y, sent.covariates, np.zeros(len(series), bool))
        with self.log.write() as transaction:
            self.take_in(transaction)
            self._bring_in(transaction, names)
            at = self.engine.find(names)
            if (at < 0).any() and not self._create:
                raise self._no_such([names[i] for i in np.flatnonzero(at < 0)], sent)
            outcome, changes = self._store(transaction, names, at, rows, sent.pointer)
            batch = transaction.batch
        self._put(changes, batch)
        metrics = self._metrics
        for number, status in enumerate(STATUSES):
            metrics.observations.labels(metrics.model, status).inc(outcome.count(number))
        return outcome

    def rebuild(self, name: str) -> None:
        """
        Replay one series from the log.

        Raises:
            UnknownSeries: It is not in the log.
        """
        with self.log.read() as transaction:
            self.take_in(transaction)
            self._bring_in(transaction, [name])
            if name not in self.engine.rows:
                raise no_such_series(name, self.engine)
            number = int(self.engine.numbers[self.engine.rows[name]])
            self._put(self._replay(transaction, [number]), transaction.before)
        self._metrics.rebuilds.labels(self._metrics.model, "asked").inc()

    def remove(self, name: str) -> int:
        """
        Take a series away from log and states, for good; returns how many rows it had.

        Raises:
            UnknownSeries: It is not in the log.
        """
        with self.log.write() as transaction:
            self.take_in(transaction)
            found = transaction.find([name])
            if not found:
                raise no_such_series(name, self.engine)
            rows = transaction.remove([found[0].number])
            batch = transaction.batch
        self.waiting.pop(name, None)
        self._drop([name] if name in self.engine.rows else [])
        self._put([], batch)
        return rows

    def prune(
        self, numbers: Sequence[int], keep: RetentionRule, beside: Iterable[Engine]
    ) -> Pruned:
        """
        Take the older steps of some series out of the log; their states stay as they are.

        Args:
            numbers: Of series; at most `bases.TOGETHER`.
            keep: What stays.
            beside: Of other models that are to go on from where the log begins then.

        Raises:
            LogError: The log cannot be written; whether it was is found out at the next batch.
        """
        with self.log.write() as transaction:
            self.take_in(transaction)
            others = [engine for engine in beside if engine.digest != self.engine.digest]
            begins, taken = prune(transaction, numbers, keep, [self.engine, *others])
            batch = transaction.batch
        self._put([], batch, begins)
        return taken

    def _drop(self, names: list[str]) -> None:
        if names:
            self.engine.executor.run(lambda: self.engine.drop(names), patient=True)

    def catch_up(self) -> None:
        """Take in everything that is in the log."""
        with self.log.read() as transaction:
            self.take_in(transaction)

    def replay(self, names: Sequence[str]) -> None:
        """Replay those of the series that wait for it."""
        with self.log.read() as transaction:
            self.take_in(transaction)
            self._bring_in(transaction, names)

    def put_in_place(self, replay: Replay) -> None:
        """
        Have those series live that still wait.

        What the log says of some of them may be another thing by now: these are read again.

        Raises:
            LogError: The log cannot be read; those that are not live yet go on waiting.
        """
        with self.log.read() as transaction:
            self.take_in(transaction)
            changed = transaction.changed(list(replay.asked.values()), replay.batch)
            waiting = self.waiting
            same = replay.timeline == transaction.timeline
            made = replay.made.those(
                lambda entry: same and entry.unique_id in waiting and entry.number not in changed
            )
            self._put([made], transaction.before)
            for entry in made.entries:
                del waiting[entry.unique_id]
            self._bring_in(transaction, list(replay.asked))

    def _bring_in(self, transaction: Transaction, names: Sequence[str]) -> None:
        lacking = [name for name in names if name in self.waiting] if self.waiting else []
        if lacking:
            numbers = [self.waiting[name] for name in lacking]
            self._put(self._replay(transaction, numbers), transaction.before)
        for name in lacking:
            del self.waiting[name]

    def is_behind(self, transaction: Transaction) -> bool:
        """
        Whether the states are not those of the log as it is.

        Raises:
            LogError: It is a copy that follows another one: what comes after it is not known yet.
        """
        engine = self.engine
        if transaction.timeline == STANDBY:
            raise LogError(
                "the observation log cannot be used (the database is a standby)",
                where=self.log.place,
                help="try again; the primary takes what is sent",
            )
        return (transaction.before, transaction.timeline) != (engine.batch, engine.timeline)

    def take_in(self, transaction: Transaction) -> None:
        """Bring the states to where the log is: others may have written, or we be in doubt."""
        engine = self.engine
        if not self.is_behind(transaction):
            return
        if transaction.before < engine.batch or engine.timeline != transaction.timeline:
            self._begin_anew(transaction)
            return
        found = transaction.changes(engine.batch)
        if self.waiting:
            numbers = {*found.removed, *(entry.number for entry in found.begun)}
            self.waiting = {n: at for n, at in self.waiting.items() if at not in numbers}
        gone = engine.rows_of(np.array(found.removed, np.int64))
        lost = [engine.ids[row] for row in gone[gone >= 0].tolist()]
        self._drop(lost)
        known = engine.rows_of(found.rows.series)
        revised = np.array(found.revised, np.int64)
        lacking = found.pruned.series[found.pruned.newest > engine.batch]  # of what is gone
        again = {
            number
            for some in (revised, lacking)
            for number in some[engine.rows_of(some) >= 0].tolist()
        }
        again = {*again, *(entry.number for entry in found.begun)} - {*found.removed}
        on = (known >= 0) & ~np.isin(found.rows.series, [*again])
        _, ends = engine.spans(np.maximum(known, 0))
        rows = found.rows.take(on & (found.rows.ds > ends))
        changes: list[_Change] = []
        if len(rows):
            changes += self._advance(replace(rows, series=engine.rows_of(rows.series)))
        if again:
            changes += self._replay(transaction, sorted(again))
        self._put(changes, transaction.before, found.pruned)

    def _begin_anew(self, transaction: Transaction) -> None:
        """Its history is another: what the states have seen may not be in it."""
        logger.warning(
            "%s was put back or has another primary (it ends with batch %d, and ended with %d "
            "before): every series is replayed",
            self.log.place,
            transaction.before,
            self.engine.batch,
        )
        waiting = {name: number for number, name in transaction.names().items()}
        self._drop([*self.engine.rows])
        self.waiting = waiting
        self.engine.timeline = transaction.timeline
        self._put([], transaction.before)

    def _store(
        self,
        transaction: Transaction,
        names: list[str],
        at: Int[np.ndarray, " series"],
        rows: Observations,
        pointer: Callable[[int], str],
    ) -> tuple[BatchResult, list[_Change]]:
        engine = self.engine
        first, last = engine.spans(np.maximum(at, 0))
        known = Known(names, first, last, at < 0)
        number = np.where(at < 0, -1, engine.numbers[at])

        def stored(asked: Observations) -> Observations:
            return transaction.current(asked, number.tolist())

        made = plan(
            rows,
            known,
            stored,
            engine.bundle.config.data,
            engine.bundle.calendar,
            max_fill=self._limits.max_fill,
            max_rows=self._limits.max_rows,
            pointer=pointer,
            pruned=lambda row: bool(len(transaction.begins([int(number[row])]).series)),
        )
        created = [names[i] for i in np.flatnonzero(known.empty)]
        number[known.empty] = transaction.add_series(created, {})
        changes = self._changes(transaction, at, number, made)
        return BatchResult(made.status, tuple(created), made.fills(names)), changes

    def _changes(
        self,
        transaction: Transaction,
        at: Int[np.ndarray, " series"],
        number: Int[np.ndarray, " series"],
        made: Plan,
    ) -> list[_Change]:
        """Store the plan; new states: a step on, or a replay where the past changed."""
        again = np.zeros(len(at), bool)
        again[made.revised.series] = True
        replayed = again | (at < 0)
        on = ~replayed[made.fresh.series]
        other, rows = made.fresh.take(~on), made.fresh.take(on)
        transaction.append(replace(other, series=number[other.series]))
        transaction.append(replace(made.revised, series=number[made.revised.series]), revise=True)
        changes: list[_Change] = []
        if len(rows):
            changes += self._advance(replace(rows, series=at[rows.series]), transaction.append)
        if replayed.any():
            changes += self._replay(transaction, number[replayed].tolist())
            self._metrics.rebuilds.labels(self._metrics.model, "revision").inc(int(again.sum()))
        return changes

    def _advance(
        self, fresh: Observations, store: Callable[[Observations], None] = lambda rows: None
    ) -> list[_Advance]:
        """
        States after new steps.

        Args:
            fresh: Their `series` are rows of the engine; each series in order.
            store: Given the same rows by the numbers of the log, while states are computed.
        """
        engine = self.engine
        fresh = fresh.take(np.argsort(fresh.series, kind="stable"))
        at, begins = np.unique(fresh.series, return_index=True)
        changes = []
        for some in range(0, len(at), _TOGETHER):  # forecasts go in between
            part = at[some : some + _TOGETHER]
            ends = np.r_[begins, len(fresh)][[some, some + len(part)]]
            rows = fresh.take(np.arange(*ends))
            steps = replace(rows, series=np.searchsorted(part, rows.series))
            states = engine.executor.begin(partial(engine.observed, part, steps))
            store(replace(rows, series=engine.numbers[rows.series]))
            changes.append(_Advance(part, states()))
        return changes

    def _replay(self, transaction: Transaction, numbers: Sequence[int]) -> list[Replayed]:
        """
        States of some series from everything the log has of them.

        A few at a time, so that memory does not grow with how many there are; and not on the
        compute thread, so that forecasts go on meanwhile.
        """
        engine, made, done, some = self.engine, [], 0, _FIRST_REPLAYED
        while done < len(numbers):
            begun, part = time.perf_counter(), numbers[done : done + some]
            history = history_of(transaction, engine.digest, transaction.history(part))
            made.append(Replayed(history.entries, history.states(engine.bundle), history.first_ds))
            done += len(part)
            some = next_part_size(some, time.perf_counter() - begun, _REPLAY_S, _TOGETHER)
        return made

    def _put(
        self, changes: Sequence[_Change], batch: int, begins: PrunedSpans | None = None
    ) -> None:
        """In one move: no forecast sees a part of a batch."""
        engine = self.engine

        def work() -> None:
            for change in changes:
                if isinstance(change, _Advance):
                    engine.advance(change.rows, change.states)
                else:
                    engine.commit(change.entries, change.states, change.first_ds)
            if begins is not None:
                rows = engine.rows_of(begins.series)
                engine.begin_at(rows[rows >= 0], begins.first_ds[rows >= 0])
            engine.batch = batch

        engine.executor.run(work, patient=True)

    def _no_such(self, unknown: list[str], sent: ObservationBatch) -> Refused:
        lost = set(unknown)
        items = [i for i, name in enumerate(sent.names) if name in lost]
        error = no_such_series(unknown[0], self.engine, len(lost))
        return Refused(
            error,
            [(f"{sent.pointer(i)}/unique_id", "no such series") for i in items[:_SHOWN]],
        )

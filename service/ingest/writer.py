"""
Write batches to the log and bring the live states along, one transaction at a time.

A failure before the commit leaves both the log and the states as they were. After the commit only
the end of the process can keep the new states from being put in place; the next start then replays
them from the log.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from jaxtyping import Int

from service.engine.engine import Engine, no_such_series
from service.engine.history import Replay
from service.engine.pruning import prune
from service.errors import NotReady, Refused
from service.ingest import state_changes
from service.ingest.batch import BatchResult, ObservationBatch
from service.ingest.catch_up import catch_up
from service.ingest.planner import STATUSES, Known, Plan, plan
from service.ingest.state_changes import StateChange
from service.metrics import Metrics
from service.settings import Limits
from service.storage.log import ObservationLog
from service.storage.records import Observations
from service.storage.retention import Pruned, RetentionRule
from service.storage.transaction import Transaction

_MAX_ITEMS = 10
"""Most items that an error names one by one."""


class Writer:
    """
    Writes to one log and changes the live states of one engine; never from two threads at once.

    Args:
        engine: Holds the states.
        log: With the covariates of the engine's model.
        metrics: Counts observations and replays.
        unknown_series: Whether an unknown series is refused or created.
        limits: Limits of the fill policy.
    """

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
        """Series of the log without a live state: their numbers in the log, by name."""
        self._create = unknown_series == "create"
        self._limits = limits

    def write(self, batch: ObservationBatch) -> BatchResult:
        """
        Store a batch, all of it or nothing; it is on the disk when this returns.

        Raises:
            Refused: Some items cannot be stored.
            LogError: The log cannot be written. The batch may be stored nevertheless; the next
                call finds out.
            NotReady: The batch was laid out for a model that is no longer in service.
        """
        if batch.columns != self.log.covariates:
            raise NotReady("another model took over meanwhile", help="send it again")
        names = list(dict.fromkeys(batch.names))
        series = np.arange(len(names))
        if len(names) < len(batch.names):
            place = {name: i for i, name in enumerate(names)}
            series = np.array([place[name] for name in batch.names], np.int64)
        observed = Observations(
            series, batch.ds, batch.y, batch.covariates, np.zeros(len(series), bool)
        )
        with self.log.write() as transaction:
            self._catch_up(transaction)
            self._replay_waiting(transaction, names)
            rows = self.engine.find(names)
            if (rows < 0).any() and not self._create:
                raise self._unknown([names[i] for i in np.flatnonzero(rows < 0)], batch)
            result, changes = self._store(transaction, names, rows, observed, batch.pointer)
        state_changes.commit(self.engine, changes, transaction.batch)
        for number, status in enumerate(STATUSES):
            counter = self._metrics.observations.labels(self._metrics.model, status)
            counter.inc(result.count(number))
        return result

    def rebuild(self, name: str) -> None:
        """
        Replay one series from the log.

        Raises:
            UnknownSeries: The series is not in the log.
        """
        with self.log.read() as transaction:
            self._catch_up(transaction)
            self._replay_waiting(transaction, [name])
            if name not in self.engine.rows:
                raise no_such_series(name, self.engine)
            number = int(self.engine.numbers[self.engine.rows[name]])
            changes = state_changes.replay(self.engine, transaction, [number])
            state_changes.commit(self.engine, changes, transaction.before)
        self._metrics.rebuilds.labels(self._metrics.model, "asked").inc()

    def remove(self, name: str) -> int:
        """
        Delete a series and its state for good; return how many rows it had in the log.

        Raises:
            UnknownSeries: The series is not in the log.
        """
        with self.log.write() as transaction:
            self._catch_up(transaction)
            records = transaction.find([name])
            if not records:
                raise no_such_series(name, self.engine)
            rows = transaction.remove([records[0].number])
        self.waiting.pop(name, None)
        state_changes.drop(self.engine, [name] if name in self.engine.rows else [])
        state_changes.commit(self.engine, [], transaction.batch)
        return rows

    def prune(
        self, numbers: Sequence[int], rule: RetentionRule, engines: Iterable[Engine]
    ) -> Pruned:
        """
        Remove the older steps of some series from the log; their states stay as they are.

        Args:
            numbers: Numbers of the series, at most `base_states.TOGETHER`.
            rule: Says which steps are kept.
            engines: Engines of further models that must be able to replay from what is kept.

        Raises:
            LogError: The log cannot be written. The steps may be removed nevertheless; the next
                call finds out.
        """
        with self.log.write() as transaction:
            self._catch_up(transaction)
            others = [engine for engine in engines if engine.digest != self.engine.digest]
            spans, pruned = prune(transaction, numbers, rule, [self.engine, *others])
        state_changes.commit(self.engine, [], transaction.batch, spans)
        return pruned

    def catch_up(self) -> None:
        """Apply every batch of the log that the states have not seen."""
        with self.log.read() as transaction:
            self._catch_up(transaction)

    def replay(self, names: Sequence[str]) -> None:
        """Replay those of the series that have no live state yet."""
        with self.log.read() as transaction:
            self._catch_up(transaction)
            self._replay_waiting(transaction, names)

    def put_in_place(self, result: Replay) -> None:
        """
        Make the replayed series live that still wait.

        A series that has changed in the log since it was replayed is replayed again.

        Raises:
            LogError: The log cannot be read; series that are not live yet go on waiting.
        """
        with self.log.read() as transaction:
            self._catch_up(transaction)
            changed = transaction.changed(list(result.requested.values()), result.batch)
            same_history = result.timeline == transaction.timeline
            valid = result.replayed.those(
                lambda record: (
                    same_history
                    and record.unique_id in self.waiting
                    and record.number not in changed
                )
            )
            state_changes.commit(self.engine, [valid], transaction.before)
            for record in valid.entries:
                del self.waiting[record.unique_id]
            self._replay_waiting(transaction, list(result.requested))

    def _catch_up(self, transaction: Transaction) -> None:
        catch_up(self.engine, self.waiting, self.log, transaction)

    def _replay_waiting(self, transaction: Transaction, names: Sequence[str]) -> None:
        names = [name for name in names if name in self.waiting] if self.waiting else []
        if names:
            numbers = [self.waiting[name] for name in names]
            changes = state_changes.replay(self.engine, transaction, numbers)
            state_changes.commit(self.engine, changes, transaction.before)
        for name in names:
            del self.waiting[name]

    def _store(
        self,
        transaction: Transaction,
        names: list[str],
        rows: Int[np.ndarray, " series"],
        observed: Observations,
        pointer: Callable[[int], str],
    ) -> tuple[BatchResult, list[StateChange]]:
        """
        Append a batch to the log and compute the states after it.

        Args:
            transaction: Writes to the log.
            names: Names of the series, each once.
            rows: Their rows of the engine; -1 for a series that is not known.
            observed: The batch; its `series` count through `names`.
            pointer: Place of an item in the request.
        """
        engine = self.engine
        first, last = engine.spans(np.maximum(rows, 0))
        known = Known(names, first, last, rows < 0)
        numbers = np.where(rows < 0, -1, engine.numbers[rows])
        planned = plan(
            observed,
            known,
            lambda stamps: transaction.current(stamps, numbers.tolist()),
            engine.bundle.config.data,
            engine.bundle.calendar,
            max_fill=self._limits.max_fill,
            max_rows=self._limits.max_rows,
            pointer=pointer,
            pruned=lambda row: bool(len(transaction.begins([int(numbers[row])]).series)),
        )
        created = [names[i] for i in np.flatnonzero(known.empty)]
        numbers[known.empty] = transaction.add_series(created, {})
        changes = self._append(transaction, rows, numbers, planned)
        return BatchResult(planned.status, tuple(created), planned.fills(names)), changes

    def _append(
        self,
        transaction: Transaction,
        rows: Int[np.ndarray, " series"],
        numbers: Int[np.ndarray, " series"],
        planned: Plan,
    ) -> list[StateChange]:
        """Append what is planned; replay the series that are new or were corrected."""
        corrected = np.zeros(len(rows), bool)
        corrected[planned.revised.series] = True
        replayed = corrected | (rows < 0)
        of_replayed = replayed[planned.fresh.series]
        steps, rest = planned.fresh.take(~of_replayed), planned.fresh.take(of_replayed)
        revised = planned.revised
        transaction.append(replace(rest, series=numbers[rest.series]))
        transaction.append(replace(revised, series=numbers[revised.series]), revise=True)
        changes: list[StateChange] = []
        if len(steps):
            steps = replace(steps, series=rows[steps.series])
            changes += state_changes.advance(self.engine, steps, transaction.append)
        if replayed.any():
            changes += state_changes.replay(self.engine, transaction, numbers[replayed].tolist())
            rebuilds = self._metrics.rebuilds.labels(self._metrics.model, "revision")
            rebuilds.inc(int(corrected.sum()))
        return changes

    def _unknown(self, names: list[str], batch: ObservationBatch) -> Refused:
        unknown = set(names)
        items = [i for i, name in enumerate(batch.names) if name in unknown]
        return Refused(
            no_such_series(names[0], self.engine, len(unknown)),
            [(f"{batch.pointer(i)}/unique_id", "no such series") for i in items[:_MAX_ITEMS]],
        )

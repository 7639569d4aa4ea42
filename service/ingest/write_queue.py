"""
The line of requests that want to write, and the thread that serves it.

Those that wait at the same time are written in one transaction (group commit) and computed in one
step. Nothing is acknowledged before its transaction is on the disk.
"""

import contextlib
import functools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from typing import Any

import numpy as np

from forecast.errors import ForecastError
from service.engine.cancellation import cancel_with_caller, check_caller
from service.engine.engine import Engine
from service.engine.history import Replay, next_part_size
from service.errors import DeadlinePassed, NotReady, Overloaded, Refused
from service.ingest.batch import BatchResult, ObservationBatch
from service.ingest.catch_up import is_behind
from service.ingest.single_flight import SingleFlight
from service.ingest.writer import Writer
from service.storage.base_states import TOGETHER
from service.storage.retention import Pruned, RetentionRule

MOST_TOGETHER = 100_000
"""Observations in one transaction; one request may have more."""
MOST_WAITING = 1_000_000
"""Observations that may wait for their turn."""
_FIRST_PRUNED, _PRUNE_S = 64, 0.2
"""Series in the first part of a pruning, and seconds that the later parts take."""


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    """Observations to write, or something else to do in between."""

    todo: ObservationBatch | Callable[[], Any]
    future: Future[Any]
    until: float
    """When nobody waits for its turn any more."""

    @property
    def size(self) -> int:
        """How many observations it has."""
        return len(self.todo.names) if isinstance(self.todo, ObservationBatch) else 0

    def goes_with(self, other: "_Job") -> bool:
        """Whether both are observations with the same columns."""
        mine, theirs = self.todo, other.todo
        if isinstance(mine, ObservationBatch) and isinstance(theirs, ObservationBatch):
            return mine.columns == theirs.columns
        return False


class WriteQueue:
    """
    Puts requests in a line and has them written.

    Args:
        writer: It is used on the thread of this queue only.
        deadline: Seconds that a request waits for its turn.
    """

    def __init__(self, writer: Writer, deadline: float) -> None:
        self.writer = writer
        self._deadline = deadline
        self._line: deque[_Job] = deque()
        self._waiting = 0
        self._ready = threading.Condition()
        self._closed = False
        self._looking = SingleFlight(self._look, deadline)
        self._thread = threading.Thread(target=self._loop, name="write queue", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Finish the transaction that runs, drop what waits."""
        with self._ready:
            self._closed = True
            dropped, self._line = self._line, deque()
            self._ready.notify()
        for job in dropped:
            job.future.cancel()
        self._thread.join()

    def record(self, sent: ObservationBatch) -> BatchResult:
        """
        Store observations, all of them or nothing; they are on the disk when this returns.

        Raises:
            Refused: With the error of the catalogue and the items it concerns.
            LogError: The log cannot be written; whether it was is found out at the next batch.
            DeadlinePassed: Those before it took too long.
            Overloaded: Too many wait already; nothing of it is stored.
        """
        outcome: BatchResult = self._ask(sent)
        return outcome

    def rebuild(self, name: str) -> None:
        """
        Replay one series from the log.

        Raises:
            UnknownSeries: It is not in the log.
        """
        self._ask(lambda: self.writer.rebuild(name))

    def remove(self, name: str) -> int:
        """
        Take a series away, for good; returns how many rows it had.

        Raises:
            UnknownSeries: It is not in the log.
        """
        rows: int = self._ask(lambda: self.writer.remove(name))
        return rows

    def prune(
        self,
        keep: RetentionRule,
        beside: Callable[[], Iterable[Engine]],
        told: Callable[[int, int], None] = lambda done, total: None,
        *,
        seconds: float = _PRUNE_S,
    ) -> Pruned:
        """
        Take older steps out of the log, some series at a time.

        Args:
            keep: What stays of each series.
            beside: Models that are to go on from where the log begins then, whenever asked.
            told: Series looked at so far, and how many there are.
            seconds: That one part may take, while others wait.

        Raises:
            LogError: The log cannot be written; what was taken out before stays so.
        """
        with self.writer.log.read() as transaction:
            numbers = list(transaction.names())
        taken, done, some = Pruned(), 0, _FIRST_PRUNED
        while done < len(numbers):
            begun, part = time.perf_counter(), numbers[done : done + some]
            taken += self._ask(functools.partial(self._prune_some, part, keep, beside))
            done += len(part)
            some = next_part_size(some, time.perf_counter() - begun, seconds, TOGETHER)
            told(done, len(numbers))
        return taken

    def hand_over(self, writer: Writer, then: Callable[[], None]) -> None:
        """
        Let another model's writer take over, once it has all that this one has written.

        Args:
            writer: Of the other model.
            then: What has to change in the same moment, or not at all.

        Raises:
            LogError: The log cannot be read; nothing has changed then.
            DeadlinePassed: Those before it took too long; nothing has changed then.
        """

        def work() -> None:
            writer.catch_up()
            self.writer = writer
            then()

        self._ask(work, patient=True)

    def need(self, names: Sequence[str]) -> None:
        """Have those of the series replayed now that still wait for it."""
        waiting = self.writer.waiting
        lacking = [name for name in names if name in waiting] if waiting else []
        if lacking:
            self._ask(lambda: self.writer.replay(lacking))

    def put_in_place(self, replay: Replay) -> None:
        """Have replayed states put in place; it takes its turn among the writes."""
        writer = self.writer
        self._ask(lambda: writer.put_in_place(replay))

    def catch_up(self) -> None:
        """
        Take in what other processes have written by now; a file has no other writer.

        Those who ask at the same time share one look at the log, which begins after they asked.
        """
        if self.writer.log.shared:
            self._looking.join()

    @property
    def cut_off(self) -> ForecastError | None:
        """Why the last look at a log that others write to failed; None where it did not."""
        failure = self._looking.failure
        if failure is None or isinstance(failure, ForecastError):
            return failure
        return ForecastError("the last look at the log failed; the server's log tells more")

    def _look(self) -> None:
        with self.writer.log.read() as transaction:
            behind = is_behind(self.writer.engine, self.writer.log, transaction)
        if behind:
            self._ask(lambda: self.writer.catch_up())

    def _prune_some(
        self, numbers: Sequence[int], keep: RetentionRule, beside: Callable[[], Iterable[Engine]]
    ) -> Pruned:
        return self.writer.prune(numbers, keep, beside())

    def _ask(self, todo: ObservationBatch | Callable[[], Any], *, patient: bool = False) -> Any:
        """Have it done; `patient` waits for its end once it has begun, however long that takes."""
        job = _Job(todo, Future(), time.perf_counter() + self._deadline)
        with self._ready:
            if self._closed:
                raise NotReady("the server is stopping", help="send it again later")
            if job.size and self._waiting >= MOST_WAITING:
                raise Overloaded(
                    f"{self._waiting:,} observations wait to be written; nothing was stored",
                    help="send it again later",
                )
            self._line.append(job)
            self._waiting += job.size
            self._ready.notify()
        cancel_with_caller(job.future)
        with contextlib.suppress(FutureTimeout, CancelledError):
            return job.future.result(self._deadline)
        if job.future.cancel() or job.future.cancelled():
            check_caller()
            if self._closed:
                raise NotReady("the server is stopping; nothing was stored", help="send it again")
            raise DeadlinePassed(
                f"no turn to write within {self._deadline:g} s; nothing was stored",
                help="send it again, later or in fewer and larger requests",
            )
        try:  # it is being written: how that ends is worth waiting for
            return job.future.result(None if patient else self._deadline)
        except FutureTimeout:
            raise DeadlinePassed(
                f"not written within {2 * self._deadline:g} s; it may yet be",
                help="send it again: nothing is stored twice",
            ) from None

    def _loop(self) -> None:
        while True:
            with self._ready:
                while not (self._line or self._closed):
                    self._ready.wait()
                if self._closed:
                    return
                jobs = self._next()
            now = time.perf_counter()
            for late in (job for job in jobs if now > job.until):
                late.future.cancel()
            live = [job for job in jobs if job.future.set_running_or_notify_cancel()]
            if live:
                self._do(live)

    def _next(self) -> list[_Job]:
        """The first of the line, and those behind it that fit into the same transaction."""
        jobs = [self._line.popleft()]
        size = jobs[0].size
        while self._line and jobs[0].goes_with(self._line[0]):
            size += self._line[0].size
            if size > MOST_TOGETHER:
                break
            jobs.append(self._line.popleft())
        self._waiting -= sum(job.size for job in jobs)
        return jobs

    def _do(self, jobs: list[_Job]) -> None:
        """
        Write them together; of those that cannot be, each is told for itself.

        None was acknowledged yet, so they may be taken in any order.
        """
        alone: list[_Job] = []
        while len(jobs) > 1:
            sent = _merge(jobs)
            try:
                outcome = self.writer.write(sent)
            except Refused as refusal:
                bad = {int(pointer.partition("|")[0]) for pointer, _ in refusal.items}
                alone += [job for i, job in enumerate(jobs) if i in bad]
                jobs = [job for i, job in enumerate(jobs) if i not in bad]
                continue
            except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
                for job in jobs:
                    job.future.set_exception(error)
            else:
                for job, part in zip(jobs, _share(outcome, jobs), strict=True):
                    job.future.set_result(part)
            jobs = []
        for job in (*jobs, *alone):
            todo = job.todo
            _answer(
                job,
                functools.partial(self.writer.write, todo)
                if isinstance(todo, ObservationBatch)
                else todo,
            )


def _answer(job: _Job, work: Callable[[], Any]) -> None:
    try:
        job.future.set_result(work())
    except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
        job.future.set_exception(error)


def _merge(jobs: Sequence[_Job]) -> ObservationBatch:
    """All of them as one request, whose pointers begin with the number of the job."""
    parts = [job.todo for job in jobs if isinstance(job.todo, ObservationBatch)]
    starts = np.cumsum([0, *(len(part.names) for part in parts)])

    def pointer(item: int) -> str:
        job = int(np.searchsorted(starts, item, side="right")) - 1
        return f"{job}|{parts[job].pointer(item - int(starts[job]))}"

    return ObservationBatch(
        [name for part in parts for name in part.names],
        np.concatenate([part.ds for part in parts]),
        np.concatenate([part.y for part in parts]),
        np.concatenate([part.covariates for part in parts]),
        parts[0].columns,
        pointer,
    )


def _share(outcome: BatchResult, jobs: Sequence[_Job]) -> list[BatchResult]:
    """What became of each; a series or a gap belongs to the first that names it."""
    shares, start = [], 0
    created, fills = set(outcome.created), list(outcome.fills)
    for job in jobs:
        assert isinstance(job.todo, ObservationBatch)
        names = dict.fromkeys(job.todo.names)
        mine = tuple(name for name in names if name in created)
        filled = tuple(fill for fill in fills if fill[0] in names)
        created.difference_update(mine)
        fills = [fill for fill in fills if fill[0] not in names]
        shares.append(BatchResult(outcome.status[start : start + job.size], mine, filled))
        start += job.size
    return shares

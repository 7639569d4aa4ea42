"""
Write queue: requests that write to the log wait in it, and one thread serves them.

Observations that wait at the same time are written in one transaction (group commit) and computed
in one step. No request is acknowledged before its transaction is on the disk.
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

_MAX_TOGETHER = 100_000
"""Most observations that are merged into one transaction; a single request may have more."""
_MAX_WAITING = 1_000_000
"""Most observations that may wait; more are refused."""
_FIRST_PRUNED, _PRUNE_S = 64, 0.2
"""Series in the first part of a pruning, and the seconds that each later part should take."""


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    """Observations to write, or other work that needs the writer."""

    work: ObservationBatch | Callable[[], Any]
    future: Future[Any]
    deadline: float
    """Time by which it must have begun, on the clock of `time.perf_counter`."""

    @property
    def size(self) -> int:
        """Number of observations; 0 for other work."""
        return len(self.work.names) if isinstance(self.work, ObservationBatch) else 0

    def can_join(self, other: "_Job") -> bool:
        """Return whether both are observations with the same covariates."""
        mine, theirs = self.work, other.work
        if isinstance(mine, ObservationBatch) and isinstance(theirs, ObservationBatch):
            return mine.columns == theirs.columns
        return False


class WriteQueue:
    """
    Serializes all use of a writer on one thread, in the order of the calls.

    Every method that writes waits for its turn, and raises besides its own errors:

    * `DeadlinePassed` if the turn did not come within the deadline; nothing has changed then. Or if
      the write did not end within the deadline; it may still succeed.
    * `NotReady` if the server is stopping.

    Args:
        writer: Used on the thread of this queue only.
        deadline: Longest time that a request waits for its turn, in seconds.
    """

    def __init__(self, writer: Writer, deadline: float) -> None:
        self.writer = writer
        self._deadline = deadline
        self._jobs: deque[_Job] = deque()
        self._waiting = 0
        self._ready = threading.Condition()
        self._closed = False
        self._reading = SingleFlight(self._catch_up, deadline)
        self._thread = threading.Thread(target=self._loop, name="write queue", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Finish the job that runs and cancel those that wait."""
        with self._ready:
            self._closed = True
            dropped, self._jobs = self._jobs, deque()
            self._ready.notify()
        for job in dropped:
            job.future.cancel()
        self._thread.join()

    def record(self, batch: ObservationBatch) -> BatchResult:
        """
        Store a batch, all of it or nothing; it is on the disk when this returns.

        Raises:
            Refused: Some items cannot be stored.
            LogError: The log cannot be written. The batch may be stored nevertheless; it is safe
                to send it again.
            Overloaded: Too many observations wait already; nothing of the batch is stored.
        """
        result: BatchResult = self._submit(batch)
        return result

    def rebuild(self, name: str) -> None:
        """
        Replay one series from the log.

        Raises:
            UnknownSeries: The series is not in the log.
        """
        self._submit(lambda: self.writer.rebuild(name))

    def remove(self, name: str) -> int:
        """
        Delete a series and its state for good; return how many rows it had in the log.

        Raises:
            UnknownSeries: The series is not in the log.
        """
        rows: int = self._submit(lambda: self.writer.remove(name))
        return rows

    def prune(
        self,
        rule: RetentionRule,
        engines: Callable[[], Iterable[Engine]],
        on_progress: Callable[[int, int], None] = lambda done, total: None,
        *,
        seconds: float = _PRUNE_S,
    ) -> Pruned:
        """
        Remove older steps from the log, some series at a time.

        Args:
            rule: Says which steps are kept.
            engines: Returns the engines of all models that must be able to replay from what is
                kept; called for each part, because a rollout may change them.
            on_progress: Called after each part with the series done so far, and all of them.
            seconds: Time that one part should take, while other requests wait.

        Raises:
            LogError: The log cannot be written; what was removed before stays removed.
        """
        with self.writer.log.read() as transaction:
            numbers = list(transaction.names())
        pruned, done, size = Pruned(), 0, _FIRST_PRUNED
        while done < len(numbers):
            start, part = time.perf_counter(), numbers[done : done + size]
            pruned += self._submit(functools.partial(self._prune_part, part, rule, engines))
            done += len(part)
            size = next_part_size(size, time.perf_counter() - start, seconds, TOGETHER)
            on_progress(done, len(numbers))
        return pruned

    def hand_over(self, writer: Writer, then: Callable[[], None]) -> None:
        """
        Replace the writer by that of another model, once that one has caught up with the log.

        If this raises, nothing has changed.

        Args:
            writer: Writer of the other model.
            then: Called in the same step, before the next job.

        Raises:
            LogError: The log cannot be read.
        """

        def work() -> None:
            writer.catch_up()
            self.writer = writer
            then()

        self._submit(work, patient=True)

    def need(self, names: Sequence[str]) -> None:
        """Replay those of the series that still wait for it, before the others that wait."""
        waiting = self.writer.waiting
        names = [name for name in names if name in waiting] if waiting else []
        if names:
            self._submit(lambda: self.writer.replay(names))

    def put_in_place(self, replay: Replay) -> None:
        """
        Make replayed series live.

        Raises:
            LogError: The log cannot be read; series that are not live yet go on waiting.
        """
        writer = self.writer
        self._submit(lambda: writer.put_in_place(replay))

    def catch_up(self) -> None:
        """
        Apply what other processes have written so far; an SQLite file has no other writer.

        Callers that ask at the same time share one read of the log, which begins after they asked.

        Raises:
            LogError: The log cannot be read.
        """
        if self.writer.log.shared:
            self._reading.join()

    @property
    def cut_off(self) -> ForecastError | None:
        """The error of the last read of a shared log; None if it succeeded."""
        failure = self._reading.failure
        if failure is None or isinstance(failure, ForecastError):
            return failure
        return ForecastError("the last read of the log failed; see the server's log")

    def _catch_up(self) -> None:
        with self.writer.log.read() as transaction:
            behind = is_behind(self.writer.engine, self.writer.log, transaction)
        if behind:
            self._submit(lambda: self.writer.catch_up())

    def _prune_part(
        self, numbers: Sequence[int], rule: RetentionRule, engines: Callable[[], Iterable[Engine]]
    ) -> Pruned:
        return self.writer.prune(numbers, rule, engines())

    def _submit(self, work: ObservationBatch | Callable[[], Any], *, patient: bool = False) -> Any:
        """
        Put a job into the queue and return its result.

        Args:
            work: The job.
            patient: Once the job has begun, wait for its end however long that takes.

        Raises:
            Overloaded, DeadlinePassed, NotReady: The job did not run in time, or not at all.
        """
        job = _Job(work, Future(), time.perf_counter() + self._deadline)
        with self._ready:
            if self._closed:
                raise NotReady("the server is stopping", help="send it again later")
            if job.size and self._waiting >= _MAX_WAITING:
                raise Overloaded(
                    f"{self._waiting:,} observations wait to be written; nothing was stored",
                    help="send it again later",
                )
            self._jobs.append(job)
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
                f"the write did not begin within {self._deadline:g} s; nothing was stored",
                help="send it again, later or in fewer and larger requests",
            )
        try:  # The job runs: its outcome is worth waiting for.
            return job.future.result(None if patient else self._deadline)
        except FutureTimeout:
            raise DeadlinePassed(
                f"the write did not end within {2 * self._deadline:g} s; it may still succeed",
                help="send it again: nothing is stored twice",
            ) from None

    def _loop(self) -> None:
        while True:
            with self._ready:
                while not (self._jobs or self._closed):
                    self._ready.wait()
                if self._closed:
                    return
                jobs = self._next()
            now = time.perf_counter()
            for late in (job for job in jobs if now > job.deadline):
                late.future.cancel()
            jobs = [job for job in jobs if job.future.set_running_or_notify_cancel()]
            if jobs:
                self._run(jobs)

    def _next(self) -> list[_Job]:
        """Take the first job, and those right behind it that fit into the same transaction."""
        jobs = [self._jobs.popleft()]
        size = jobs[0].size
        while self._jobs and jobs[0].can_join(self._jobs[0]):
            size += self._jobs[0].size
            if size > _MAX_TOGETHER:
                break
            jobs.append(self._jobs.popleft())
        self._waiting -= sum(job.size for job in jobs)
        return jobs

    def _run(self, jobs: list[_Job]) -> None:
        """
        Write jobs in one transaction; jobs with refused items are written one by one afterwards.

        No job is acknowledged yet, so they may be written in any order.
        """
        alone: list[_Job] = []
        while len(jobs) > 1:
            try:
                result = self.writer.write(_merge(jobs))
            except Refused as refusal:
                refused = {int(pointer.partition("|")[0]) for pointer, _ in refusal.items}
                alone += [job for i, job in enumerate(jobs) if i in refused]
                jobs = [job for i, job in enumerate(jobs) if i not in refused]
                continue
            except BaseException as error:  # noqa: BLE001 - raised by `_submit` for each caller
                for job in jobs:
                    job.future.set_exception(error)
            else:
                for job, part in zip(jobs, _split(result, jobs), strict=True):
                    job.future.set_result(part)
            jobs = []
        for job in (*jobs, *alone):
            self._run_alone(job)

    def _run_alone(self, job: _Job) -> None:
        work = job.work
        try:
            result = self.writer.write(work) if isinstance(work, ObservationBatch) else work()
        except BaseException as error:  # noqa: BLE001 - raised by `_submit` for the caller
            job.future.set_exception(error)
        else:
            job.future.set_result(result)


def _merge(jobs: Sequence[_Job]) -> ObservationBatch:
    """Concatenate the batches of jobs; pointers begin with the index of the job and `|`."""
    parts = [job.work for job in jobs if isinstance(job.work, ObservationBatch)]
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


def _split(result: BatchResult, jobs: Sequence[_Job]) -> list[BatchResult]:
    """Return the result of each job; new series and gaps go to the first job that names them."""
    parts, start = [], 0
    created, fills = set(result.created), list(result.fills)
    for job in jobs:
        assert isinstance(job.work, ObservationBatch)
        names = dict.fromkeys(job.work.names)
        own_created = tuple(name for name in names if name in created)
        own_fills = tuple(fill for fill in fills if fill[0] in names)
        created.difference_update(own_created)
        fills = [fill for fill in fills if fill[0] not in names]
        status = result.status[start : start + job.size]
        parts.append(BatchResult(status, own_created, own_fills))
        start += job.size
    return parts

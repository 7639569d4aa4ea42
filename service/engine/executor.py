"""
The compute thread: the only thread that runs the network or touches live states.

Requests of one kind that wait at the same time are computed in one call, because a batched step
costs hardly more than a step of one series. Requests of users go before background work.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from forecast.device import usable_cores
from service.engine.cancellation import cancel_with_caller, check_caller
from service.errors import DeadlinePassed, NotReady, Overloaded
from service.metrics import Metrics

Item = TypeVar("Item")
T = TypeVar("T")
_MOST_THREADS = 8
"""More threads would wait for the GIL between two matrix products."""


def usual_threads() -> int:
    """Return the number of cores that this process may use, at most eight."""
    return min(usable_cores(), _MOST_THREADS)


def make_pool(name: str) -> ThreadPoolExecutor:
    """Return a pool of `usual_threads` threads, each of which computes with one core."""
    return ThreadPoolExecutor(usual_threads(), name, torch.set_num_threads, (1,))


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    work: Callable[[], Any]
    future: Future[Any]
    submitted: float
    """Time of `perf_counter` at which it was submitted."""
    deadline: float
    """Time of `perf_counter` after which nobody waits for it any more."""


@dataclass(frozen=True, slots=True)
class _Batch:
    """Waiting requests of one kind, which will be computed in one call."""

    work: Callable[[list[Any]], Sequence[Any]]
    jobs: list[tuple[Any, _Job]]


class BatchingExecutor:
    """
    Runs work on one thread from two queues: requests, and background work.

    A call with many series may share its blocks out to `pool` and wait for them.

    Args:
        deadline: Longest time that a request waits before it begins, in seconds.
        most: Largest number of waiting requests; others are refused.
        metrics: Where waiting and computing times are recorded.
        spare_s: Longest time that background work waits while requests keep coming, in seconds.
    """

    def __init__(
        self, deadline: float, most: int, metrics: Metrics, *, spare_s: float = 1.0
    ) -> None:
        self._deadline = deadline
        self._most = most
        self._spare_s = spare_s
        self._metrics = metrics
        self._requests: deque[_Job | Hashable] = deque()
        self._background: deque[_Job] = deque()
        self._batches: dict[Hashable, _Batch] = {}
        self._ready = threading.Condition()
        self._closed = False
        self.pool = make_pool("blocks")
        self._thread = threading.Thread(target=self._loop, name="compute", daemon=True)
        self._thread.start()

    def run(self, work: Callable[[], T], *, patient: bool = False) -> T:
        """
        Run `work` after the requests before it and return its result.

        Args:
            work: What to run.
            patient: Whether to wait without a deadline and whatever the length of the queue.

        Raises:
            DeadlinePassed: It had not begun by the deadline.
            Overloaded: Too many requests are waiting.
        """
        result: T = self._wait(self._submit(work, patient=patient), patient=patient)
        return result

    def begin(self, work: Callable[[], T]) -> Callable[[], T]:
        """Submit patient work and return a function that waits for its result."""
        job = self._submit(work, patient=True)
        return lambda: self._wait(job, patient=True)

    def _submit(self, work: Callable[[], Any], *, patient: bool) -> _Job:
        job = self._job(work, patient=patient)
        with self._ready:
            self._admit(patient=patient)
            self._requests.append(job)
            self._ready.notify()
        return job

    def run_batched(
        self, kind: Hashable, item: Item, work: Callable[[list[Item]], Sequence[T]]
    ) -> T:
        """
        Run `work` once for all waiting items of the same kind and return the result of this one.

        If the call fails for several items, each is tried alone, so that none fails for another.

        Args:
            kind: Items of equal kinds may be computed together.
            item: The item of this request.
            work: Returns one result for each item of a list.

        Raises:
            DeadlinePassed: It had not begun by the deadline.
            Overloaded: Too many requests are waiting.
        """
        job = self._job(lambda: work([item])[0], patient=False)
        with self._ready:
            self._admit(patient=False)
            batch = self._batches.get(kind)
            if batch is None:
                self._batches[kind] = batch = _Batch(work, [])
                self._requests.append(kind)
                self._ready.notify()
            batch.jobs.append((item, job))
        result: T = self._wait(job, patient=False)
        return result

    def run_idle(self, work: Callable[[], T]) -> T:
        """Run background work when no request waits, or next once it has waited `spare_s`."""
        job = self._job(work, patient=True)
        with self._ready:
            self._admit(patient=True)
            self._background.append(job)
            self._ready.notify()
        result: T = self._wait(job, patient=True)
        return result

    def close(self) -> None:
        """Finish the work that runs and drop the work that waits."""
        with self._ready:
            self._closed = True
            waiting = [job for job in (*self._requests, *self._background) if isinstance(job, _Job)]
            waiting += [job for batch in self._batches.values() for _, job in batch.jobs]
            self._requests.clear()
            self._background.clear()
            self._batches.clear()
            self._ready.notify()
        for job in waiting:
            job.future.cancel()
        self._thread.join()
        self.pool.shutdown()

    def _job(self, work: Callable[[], Any], *, patient: bool) -> _Job:
        now = time.perf_counter()
        return _Job(work, Future(), now, float("inf") if patient else now + self._deadline)

    def _admit(self, *, patient: bool) -> None:
        if self._closed:
            raise NotReady("the server is stopping", help="try again")
        waiting = len(self._requests) + sum(len(batch.jobs) for batch in self._batches.values())
        if waiting >= self._most and not patient:
            raise Overloaded(f"{waiting} requests are waiting for the network", help="try again")

    def _wait(self, job: _Job, *, patient: bool) -> Any:
        with self._metrics.pending.track_inprogress():
            if not patient:
                cancel_with_caller(job.future)
            try:
                return job.future.result(None if patient else self._deadline)
            except (
                CancelledError
            ):  # The client has left, the deadline has passed, or the server stops.
                check_caller()
            except FutureTimeout:
                if not job.future.cancel() and job.future.done():
                    return job.future.result()
            if self._closed:
                raise NotReady("the server is stopping", help="try again")
            raise DeadlinePassed(
                f"no answer within {self._deadline:g} s", help="ask for fewer series, or later"
            )

    def _loop(self) -> None:
        torch.set_num_threads(1)
        while True:
            with self._ready:
                while not (self._requests or self._background or self._closed):
                    self._ready.wait()
                if self._closed:
                    return
                job = self._next()
                batch = None if isinstance(job, _Job) else self._batches.pop(job)
            if batch is not None:
                self._do_batch(batch)
            elif isinstance(job, _Job) and self._starts(job):
                self._do(job)

    def _next(self) -> "_Job | Hashable":
        now, background = time.perf_counter(), self._background
        if background and (not self._requests or now - background[0].submitted > self._spare_s):
            return background.popleft()
        return self._requests.popleft()

    def _starts(self, job: _Job) -> bool:
        """Whether somebody still waits for the job; it then cannot be cancelled any more."""
        now = time.perf_counter()
        if now > job.deadline:
            job.future.cancel()
        if not job.future.set_running_or_notify_cancel():
            return False
        self._metrics.queue_seconds.observe(now - job.submitted)
        return True

    def _do(self, job: _Job) -> None:
        start = time.perf_counter()
        try:
            job.future.set_result(job.work())
        except BaseException as error:  # noqa: BLE001 - raised by the waiting thread
            job.future.set_exception(error)
        finally:
            self._metrics.compute_seconds.observe(time.perf_counter() - start)

    def _do_batch(self, batch: _Batch) -> None:
        live = [(item, job) for item, job in batch.jobs if self._starts(job)]
        if len(live) == 1:
            self._do(live[0][1])
        if len(live) < 2:
            return
        start = time.perf_counter()
        try:
            results = batch.work([item for item, _ in live])
        except Exception:  # noqa: BLE001 - each job raises its own
            for _, job in live:
                self._do(job)
            return
        finally:
            self._metrics.compute_seconds.observe(time.perf_counter() - start)
        for (_, job), result in zip(live, results, strict=True):
            job.future.set_result(result)

"""
The one thread for everything that touches the network or the live states.

Requests that wait for it at the same time are computed together: one batched step costs hardly
more than a step of one series. What a user waits for goes before what runs in the background.
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
"""More would wait for the interpreter, which runs what is between two products one at a time."""


def usual_threads() -> int:
    """One for each core that this process may use, up to eight."""
    return min(usable_cores(), _MOST_THREADS)


def make_pool(name: str) -> ThreadPoolExecutor:
    """So many threads, each of which multiplies matrices alone."""
    return ThreadPoolExecutor(usual_threads(), name, torch.set_num_threads, (1,))


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    work: Callable[[], Any]
    future: Future[Any]
    asked: float
    until: float
    """A time after which nobody waits for it any more."""


@dataclass(frozen=True, slots=True)
class _Batch:
    """Requests of one kind that will be computed in one call."""

    work: Callable[[list[Any]], Sequence[Any]]
    jobs: list[tuple[Any, _Job]]


class BatchingExecutor:
    """
    One thread, two queues: what is asked for, and what can wait.

    A call with many series may share its blocks out to `pool` while it waits for them.

    Args:
        deadline: Seconds after which a request that has not begun is dropped.
        most: Requests that may wait; more are refused.
        metrics: Where waiting and working times go.
        spare_s: Seconds that the background waits while others never cease to ask.
    """

    def __init__(
        self, deadline: float, most: int, metrics: Metrics, *, spare_s: float = 1.0
    ) -> None:
        self._deadline = deadline
        self._most = most
        self._spare_s = spare_s
        self._metrics = metrics
        self._asked: deque[_Job | Hashable] = deque()
        self._spare: deque[_Job] = deque()
        self._crowds: dict[Hashable, _Batch] = {}
        self._ready = threading.Condition()
        self._closed = False
        self.pool = make_pool("blocks")
        self._thread = threading.Thread(target=self._loop, name="compute", daemon=True)
        self._thread.start()

    def run(self, work: Callable[[], T], *, patient: bool = False) -> T:
        """
        Do it after what was asked before.

        Raises:
            DeadlinePassed: It had not begun in time; `patient` work has all the time it needs.
            Overloaded: Too much waits already.
        """
        done: T = self._wait(self._ask(work, patient=patient), patient=patient)
        return done

    def begin(self, work: Callable[[], T]) -> Callable[[], T]:
        """As `run` does patient work, but whoever calls what is returned waits for it."""
        job = self._ask(work, patient=True)
        return lambda: self._wait(job, patient=True)

    def _ask(self, work: Callable[[], Any], *, patient: bool) -> _Job:
        job = self._job(work, patient=patient)
        with self._ready:
            self._admit(patient=patient)
            self._asked.append(job)
            self._ready.notify()
        return job

    def run_batched(
        self, kind: Hashable, item: Item, work: Callable[[list[Item]], Sequence[T]]
    ) -> T:
        """
        Do it with all items of the same kind that wait by then, in one call of `work`.

        Where the call fails for several, each is tried alone, so that none fails for another.

        Raises:
            DeadlinePassed, Overloaded: As `run` does; or whatever `work` raises.
        """
        job = self._job(lambda: work([item])[0], patient=False)
        with self._ready:
            self._admit(patient=False)
            crowd = self._crowds.get(kind)
            if crowd is None:
                self._crowds[kind] = crowd = _Batch(work, [])
                self._asked.append(kind)
                self._ready.notify()
            crowd.jobs.append((item, job))
        done: T = self._wait(job, patient=False)
        return done

    def run_idle(self, work: Callable[[], T]) -> T:
        """Do it when nothing else waits, or first of all once it has waited long."""
        job = self._job(work, patient=True)
        with self._ready:
            self._admit(patient=True)
            self._spare.append(job)
            self._ready.notify()
        done: T = self._wait(job, patient=True)
        return done

    def close(self) -> None:
        """Finish what runs, drop what waits."""
        with self._ready:
            self._closed = True
            waiting = [job for job in (*self._asked, *self._spare) if isinstance(job, _Job)]
            waiting += [job for crowd in self._crowds.values() for _, job in crowd.jobs]
            self._asked.clear()
            self._spare.clear()
            self._crowds.clear()
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
        waiting = len(self._asked) + sum(len(crowd.jobs) for crowd in self._crowds.values())
        if waiting >= self._most and not patient:
            raise Overloaded(f"{waiting} requests wait for the network already", help="try again")

    def _wait(self, job: _Job, *, patient: bool) -> Any:
        with self._metrics.pending.track_inprogress():
            if not patient:
                cancel_with_caller(job.future)
            try:
                return job.future.result(None if patient else self._deadline)
            except CancelledError:  # nobody waits or was thought to, or the server stops
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
                while not (self._asked or self._spare or self._closed):
                    self._ready.wait()
                if self._closed:
                    return
                job = self._next()
                crowd = None if isinstance(job, _Job) else self._crowds.pop(job)
            if crowd is not None:
                self._do_together(crowd)
            elif isinstance(job, _Job) and self._begins(job):
                self._do(job)

    def _next(self) -> "_Job | Hashable":
        now, spare = time.perf_counter(), self._spare
        if spare and (not self._asked or now - spare[0].asked > self._spare_s):
            return spare.popleft()
        return self._asked.popleft()

    def _begins(self, job: _Job) -> bool:
        """Whether anybody still waits for it; it cannot be cancelled any more if so."""
        now = time.perf_counter()
        if now > job.until:
            job.future.cancel()
        if not job.future.set_running_or_notify_cancel():
            return False
        self._metrics.queue_seconds.observe(now - job.asked)
        return True

    def _do(self, job: _Job) -> None:
        begun = time.perf_counter()
        try:
            job.future.set_result(job.work())
        except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
            job.future.set_exception(error)
        finally:
            self._metrics.compute_seconds.observe(time.perf_counter() - begun)

    def _do_together(self, crowd: _Batch) -> None:
        live = [(item, job) for item, job in crowd.jobs if self._begins(job)]
        if len(live) == 1:
            self._do(live[0][1])
        if len(live) < 2:
            return
        begun = time.perf_counter()
        try:
            results = crowd.work([item for item, _ in live])
        except Exception:  # noqa: BLE001 - each is told its own
            for _, job in live:
                self._do(job)
            return
        finally:
            self._metrics.compute_seconds.observe(time.perf_counter() - begun)
        for (_, job), result in zip(live, results, strict=True):
            job.future.set_result(result)

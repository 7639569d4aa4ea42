"""The compute thread batches queued jobs, isolates failures and bounds its queue."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from benchmarks.speed.servers import wait_until
from service.engine.executor import BatchingExecutor
from service.errors import DeadlinePassed, NotReady, Overloaded
from service.metrics import Metrics


class Bench:
    """An executor with its compute thread, and threads that call it."""

    def __init__(self, deadline: float, most: int, spare_s: float = 60.0) -> None:
        self.metrics = Metrics()
        self.executor = BatchingExecutor(deadline, most, self.metrics, spare_s=spare_s)
        self._callers = ThreadPoolExecutor(20)

    def call(self, work: Callable[[], Any]) -> Future[Any]:
        """Run `work` in a thread of its own, and return once its job is queued or done."""
        before = self.pending
        future = self._callers.submit(work)
        wait_until(lambda: self.pending, lambda jobs: jobs > before or future.done())
        return future

    @property
    def pending(self) -> float:
        """Number of jobs that are queued or running."""
        return self.metrics.registry.get_sample_value("statecast_pending_requests") or 0.0

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Keep the compute thread busy until the block ends."""
        started, release = threading.Event(), threading.Event()

        def work() -> None:
            started.set()
            release.wait(30)

        future = self.call(lambda: self.executor.run(work, patient=True))
        started.wait(30)
        try:
            yield
        finally:
            release.set()
            future.result(30)

    def close(self) -> None:
        """Stop the compute thread and the calling threads."""
        self.executor.close()
        self._callers.shutdown()


@pytest.fixture
def bench(request) -> Iterator[Bench]:
    """Yield a bench; indirect parameters set its deadline, queue limit and idle wait."""
    bench = Bench(*getattr(request, "param", (30.0, 100)))
    yield bench
    bench.close()


def test_queued_jobs_of_one_kind_run_in_one_call(bench):
    """Each kind has a batch of its own, in the order of the calls."""
    calls: list[list[int]] = []

    def double(items: list[int]) -> list[int]:
        calls.append(items)
        return [2 * item for item in items]

    with bench.busy():
        futures = [
            bench.call(lambda i=i: bench.executor.run_batched(("even", "odd")[i % 2], i, double))
            for i in range(6)
        ]

    assert [future.result(30) for future in futures] == [0, 2, 4, 6, 8, 10]
    assert calls == [[0, 2, 4], [1, 3, 5]]


def test_a_failed_job_does_not_fail_its_batch(bench):
    """The other jobs of the same batch have their results."""

    def invert(items: list[int]) -> list[float]:
        return [1 / item for item in items]

    with bench.busy():
        futures = [
            bench.call(lambda i=i: bench.executor.run_batched("inverse", i, invert))
            for i in range(3)
        ]

    assert [future.result(30) for future in futures[1:]] == [1, 0.5]
    with pytest.raises(ZeroDivisionError):
        futures[0].result(30)


def test_idle_jobs_run_after_requests(bench):
    """A request overtakes an idle job that was queued before it."""
    done: list[str] = []
    with bench.busy():
        futures = [
            bench.call(lambda: bench.executor.run_idle(lambda: done.append("idle"))),
            bench.call(lambda: bench.executor.run(lambda: done.append("request"))),
        ]
    for future in futures:
        future.result(30)

    assert done == ["request", "idle"]


@pytest.mark.parametrize("bench", [(30.0, 100, 0.0)], indirect=True)
def test_idle_jobs_do_not_wait_for_ever(bench):
    """Once it has waited for `spare_s`, an idle job runs before requests."""
    done: list[str] = []
    with bench.busy():
        futures = [
            bench.call(lambda: bench.executor.run(lambda: done.append("request"))),
            bench.call(lambda: bench.executor.run_idle(lambda: done.append("idle"))),
        ]
    for future in futures:
        future.result(30)

    assert done == ["idle", "request"]


@pytest.mark.parametrize("bench", [(0.05, 100)], indirect=True)
def test_a_job_past_its_deadline_is_never_run(bench):
    """The caller gets `DeadlinePassed`, and the job is dropped from the queue."""
    done: list[str] = []
    with bench.busy():
        alone = bench.call(lambda: bench.executor.run(lambda: done.append("alone")))
        batched = bench.call(
            lambda: bench.executor.run_batched("kind", 1, lambda items: done.append(""))
        )
        for late in (alone, batched):
            with pytest.raises(DeadlinePassed, match="no answer within"):
                late.result(30)

    bench.executor.run(lambda: done.append("later"), patient=True)
    assert done == ["later"]


@pytest.mark.parametrize("bench", [(30.0, 2)], indirect=True)
def test_the_queue_is_bounded(bench):
    """One more job is refused at once, unless it is marked as patient."""
    with bench.busy():
        futures = [bench.call(lambda: bench.executor.run(lambda: 1)) for _ in range(2)]
        with pytest.raises(Overloaded):
            bench.executor.run(lambda: 1)
        patient = bench.call(lambda: bench.executor.run(lambda: 2, patient=True))

    assert [future.result(30) for future in (*futures, patient)] == [1, 1, 2]


def test_closing_refuses_queued_and_later_jobs(bench):
    """The running job finishes; queued and later jobs get `NotReady`."""
    with bench.busy():
        queued = bench.call(lambda: bench.executor.run(lambda: 1))
        closing = threading.Thread(target=bench.executor.close)
        closing.start()
        with pytest.raises(NotReady, match="stopping"):
            queued.result(30)
    closing.join(30)

    with pytest.raises(NotReady, match="stopping"):
        bench.executor.run(lambda: 1)

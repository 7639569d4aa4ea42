"""The thread that computes: what waits together is done together, and nobody pays for another."""

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
    """A compute thread, and callers that wait for it."""

    def __init__(self, deadline: float, most: int, spare_s: float = 60.0) -> None:
        self.metrics = Metrics()
        self.executor = BatchingExecutor(deadline, most, self.metrics, spare_s=spare_s)
        self._callers = ThreadPoolExecutor(20)

    def call(self, work: Callable[[], Any]) -> Future[Any]:
        """From a thread of its own; it is in the line when this returns."""
        before = self.waiting
        future = self._callers.submit(work)
        wait_until(lambda: self.waiting, lambda now: now > before or future.done())
        return future

    @property
    def waiting(self) -> float:
        """Jobs in the line or being done."""
        return self.metrics.registry.get_sample_value("statecast_pending_requests") or 0.0

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Something long runs on the thread meanwhile."""
        begun, end = threading.Event(), threading.Event()

        def work() -> None:
            begun.set()
            end.wait(30)

        future = self.call(lambda: self.executor.run(work, patient=True))
        begun.wait(30)
        try:
            yield
        finally:
            end.set()
            future.result(30)

    def close(self) -> None:
        """Stop the thread and the callers."""
        self.executor.close()
        self._callers.shutdown()


@pytest.fixture
def bench(request) -> Iterator[Bench]:
    """With a deadline and a longest line, if the test says so."""
    made = Bench(*getattr(request, "param", (30.0, 100)))
    yield made
    made.close()


def test_what_waits_together_is_done_in_one_call(bench):
    """Each kind by itself, in the order asked for."""
    calls: list[list[int]] = []

    def double(items: list[int]) -> list[int]:
        calls.append(items)
        return [2 * item for item in items]

    with bench.busy():
        asked = [
            bench.call(lambda i=i: bench.executor.run_batched(("even", "odd")[i % 2], i, double))
            for i in range(6)
        ]

    assert [one.result(30) for one in asked] == [0, 2, 4, 6, 8, 10]
    assert calls == [[0, 2, 4], [1, 3, 5]]


def test_one_request_that_fails_fails_for_itself(bench):
    """The others of the same call have their answers."""

    def invert(items: list[int]) -> list[float]:
        return [1 / item for item in items]

    with bench.busy():
        asked = [
            bench.call(lambda i=i: bench.executor.run_batched("inverse", i, invert))
            for i in range(3)
        ]

    assert [one.result(30) for one in asked[1:]] == [1, 0.5]
    with pytest.raises(ZeroDivisionError):
        asked[0].result(30)


def test_the_background_waits_for_whoever_is_waited_for(bench):
    """Whatever came first."""
    done: list[str] = []
    with bench.busy():
        asked = [
            bench.call(lambda: bench.executor.run_idle(lambda: done.append("background"))),
            bench.call(lambda: bench.executor.run(lambda: done.append("asked"))),
        ]
    for one in asked:
        one.result(30)

    assert done == ["asked", "background"]


@pytest.mark.parametrize("bench", [(30.0, 100, 0.0)], indirect=True)
def test_the_background_does_not_wait_for_ever(bench):
    """Its time is over, and others are still asking."""
    done: list[str] = []
    with bench.busy():
        asked = [
            bench.call(lambda: bench.executor.run(lambda: done.append("asked"))),
            bench.call(lambda: bench.executor.run_idle(lambda: done.append("background"))),
        ]
    for one in asked:
        one.result(30)

    assert done == ["background", "asked"]


@pytest.mark.parametrize("bench", [(0.05, 100)], indirect=True)
def test_what_nobody_waits_for_any_more_costs_nothing(bench):
    """Its deadline passed in the line: it is never computed."""
    done: list[str] = []
    with bench.busy():
        alone = bench.call(lambda: bench.executor.run(lambda: done.append("alone")))
        crowd = bench.call(
            lambda: bench.executor.run_batched("kind", 1, lambda items: done.append(""))
        )
        for late in (alone, crowd):
            with pytest.raises(DeadlinePassed, match="no answer within"):
                late.result(30)

    bench.executor.run(lambda: done.append("later"), patient=True)
    assert done == ["later"]


@pytest.mark.parametrize("bench", [(30.0, 2)], indirect=True)
def test_the_line_is_bounded(bench):
    """One more is refused at once; what must be done anyway is not."""
    with bench.busy():
        asked = [bench.call(lambda: bench.executor.run(lambda: 1)) for _ in range(2)]
        with pytest.raises(Overloaded):
            bench.executor.run(lambda: 1)
        patient = bench.call(lambda: bench.executor.run(lambda: 2, patient=True))

    assert [one.result(30) for one in (*asked, patient)] == [1, 1, 2]


def test_a_stop_tells_those_who_wait(bench):
    """What runs is finished, what waits is dropped, what comes later is refused."""
    with bench.busy():
        waiting = bench.call(lambda: bench.executor.run(lambda: 1))
        closing = threading.Thread(target=bench.executor.close)
        closing.start()
        with pytest.raises(NotReady, match="stopping"):
            waiting.result(30)
    closing.join(30)

    with pytest.raises(NotReady, match="stopping"):
        bench.executor.run(lambda: 1)

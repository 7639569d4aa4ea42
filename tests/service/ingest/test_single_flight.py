"""Requests that ask at the same time whether others have written share one look at the log."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa

from benchmarks.speed.servers import wait_until
from service.errors import DeadlinePassed
from service.ingest.single_flight import SingleFlight
from service.ingest.write_queue import WriteQueue
from tests.helpers.hosts import Host

CALLERS = 32


class Heads:
    """Counts the looks at the head of a log, and holds the first after it has seen it."""

    def __init__(self) -> None:
        self.count = 0
        self.seen, self.release = threading.Event(), threading.Event()

    def __call__(self, connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if "FROM head" in statement:
            self.count += 1
            if self.count == 1:
                self.seen.set()
                assert self.release.wait(30)


@contextmanager
def watched(host: Host) -> Iterator[Heads]:
    """The looks of one server."""
    heads = Heads()
    engine = host.log._engine
    sa.event.listen(engine, "after_cursor_execute", heads)
    try:
        yield heads
    finally:
        heads.release.set()
        sa.event.remove(engine, "after_cursor_execute", heads)


def test_requests_share_a_look_that_began_after_they_asked(hosts, monthly):
    """However many ask while one looks: one more look, and all see what was written by then."""
    here, elsewhere = hosts
    name = monthly["unique_id"].iloc[0]
    write_queue = WriteQueue(here.writer, 30.0)
    batch = here.engine.batch

    with watched(here) as heads, ThreadPoolExecutor(CALLERS + 1) as callers:
        early = callers.submit(write_queue.catch_up)
        assert heads.seen.wait(30)  # it has seen the log as it is now
        elsewhere.observe(name, "2019-01-01", 300.0)

        def read() -> int:
            write_queue.catch_up()
            return here.engine.batch

        late = [callers.submit(read) for _ in range(CALLERS)]
        wait_until(lambda: waiting(write_queue), lambda count: count == CALLERS)
        heads.release.set()
        early.result(30)
        seen = {one.result(30) for one in late}
        looks = heads.count

    write_queue.close()
    assert seen == {batch + 1}
    assert looks <= 1 + 2  # one held, one for all, and that of the writer who takes in what came


def waiting(write_queue: WriteQueue) -> int:
    """Callers in the look that is to come: those who wait for its future, and the first of them."""
    run = write_queue._looking._next
    return 0 if run is None else 1 + len(run._waiters)


def test_one_after_the_other_each_looks_anew(hosts, monthly):
    """Nothing of an earlier look is kept."""
    here, elsewhere = hosts
    write_queue = WriteQueue(here.writer, 30.0)
    for number, name in enumerate(monthly["unique_id"].unique(), start=1):
        before = here.engine.batch
        elsewhere.observe(name, "2019-01-01", 300.0 + number)

        write_queue.catch_up()

        assert here.engine.batch == before + 1
    write_queue.close()


def test_what_went_wrong_is_told_to_all_and_not_kept():
    """The next look is another one."""
    problems = [OSError("away")]

    def work() -> None:
        if problems:
            raise problems.pop()

    shared = SingleFlight(work, 30.0)
    with pytest.raises(OSError, match="away"):
        shared.join()
    shared.join()


def test_nobody_waits_for_ever():
    """A look that hangs lets go of the others at their deadline."""
    begun, end = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        end.wait(30)

    shared = SingleFlight(work, 0.05)
    with ThreadPoolExecutor(3) as callers:
        hanging = callers.submit(shared.join)
        assert begun.wait(30)
        others = [callers.submit(shared.join) for _ in range(2)]
        for one in others:
            assert isinstance(one.exception(30), DeadlinePassed)
        end.set()
        hanging.result(30)
    shared.join()

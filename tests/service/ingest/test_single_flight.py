"""Requests that check for writes of other processes at the same time share one read of the log."""

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


class HeadReads:
    """Counts reads of the head of a log, and holds the first one after it has read it."""

    def __init__(self) -> None:
        self.count = 0
        self.has_read, self.release = threading.Event(), threading.Event()

    def __call__(self, connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if "FROM head" in statement:
            self.count += 1
            if self.count == 1:
                self.has_read.set()
                assert self.release.wait(30)


@contextmanager
def watch_reads(host: Host) -> Iterator[HeadReads]:
    """Watch the reads of one server."""
    reads = HeadReads()
    engine = host.log._engine
    sa.event.listen(engine, "after_cursor_execute", reads)
    try:
        yield reads
    finally:
        reads.release.set()
        sa.event.remove(engine, "after_cursor_execute", reads)


def test_requests_share_a_read_that_began_after_they_asked(hosts, monthly):
    """All who ask during a read share one more, and see what was written before they asked."""
    here, elsewhere = hosts
    name = monthly["unique_id"].iloc[0]
    write_queue = WriteQueue(here.writer, 30.0)
    batch = here.engine.batch

    with watch_reads(here) as reads, ThreadPoolExecutor(CALLERS + 1) as callers:
        early = callers.submit(write_queue.catch_up)
        assert reads.has_read.wait(30)
        elsewhere.observe(name, "2019-01-01", 300.0)

        def catch_up() -> int:
            write_queue.catch_up()
            return here.engine.batch

        late = [callers.submit(catch_up) for _ in range(CALLERS)]
        wait_until(lambda: count_waiting(write_queue), lambda count: count == CALLERS)
        reads.release.set()
        early.result(30)
        batches = {one.result(30) for one in late}
        count = reads.count

    write_queue.close()
    assert batches == {batch + 1}
    assert count <= 1 + 2  # The held one, the shared one, and the writer's that applies the batch.


def count_waiting(write_queue: WriteQueue) -> int:
    """Count the callers of the next read: those who wait for its future, and the first caller."""
    run = write_queue._reading._next
    return 0 if run is None else 1 + len(run._waiters)


def test_each_of_successive_requests_reads_the_log(hosts, monthly):
    """The result of an earlier read is not reused."""
    here, elsewhere = hosts
    write_queue = WriteQueue(here.writer, 30.0)
    for number, name in enumerate(monthly["unique_id"].unique(), start=1):
        before = here.engine.batch
        elsewhere.observe(name, "2019-01-01", 300.0 + number)

        write_queue.catch_up()

        assert here.engine.batch == before + 1
    write_queue.close()


def test_a_failure_is_raised_and_the_next_run_starts_afresh():
    """`join` raises the exception of its run only."""
    failures = [OSError("away")]

    def work() -> None:
        if failures:
            raise failures.pop()

    flight = SingleFlight(work, 30.0)
    with pytest.raises(OSError, match="away"):
        flight.join()
    flight.join()


def test_nobody_waits_longer_than_the_deadline():
    """While a run hangs, the callers of the next one give up at their deadline."""
    begun, end = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        end.wait(30)

    flight = SingleFlight(work, 0.05)
    with ThreadPoolExecutor(3) as callers:
        hanging = callers.submit(flight.join)
        assert begun.wait(30)
        others = [callers.submit(flight.join) for _ in range(2)]
        for other in others:
            assert isinstance(other.exception(30), DeadlinePassed)
        end.set()
        hanging.result(30)
    flight.join()

"""The write queue: one transaction for all jobs that wait, and an outcome for each of them."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pandas as pd
import pytest

from benchmarks.speed.servers import wait_until
from forecast.bundle import load_bundle
from forecast.errors import MissingSteps, UnknownSeries
from service.engine.engine import Engine
from service.engine.snapshots import Snapshots
from service.errors import NotReady, Refused
from service.ingest.batch import BatchResult, ObservationBatch
from service.ingest.importer import import_history
from service.ingest.write_queue import WriteQueue
from service.ingest.writer import Writer
from service.metrics import Metrics
from service.replay.recovery import recover
from service.settings import Limits
from tests.helpers.hosts import MONTHLY, Host, assert_equal
from tests.helpers.service import batch_of


@pytest.fixture
def host(url, monthly, monthly_bundle, tmp_path) -> Iterator[Host]:
    """Return a host with five live series, for each kind of database."""
    import_history(url, monthly, MONTHLY)
    host = Host(url, monthly_bundle, tmp_path / "snapshots", 4096)
    host.states()
    yield host
    host.close()


@pytest.fixture
def write_queue(host) -> Iterator[WriteQueue]:
    """Return a write queue over the writer of the host."""
    queue = WriteQueue(host.writer, 30.0)
    yield queue
    queue.close()


def record_together(
    write_queue: WriteQueue, requests: list[ObservationBatch]
) -> list[BatchResult | BaseException]:
    """Let requests wait in this order while another job runs; return the outcome of each."""
    begun, end = threading.Event(), threading.Event()

    def block() -> None:
        begun.set()
        end.wait(30)

    with ThreadPoolExecutor(len(requests) + 1) as callers:
        callers.submit(write_queue._submit, block)
        begun.wait(30)
        futures = []
        for number, request in enumerate(requests, start=1):
            futures.append(callers.submit(write_queue.record, request))
            wait_until(lambda: len(write_queue._jobs), lambda size, n=number: size == n)
        end.set()
    return [future.exception(30) or future.result(30) for future in futures]


def test_requests_that_wait_are_written_in_one_batch(host, write_queue, monthly):
    """Each request gets the result of its own items."""
    names = sorted(monthly["unique_id"].unique())
    before = host.engine.batch
    requests = [batch_of((name, "2019-01-01", 300.0)) for name in names]
    requests.append(batch_of((names[0], "2019-02-01", 301.0), ("new", "2019-01-01", 5.0)))
    requests.append(batch_of((names[0], "2019-01-01", 300.0), ("new", "2019-02-01", 6.0)))

    outcomes = record_together(write_queue, requests)

    assert host.engine.batch - before == 1
    assert [outcome.count(0) for outcome in outcomes] == [1, 1, 1, 1, 1, 2, 1]
    assert outcomes[6].status.tolist() == [1, 0]
    assert [outcome.created for outcome in outcomes] == [(), (), (), (), (), ("new",), ()]


def test_a_request_with_a_fault_is_refused_alone(host, write_queue, monthly):
    """The others are stored, whatever their order in the queue."""
    names = sorted(monthly["unique_id"].unique())
    requests = [
        batch_of((names[0], "2019-01-01", 300.0)),
        batch_of((names[1], "2019-01-01", 300.0), (names[2], "2019-03-01", 300.0)),  # A gap.
        batch_of((names[3], "2019-01-01", 300.0)),
        batch_of((names[0], "2019-02-01", 301.0)),
    ]

    outcomes = record_together(write_queue, requests)

    assert [getattr(outcome, "status", None) is None for outcome in outcomes] == [
        False,
        True,
        False,
        False,
    ]
    refusal = outcomes[1]
    assert isinstance(refusal, Refused)
    assert isinstance(refusal.error, MissingSteps)
    assert refusal.items[0][0] == "/1"
    live = host.states()
    host.writer.rebuild(names[0])
    assert_equal(host.states(), live)
    assert live[names[1]].count == 120


def test_a_hand_over_that_has_begun_is_finished_after_its_deadline(host, monthly_bundle, tmp_path):
    """Giving up half-way would leave one model in the queue and another one in service."""
    other = Writer(
        Engine(load_bundle(monthly_bundle), host.executor),
        host.log,
        Metrics(),
        unknown_series="create",
        limits=Limits(),
    )
    recover(other, Snapshots(tmp_path / "others", host.log, other.engine.digest))
    host.observe(host.engine.ids[0], "2019-01-01", 300.0)
    deadline, writers = 0.1, []
    write_queue, start = WriteQueue(host.writer, deadline), time.perf_counter()

    def slow() -> None:
        write_queue.writer.rebuild(host.engine.ids[0])
        wait_until(time.perf_counter, lambda now: now > start + 5 * deadline)
        writers.append(write_queue.writer)

    write_queue.hand_over(other, slow)

    assert writers == [other]
    assert other.engine.batch == host.engine.batch
    write_queue.close()


def test_many_corrections_are_replayed_in_parts(url, monthly, monthly_bundle, tmp_path):
    """The states equal those of a replay of single series."""
    series = monthly[monthly["unique_id"] == monthly["unique_id"].iloc[0]].iloc[-24:]
    names = [f"{number:03}" for number in range(300)]
    parts = [series.assign(unique_id=name, y=series["y"] + i) for i, name in enumerate(names)]
    import_history(url, pd.concat(parts), MONTHLY)
    host = Host(url, monthly_bundle, tmp_path / "snapshots", 4096)
    host.states()

    result = host.writer.write(batch_of(*((name, "2018-06-01", 77.0) for name in names)))

    assert result.count(2) == len(names)
    live = host.states()
    for name in names[::20]:
        host.writer.rebuild(name)
    assert_equal(host.states(), live)
    host.close()


def test_an_unknown_series_and_a_closed_queue_raise(host, write_queue):
    """A closed queue accepts no job at all."""
    with pytest.raises(UnknownSeries):
        write_queue.remove("nobody")
    write_queue.close()
    with pytest.raises(NotReady):
        write_queue.record(batch_of(("a", "2019-01-01", 1.0)))

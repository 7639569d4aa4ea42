"""The line of those who write: one transaction for all that wait, and each told for itself."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
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
from tests.service.hosts import MONTHLY, Host, assert_equal


def sent(*items: tuple[str, str, float]) -> ObservationBatch:
    """Observations as a request brings them."""
    names, months, y = zip(*items, strict=True)
    stamps = np.array([pd.Timestamp(month).value for month in months])
    return ObservationBatch(
        names, stamps, np.array(y), np.empty((len(names), 0)), (), lambda item: f"/{item}"
    )


@pytest.fixture
def host(url, monthly, monthly_bundle, tmp_path) -> Iterator[Host]:
    """Five series on each kind of database."""
    import_history(url, monthly, MONTHLY)
    made = Host(url, monthly_bundle, tmp_path / "snapshots", 4096)
    made.states()
    yield made
    made.close()


@pytest.fixture
def write_queue(host) -> Iterator[WriteQueue]:
    """Its writer, in a thread of its own."""
    made = WriteQueue(host.writer, 30.0)
    yield made
    made.close()


def together(
    write_queue: WriteQueue, requests: list[ObservationBatch]
) -> list[BatchResult | BaseException]:
    """What becomes of requests that wait for their turn at the same time, in this order."""
    begun, end = threading.Event(), threading.Event()

    def busy() -> None:
        begun.set()
        end.wait(30)

    with ThreadPoolExecutor(len(requests) + 1) as callers:
        callers.submit(write_queue._ask, busy)
        begun.wait(30)
        futures = []
        for number, request in enumerate(requests, start=1):
            futures.append(callers.submit(write_queue.record, request))
            wait_until(lambda: len(write_queue._line), lambda size, n=number: size == n)
        end.set()
    return [future.exception(30) or future.result(30) for future in futures]


def test_requests_that_wait_are_one_batch(host, write_queue, monthly):
    """One transaction for all; each is told what became of its own."""
    names = sorted(monthly["unique_id"].unique())
    before = host.engine.batch
    requests = [sent((name, "2019-01-01", 300.0)) for name in names]
    requests.append(sent((names[0], "2019-02-01", 301.0), ("new", "2019-01-01", 5.0)))
    requests.append(sent((names[0], "2019-01-01", 300.0), ("new", "2019-02-01", 6.0)))

    outcomes = together(write_queue, requests)

    assert host.engine.batch - before == 1
    assert [outcome.count(0) for outcome in outcomes] == [1, 1, 1, 1, 1, 2, 1]
    assert outcomes[6].status.tolist() == [1, 0]
    assert [outcome.created for outcome in outcomes] == [(), (), (), (), (), ("new",), ()]


def test_a_request_with_a_fault_is_refused_alone(host, write_queue, monthly):
    """Wherever it stood in the line, the others are stored."""
    names = sorted(monthly["unique_id"].unique())
    requests = [
        sent((names[0], "2019-01-01", 300.0)),
        sent((names[1], "2019-01-01", 300.0), (names[2], "2019-03-01", 300.0)),  # a gap
        sent((names[3], "2019-01-01", 300.0)),
        sent((names[0], "2019-02-01", 301.0)),
    ]

    outcomes = together(write_queue, requests)

    assert [getattr(outcome, "status", None) is None for outcome in outcomes] == [
        False,
        True,
        False,
        False,
    ]
    refused = outcomes[1]
    assert isinstance(refused, Refused)
    assert isinstance(refused.error, MissingSteps)
    assert refused.items[0][0] == "/1"
    live = host.states()
    host.writer.rebuild(names[0])
    assert_equal(host.states(), live)
    assert live[names[1]].count == 120


def test_a_model_takes_over_wholly_however_long_it_takes(host, monthly_bundle, tmp_path):
    """What comes after the deadline would be one model moved and another asked."""
    other = Writer(
        Engine(load_bundle(monthly_bundle), host.executor),
        host.log,
        Metrics(),
        unknown_series="create",
        limits=Limits(),
    )
    recover(other, Snapshots(tmp_path / "others", host.log, other.engine.digest))
    host.observe(host.engine.ids[0], "2019-01-01", 300.0)
    write_queue, deadline, told = WriteQueue(host.writer, 0.1), 0.1, []
    begun = time.perf_counter()

    def slow() -> None:
        write_queue.writer.rebuild(host.engine.ids[0])
        wait_until(time.perf_counter, lambda now: now > begun + 5 * deadline)
        told.append(write_queue.writer)

    write_queue.hand_over(other, slow)

    assert told == [other]
    assert other.engine.batch == host.engine.batch
    write_queue.close()


def test_many_corrections_are_replayed_some_series_at_a_time(
    url, monthly, monthly_bundle, tmp_path
):
    """More than one part holds; the states are those of a plain replay."""
    one = monthly[monthly["unique_id"] == monthly["unique_id"].iloc[0]].iloc[-24:]
    names = [f"{number:03}" for number in range(300)]
    parts = [one.assign(unique_id=name, y=one["y"] + at) for at, name in enumerate(names)]
    import_history(url, pd.concat(parts), MONTHLY)
    host = Host(url, monthly_bundle, tmp_path / "snapshots", 4096)
    host.states()

    outcome = host.writer.write(sent(*((name, "2018-06-01", 77.0) for name in names)))

    assert outcome.count(2) == len(names)
    live = host.states()
    for name in names[::20]:
        host.writer.rebuild(name)
    assert_equal(host.states(), live)
    host.close()


def test_what_can_never_be_written_is_told(host, write_queue):
    """A series that is not there; anything, once the queue is closed."""
    with pytest.raises(UnknownSeries):
        write_queue.remove("nobody")
    write_queue.close()
    with pytest.raises(NotReady):
        write_queue.record(sent(("a", "2019-01-01", 1.0)))

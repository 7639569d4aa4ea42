"""Requests of clients that disconnect are cancelled in the queue, and finished once started."""

import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import pandas as pd
import pytest
import uvicorn

from benchmarks.speed.servers import wait_until
from forecast.bundle import load_bundle
from service.app import create_app
from service.ingest.importer import import_history
from service.server import bind
from service.serving.serving import Serving
from service.settings import Settings


@dataclass
class RunningServer:
    """A server on a real socket, in this process."""

    port: int
    app: Any

    @property
    def serving(self) -> Serving:
        """The model in service with its states and log."""
        return self.app.state.slot.serving

    def value(self, metric: str, **labels: str) -> float:
        """Return the value of a metric, or 0 if it has no sample yet."""
        return self.app.state.metrics.registry.get_sample_value(metric, labels) or 0.0

    def post(self, path: str, body: dict[str, Any]) -> socket.socket:
        """Send a request and return its connection without waiting for the answer."""
        data = json.dumps(body).encode()
        connection = socket.create_connection(("127.0.0.1", self.port))
        connection.sendall(
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(data)}\r\n\r\n".encode()
            + data
        )
        return connection

    def count_abandoned(self, path: str) -> float:
        """Return the number of requests whose client disconnected, which count as status 499."""
        return self.value(
            "http_requests_total", model="default", method="POST", handler=path, status="499"
        )


@pytest.fixture
def history(monthly) -> pd.DataFrame:
    """Return 75 series, which is more than the first transaction of a prune covers."""
    names = (f"{number:02}" for number in range(14))
    return pd.concat(monthly.assign(unique_id=monthly["unique_id"] + name) for name in ["", *names])


@pytest.fixture
def real(history, monthly_bundle, tmp_path) -> Iterator[RunningServer]:
    """Yield a uvicorn server in a thread, ready with the monthly model and its history."""
    settings = Settings(model=str(monthly_bundle), data_dir=tmp_path, port=0)
    import_history(settings.log_url, history, load_bundle(monthly_bundle).config.data)
    app = create_app(settings)
    with closing(bind(settings)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="on"))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        wait_until(lambda: server.started, bool)
        slot = app.state.slot.wait(60)
        wait_until(lambda: slot.progress.phase, lambda phase: phase == "ready")
        yield RunningServer(listener.getsockname()[1], app)
        server.should_exit = True
        thread.join()


@contextmanager
def busy_thread(run: Any) -> Iterator[None]:
    """Keep the server thread that `run` submits work to busy until the block ends."""
    started, release = threading.Event(), threading.Event()

    def work() -> None:
        started.set()
        release.wait(30)

    thread = threading.Thread(target=run, args=(work,))
    thread.start()
    assert started.wait(30)
    try:
        yield
    finally:
        release.set()
        thread.join()


def test_a_queued_forecast_is_cancelled_when_its_client_disconnects(real, monthly):
    """It leaves the queue while the compute thread is busy, and the model never runs for it."""
    body = {"unique_ids": [monthly["unique_id"].iloc[0]]}
    executor = real.serving.engine.executor
    with busy_thread(executor.run):
        connection = real.post("/v1/forecasts", body)
        wait_until(lambda: real.value("statecast_pending_requests"), lambda jobs: jobs == 2)
        dequeued = real.value("statecast_queue_duration_seconds_count")

        connection.close()

        wait_until(lambda: real.value("statecast_pending_requests"), lambda jobs: jobs == 1)
        wait_until(lambda: real.count_abandoned("/v1/forecasts"), lambda count: count == 1)
    failures = {"model": "default", "reason": "abandoned"}
    assert real.value("statecast_inference_failures_total", **failures) == 1
    executor.run(lambda: None)
    assert real.value("statecast_queue_duration_seconds_count") == dequeued + 1  # the job above
    with closing(real.post("/v1/forecasts", body)) as connection:
        assert connection.recv(100).startswith(b"HTTP/1.1 200")


def next_month(name: str) -> dict[str, Any]:
    """Return a request body that reports the next month of a series."""
    return {"observations": [{"unique_id": name, "ds": "2019-01-01", "y": 300.0}]}


def test_a_queued_observation_is_not_stored_when_its_client_disconnects(real, monthly):
    """Its write is cancelled before the transaction starts, and nothing is acknowledged."""
    write_queue = real.serving.write_queue
    with busy_thread(write_queue._submit):
        connection = real.post("/v1/observations", next_month(monthly["unique_id"].iloc[0]))
        queued: Future[Any] = wait_until(lambda: [*write_queue._jobs], bool)[0].future

        connection.close()

        wait_until(queued.cancelled, bool)
    wait_until(lambda: real.count_abandoned("/v1/observations"), lambda count: count == 1)
    write_queue._submit(lambda: None)
    assert real.value("statecast_observations_total", model="default", status="new") == 0


def test_a_started_write_finishes_when_its_client_disconnects(real, monthly):
    """The transaction commits, and the request does not count as abandoned."""
    with busy_thread(real.serving.engine.executor.run):
        connection = real.post("/v1/observations", next_month(monthly["unique_id"].iloc[0]))
        wait_until(lambda: real.value("statecast_pending_requests"), lambda jobs: jobs == 2)
        connection.close()
    new = {"model": "default", "status": "new"}
    wait_until(lambda: real.value("statecast_observations_total", **new), lambda count: count == 1)
    assert real.count_abandoned("/v1/observations") == 0


def test_a_prune_stops_after_the_current_transaction_when_its_client_disconnects(real):
    """The series pruned so far stay pruned; repeating the request prunes the others."""
    write_queue, rule = real.serving.write_queue, {"keep_steps": 12}
    started, release = threading.Event(), threading.Event()
    with ThreadPoolExecutor(1) as pool:
        with busy_thread(write_queue._submit):
            connection = real.post("/v1/log:prune", rule)
            first = wait_until(lambda: [*write_queue._jobs], bool)[0].future
            pool.submit(write_queue._submit, lambda: started.set() or release.wait(30))
            wait_until(lambda: len(write_queue._jobs), lambda jobs: jobs == 2)
        assert started.wait(30)
        second = wait_until(lambda: [*write_queue._jobs], bool)[0].future

        connection.close()

        wait_until(second.cancelled, bool)
        release.set()
    wait_until(lambda: real.count_abandoned("/v1/log:prune"), lambda count: count == 1)
    assert first.result().series == count_pruned(real) == 64
    with closing(real.post("/v1/log:prune", rule)) as connection:
        assert connection.recv(100).startswith(b"HTTP/1.1 200")
    assert count_pruned(real) == 75


def count_pruned(real: RunningServer) -> int:
    """Return the number of series whose older steps were pruned."""
    with real.serving.log.read() as transaction:
        return transaction.totals().pruned_series

"""A client that hangs up before its turn costs nothing; what has begun is finished."""

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
class Real:
    """A server on a real socket, in this process."""

    port: int
    app: Any

    @property
    def serving(self) -> Serving:
        return self.app.state.slot.serving

    def value(self, metric: str, **labels: str) -> float:
        return self.app.state.metrics.registry.get_sample_value(metric, labels) or 0.0

    def post(self, path: str, body: dict[str, Any]) -> socket.socket:
        """Send a request and do not wait for the answer."""
        data = json.dumps(body).encode()
        connection = socket.create_connection(("127.0.0.1", self.port))
        connection.sendall(
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(data)}\r\n\r\n".encode()
            + data
        )
        return connection

    def abandoned(self, path: str) -> float:
        """Requests that were given up."""
        return self.value(
            "http_requests_total", model="default", method="POST", handler=path, status="499"
        )


@pytest.fixture
def history(monthly) -> pd.DataFrame:
    """More series than one transaction prunes at first."""
    names = (f"{number:02}" for number in range(14))
    return pd.concat(monthly.assign(unique_id=monthly["unique_id"] + name) for name in ["", *names])


@pytest.fixture
def real(history, monthly_bundle, tmp_path) -> Iterator[Real]:
    """The monthly model behind uvicorn."""
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
        yield Real(listener.getsockname()[1], app)
        server.should_exit = True
        thread.join()


@contextmanager
def busy(run: Any) -> Iterator[None]:
    """Keep a thread of the server at work meanwhile."""
    begun, end = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        end.wait(30)

    thread = threading.Thread(target=run, args=(work,))
    thread.start()
    assert begun.wait(30)
    try:
        yield
    finally:
        end.set()
        thread.join()


def test_a_forecast_whose_client_has_gone_is_not_computed(real, monthly):
    """It lets go of its thread while the network is still busy, and its turn never comes."""
    asked = {"unique_ids": [monthly["unique_id"].iloc[0]]}
    executor = real.serving.engine.executor
    with busy(executor.run):
        connection = real.post("/v1/forecasts", asked)
        wait_until(lambda: real.value("statecast_pending_requests"), lambda jobs: jobs == 2)
        begun = real.value("statecast_queue_duration_seconds_count")

        connection.close()

        wait_until(lambda: real.value("statecast_pending_requests"), lambda jobs: jobs == 1)
        wait_until(lambda: real.abandoned("/v1/forecasts"), lambda count: count == 1)
    failures = {"model": "default", "reason": "abandoned"}
    assert real.value("statecast_inference_failures_total", **failures) == 1
    executor.run(lambda: None)
    assert real.value("statecast_queue_duration_seconds_count") == begun + 1  # that of this line
    with closing(real.post("/v1/forecasts", asked)) as patient:
        assert patient.recv(100).startswith(b"HTTP/1.1 200")


def observation(name: str) -> dict[str, Any]:
    """The next month of a series."""
    return {"observations": [{"unique_id": name, "ds": "2019-01-01", "y": 300.0}]}


def test_an_observation_whose_client_has_gone_before_its_turn_is_not_stored(real, monthly):
    """Nothing was acknowledged, and nothing is there."""
    write_queue = real.serving.write_queue
    with busy(write_queue._ask):
        connection = real.post("/v1/observations", observation(monthly["unique_id"].iloc[0]))
        waiting: Future[Any] = wait_until(lambda: [*write_queue._line], bool)[0].future

        connection.close()

        wait_until(waiting.cancelled, bool)
    wait_until(lambda: real.abandoned("/v1/observations"), lambda count: count == 1)
    write_queue._ask(lambda: None)
    assert real.value("statecast_observations_total", model="default", status="new") == 0


def test_an_observation_that_is_being_written_is_finished(real, monthly):
    """Whoever sent it is gone; the transaction goes on."""
    with busy(real.serving.engine.executor.run):
        connection = real.post("/v1/observations", observation(monthly["unique_id"].iloc[0]))
        wait_until(lambda: real.value("statecast_pending_requests"), lambda jobs: jobs == 2)
        connection.close()
    new = {"model": "default", "status": "new"}
    wait_until(lambda: real.value("statecast_observations_total", **new), lambda count: count == 1)
    assert real.abandoned("/v1/observations") == 0


def test_a_prune_whose_client_has_gone_ends_after_the_part_that_has_begun(real):
    """What was taken out stays so; the same request goes on with the rest."""
    write_queue, rule = real.serving.write_queue, {"keep_steps": 12}
    begun, end = threading.Event(), threading.Event()
    with ThreadPoolExecutor(1) as pool:
        with busy(write_queue._ask):
            connection = real.post("/v1/log:prune", rule)
            first = wait_until(lambda: [*write_queue._line], bool)[0].future
            pool.submit(write_queue._ask, lambda: begun.set() or end.wait(30))
            wait_until(lambda: len(write_queue._line), lambda jobs: jobs == 2)
        assert begun.wait(30)
        second = wait_until(lambda: [*write_queue._line], bool)[0].future

        connection.close()

        wait_until(second.cancelled, bool)
        end.set()
    wait_until(lambda: real.abandoned("/v1/log:prune"), lambda count: count == 1)
    assert first.result().series == pruned(real) == 64
    with closing(real.post("/v1/log:prune", rule)) as patient:
        assert patient.recv(100).startswith(b"HTTP/1.1 200")
    assert pruned(real) == 75


def pruned(real: Real) -> int:
    """Series whose older steps are gone."""
    with real.serving.log.read() as transaction:
        return transaction.totals().pruned_series

"""Helpers for tests of the service: tiny models, empty logs, and requests to a server."""

import shutil
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import sqlalchemy as sa
import torch
from starlette.testclient import TestClient

from benchmarks.speed.servers import wait_until
from forecast.bundle import Bundle, save_bundle
from forecast.config import Config, DataConfig, ModelConfig, TrainConfig
from forecast.data.panel import Panel
from forecast.data.validation import validate
from forecast.training.train import train
from service.ingest.batch import ObservationBatch
from service.storage.log import ObservationLog
from service.storage.records import Observations

Serve = Callable[..., TestClient]
ServeNamed = Callable[..., TestClient]

HORIZON = 6
WATCH = {"watch_seconds": 0.05}
"""Settings of a server that checks for a new model all the time."""
PROBLEM_FIELDS = {
    "type",
    "title",
    "status",
    "detail",
    "instance",
    "code",
    "request_id",
    "where",
    "help",
    "errors",
}
"""Every field of a problem document."""


def train_tiny(
    table: pd.DataFrame, data: DataConfig, directory: Path, *, max_steps: int = 4
) -> Path:
    """Train a tiny model for a few steps, save it, and return its directory."""
    config = Config(
        data=data,
        model=ModelConfig(hidden_size=8, horizon=HORIZON),
        train=TrainConfig(max_steps=max_steps, batch_size=4, chunk_length=12),
    )
    panel = Panel.from_frame(checked := validate(table, data))
    trained = train(panel, replace(config, data=checked.data))
    save_bundle(trained.bundle, directory)
    return directory


def empty_database(address: str) -> str:
    """Drop all tables of the log from a database, and return its URL."""
    engine = sa.create_engine(address)
    with engine.begin() as connection:
        for table in (
            "base",
            "pruned",
            "observation",
            "series",
            "meta",
            "head",
            "removed",
            "alembic_version",
        ):
            connection.execute(sa.text(f"drop table if exists {table}"))
    engine.dispose()
    return address


def read_readiness(client: TestClient) -> dict[str, Any]:
    """Return the body of `/readyz`."""
    return client.get("/readyz").json()


def run_sql(url: str, *statements: str) -> list[sa.Row]:
    """Run SQL on a connection of its own, and return the rows of the last statement."""
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        results = [connection.execute(sa.text(statement)) for statement in statements]
        rows = list(results[-1]) if results[-1].returns_rows else []
    engine.dispose()
    return rows


def read_log(url: str, covariates: tuple[str, ...] = ()) -> tuple[list[str], Observations]:
    """Return the names and the latest values of everything in a log."""
    log = ObservationLog(url, covariates)
    with log.read() as transaction:
        entries = transaction.entries()
        rows = transaction.history([entry.number for entry in entries])
    log.close()
    return [entry.unique_id for entry in entries], rows


def batch_of(*items: tuple[str, str, float]) -> ObservationBatch:
    """Return a batch of items of (series, month, value), as a request builds it."""
    names, months, y = zip(*items, strict=True)
    stamps = np.array([pd.Timestamp(month).value for month in months])
    return ObservationBatch(
        names, stamps, np.array(y), np.empty((len(names), 0)), (), lambda item: f"/{item}"
    )


def replace_model(bundle: Path | Bundle, folder: Path) -> None:
    """Replace a bundle by another one, as a deployment does."""
    replacement = folder.with_name("replacement")
    if isinstance(bundle, Path):
        shutil.copytree(bundle, replacement)
    else:
        save_bundle(bundle, replacement)
    shutil.rmtree(folder)
    replacement.rename(folder)


def wait_for_successor(
    client: TestClient, done: Callable[[dict[str, Any]], bool]
) -> dict[str, Any]:
    """Wait until `done` accepts the successor in `/readyz`, and return it."""
    readiness = wait_until(
        lambda: read_readiness(client), lambda readiness: done(readiness["successor"] or {})
    )
    assert readiness["ready"]
    return readiness["successor"]


def observe(client: TestClient, name: str, ds: str, y: float) -> None:
    """Report one value of a series."""
    row = {"unique_id": name, "ds": ds, "y": y}
    answer = client.post("/v1/observations", json={"observations": [row]})
    assert answer.status_code == 200, answer.text


def crash(cluster: Any) -> None:
    """End PostgreSQL at once, without an orderly shutdown."""
    postmaster = cluster.get_postmaster_info().process
    postmaster.send_signal(signal.SIGQUIT)
    postmaster.wait(30)


def restart(cluster: Any) -> None:
    """Start PostgreSQL; it may recover for longer than the call waits."""
    with suppress(subprocess.TimeoutExpired):
        cluster.ensure_postgres_running()


def forecast_values(url: str, names: list[str]) -> np.ndarray:
    """Return point forecasts and bounds of some series, of shape (series, 3, horizon)."""
    body = {"unique_ids": names, "level": [80]}
    answer = httpx.post(f"{url}/v1/forecasts", json=body).json()["forecasts"]
    return np.array([[one["statecast"], one["lo-80"], one["hi-80"]] for one in answer])


def last_stamp(client: TestClient, model: str, name: str) -> str:
    """Return the last stamp that the state of one series has seen."""
    return client.get(f"/models/{model}/v1/series/{name}/state").json()["position"]["last_ds"]


def forecasts(client: TestClient, names: list[str]) -> list[dict[str, Any]]:
    """Return the answer to a forecast request for some series."""
    answer = client.post("/v1/forecasts", json={"unique_ids": names, "level": [80]})
    assert answer.status_code == 200, answer.text
    return answer.json()


def make_wild(bundle: Bundle) -> Bundle:
    """Return the bundle with a bias that makes its forecasts absurd."""
    with torch.no_grad():
        bundle.network.point.shrinkage.fill_(1.0)
        bundle.network.point.outer.bias.fill_(5.0)
    return replace(bundle)


def assert_problem(answer, status: int, code: str) -> dict:
    """Require a problem document with every field and the request id of the header; return it."""
    problem = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.status_code, problem["status"], problem["code"]) == (status, status, code)
    assert problem.keys() == PROBLEM_FIELDS
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert problem["type"] == f"urn:statecast:problem:{code}"
    return problem

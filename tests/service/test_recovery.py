"""
A real server process, killed without warning while a client reports observations.

What was acknowledged is there exactly once, and the states equal a fresh replay of the log,
whether they were restored from snapshots or not.
"""

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa

from forecast.bundle import load_bundle
from service.importing import import_history
from service.settings import Settings
from tests.service.conftest import wait_until

KILLS = 10


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def server(environment: dict[str, str]) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """`python -m service`, ready to answer; killed at the end if it still runs."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "service"],
        env={**os.environ, **environment, "STATECAST_PORT": str(port)},
        stderr=subprocess.PIPE,
    )
    url = f"http://127.0.0.1:{port}"

    def ready() -> bool:
        if process.poll() is not None:
            assert process.stderr is not None
            pytest.fail(f"the server stopped: {process.stderr.read().decode()}")
        try:
            return httpx.get(f"{url}/readyz").status_code == 200
        except httpx.TransportError:
            return False

    try:
        wait_until(ready, bool, 60)
        yield process, url
    finally:
        process.kill()
        process.wait()
        if process.stderr is not None:
            process.stderr.close()


Batch = dict[tuple[str, str], float]
"""Series and day to value."""


@dataclass
class Reporter:
    """Posts one batch after the other; what was not acknowledged is sent again first."""

    names: list[str]
    months: pd.DatetimeIndex
    acknowledged: Batch = field(default_factory=dict)
    pending: Batch = field(default_factory=dict)
    at: int = 0
    rng: random.Random = field(default_factory=lambda: random.Random(7))

    def run(self, url: str, until: int) -> None:
        """Until so many months are acknowledged, or the server is gone."""
        with httpx.Client(base_url=url, timeout=60) as client:
            while self.at < until:
                self.pending = self.pending or self._draw()
                try:
                    answer = client.post("/v1/observations", json=body_of(self.pending))
                except httpx.TransportError:
                    return
                assert answer.status_code == 200, answer.text
                self.acknowledged |= self.pending
                self.pending = {}
                self.at += 1

    def _draw(self) -> Batch:
        """The next month of every series, and now and then a correction of an earlier one."""
        days = [str(self.months[self.at].date())]
        batch = {(name, days[0]): round(self.rng.uniform(100, 900), 3) for name in self.names}
        if self.at and self.rng.random() < 0.3:
            earlier = str(self.months[self.rng.randrange(self.at)].date())
            batch[self.names[0], earlier] = round(self.rng.uniform(100, 900), 3)
        return batch


def body_of(batch: Batch) -> dict[str, Any]:
    """The request that reports a batch."""
    rows = [{"unique_id": name, "ds": day, "y": y} for (name, day), y in batch.items()]
    return {"observations": rows}


def stored(url: str) -> dict[tuple[str, str], float]:
    """The latest value of every stamp, read past our own code."""
    query = """
        select s.unique_id, o.ds, o.y from observation o join series s using (series)
        order by o.revision
    """
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        rows = connection.execute(sa.text(query)).all()
    engine.dispose()
    return {(name, str(pd.Timestamp(ds).date())): y for name, ds, y in rows}


def forecasts(url: str, names: list[str]) -> np.ndarray:
    """Point forecasts and bounds of every series."""
    body = {"unique_ids": names, "level": [80]}
    answer = httpx.post(f"{url}/v1/forecasts", json=body).json()["forecasts"]
    return np.array([[one["statecast"], one["lo-80"], one["hi-80"]] for one in answer])


def check_log(url: str, reporter: Reporter) -> None:
    """Everything acknowledged is stored; the last request is there whole, or not at all."""
    found = stored(url)
    for key, y in reporter.acknowledged.items():
        assert found[key] in {y, reporter.pending.get(key)}, key
    unexplained = found.keys() - reporter.acknowledged.keys() - reporter.pending.keys()
    assert all(day < "2019-01-01" for _, day in unexplained)
    there = [found.get(key) == y for key, y in reporter.pending.items()]
    assert all(there) or not any(there)


def test_kill_9_loses_nothing_acknowledged_and_counts_nothing_twice(
    monthly_bundle: Path, monthly: pd.DataFrame, tmp_path: Path
):
    """Killed at random moments while it writes; the states equal a replay of the log."""
    environment = {
        "STATECAST_MODEL": str(monthly_bundle), "STATECAST_DATA_DIR": str(tmp_path),
        "STATECAST_SNAPSHOT_SECONDS": "0.01",
    }  # fmt: skip
    url = Settings(data_dir=tmp_path).log_url
    import_history(url, monthly, load_bundle(monthly_bundle).config.data)
    names = sorted(monthly["unique_id"].unique())
    reporter = Reporter(names, pd.date_range("2019-01-01", periods=1000, freq="MS"))
    rng = random.Random(1)

    for _ in range(KILLS):
        with server(environment) as (process, address):
            before = reporter.at
            client = threading.Thread(target=reporter.run, args=(address, 1000))
            client.start()
            wait_until(lambda: reporter.at, lambda at, b=before: at > b, 60)
            threading.Event().wait(rng.uniform(0.0, 0.25))  # any moment will do
            process.send_signal(signal.SIGKILL)
            client.join(60)
            process.wait()
        check_log(url, reporter)

    with server(environment) as (process, address):
        reporter.run(address, reporter.at + 3)
        again = httpx.post(f"{address}/v1/observations", json=body_of(reporter.acknowledged)).json()
        state = httpx.get(f"{address}/v1/series/{names[0]}/state").json()
        live = forecasts(address, names)
        process.send_signal(signal.SIGKILL)
        process.wait()
    with server(environment) as (process, address):
        restored = forecasts(address, names)
        process.send_signal(signal.SIGKILL)
        process.wait()
    shutil.rmtree(tmp_path / "snapshots")
    with server(environment) as (_, address):
        replayed = forecasts(address, names)

    assert (again["new"], again["revised"]) == (0, 0)
    assert again["duplicate"] == len(reporter.acknowledged)
    assert state["position"]["observations"] == 120 + reporter.at
    assert state["position"]["last_ds"] == str(reporter.months[reporter.at - 1].date())
    np.testing.assert_allclose(live, replayed, rtol=1e-5)
    np.testing.assert_allclose(restored, replayed, rtol=1e-5)

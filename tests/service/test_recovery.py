"""
A real server process, killed without warning while a client reports observations.

What was acknowledged is there exactly once, and the states equal a fresh replay of the log.
"""

import os
import random
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
from service.log import import_history
from service.settings import Settings
from tests.service.conftest import wait_until

KILLS = 4


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


@dataclass
class Reporter:
    """Posts one batch after the other, and remembers which were acknowledged."""

    names: list[str]
    months: pd.DatetimeIndex
    acknowledged: dict[tuple[str, str], float] = field(default_factory=dict)
    uncertain: dict[tuple[str, str], float] = field(default_factory=dict)
    at: int = 0
    rng: random.Random = field(default_factory=lambda: random.Random(7))

    def run(self, url: str, stop: threading.Event) -> None:
        """Until told to stop, or the server is gone."""
        with httpx.Client(base_url=url) as client:
            while not stop.is_set() and self.at < len(self.months):
                ds = str(self.months[self.at].date())
                batch = {(name, ds): round(self.rng.uniform(100, 900), 3) for name in self.names}
                if self.at and self.rng.random() < 0.3:
                    earlier = str(self.months[self.rng.randrange(self.at)].date())
                    batch[(self.names[0], earlier)] = round(self.rng.uniform(100, 900), 3)
                body = {"observations": [
                    {"unique_id": name, "ds": day, "y": y} for (name, day), y in batch.items()
                ]}  # fmt: skip
                self.uncertain = batch
                try:
                    answer = client.post("/v1/observations", json=body)
                except httpx.TransportError:
                    return
                assert answer.status_code == 200, answer.text
                self.acknowledged |= batch
                self.uncertain = {}
                self.at += 1


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


def test_kill_9_loses_nothing_acknowledged_and_counts_nothing_twice(
    monthly_bundle: Path, monthly: pd.DataFrame, tmp_path: Path
):
    """Killed at random moments while it writes; every restart replays to the same states."""
    environment = {"STATECAST_MODEL": str(monthly_bundle), "STATECAST_DATA_DIR": str(tmp_path)}
    url = Settings(data_dir=tmp_path).log_url
    import_history(url, monthly, load_bundle(monthly_bundle).config.data)
    names = sorted(monthly["unique_id"].unique())
    reporter = Reporter(names, pd.date_range("2019-01-01", periods=400, freq="MS"))
    rng = random.Random(1)

    for _ in range(KILLS):
        with server(environment) as (process, address):
            stop = threading.Event()
            client = threading.Thread(target=reporter.run, args=(address, stop))
            before = reporter.at
            client.start()
            wait_until(lambda: reporter.at, lambda at, b=before: at > b, 30)  # type: ignore[misc]
            stop.wait(rng.uniform(0.0, 0.25))
            process.send_signal(signal.SIGKILL)
            client.join(30)
            process.wait()

        found = stored(url)
        for key, y in reporter.acknowledged.items():
            assert found[key] in {y, reporter.uncertain.get(key)}, key
        extra = found.keys() - reporter.acknowledged.keys() - reporter.uncertain.keys()
        assert all(day < "2019-01-01" for _, day in extra)
        whole = reporter.uncertain.keys() & found.keys() - reporter.acknowledged.keys()
        assert len(whole) in {0, len(names)}  # a request is stored whole or not at all

    with server(environment) as (process, address):
        replayed = forecasts(address, names)
        with httpx.Client(base_url=address) as client:
            body = {"observations": [
                {"unique_id": n, "ds": day, "y": y}
                for (n, day), y in {**reporter.acknowledged, **reporter.uncertain}.items()
            ]}  # fmt: skip
            again: dict[str, Any] = client.post("/v1/observations", json=body).json()
            state = client.get(f"/v1/series/{names[0]}/state").json()
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) in {0, -signal.SIGTERM}
    assert reporter.at > KILLS
    assert state["position"]["observations"] == len(
        {day for name, day in stored(url) if name == names[0]}
    )
    if not reporter.uncertain:
        assert again["new"] == 0
        assert again["revised"] == 0

    with server(environment) as (_, address):
        if again["new"] == again["revised"] == 0:
            np.testing.assert_allclose(forecasts(address, names), replayed, rtol=1e-5)


def test_live_states_equal_a_fresh_replay_after_a_kill(
    monthly_bundle: Path, monthly: pd.DataFrame, tmp_path: Path
):
    """States that went on step by step, before the kill, forecast as the replay after it does."""
    environment = {"STATECAST_MODEL": str(monthly_bundle), "STATECAST_DATA_DIR": str(tmp_path)}
    url = Settings(data_dir=tmp_path).log_url
    import_history(url, monthly, load_bundle(monthly_bundle).config.data)
    names = sorted(monthly["unique_id"].unique())
    reporter = Reporter(names, pd.date_range("2019-01-01", periods=25, freq="MS"))

    with server(environment) as (process, address):
        reporter.run(address, threading.Event())
        live = forecasts(address, names)
        process.send_signal(signal.SIGKILL)
        process.wait()
    with server(environment) as (_, address):
        replayed = forecasts(address, names)

    assert reporter.at == 25
    np.testing.assert_allclose(live, replayed, rtol=1e-5)

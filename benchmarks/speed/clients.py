"""Clients of a server that may be killed, and their record of the acknowledged values."""

import contextlib
import itertools
import random
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import sqlalchemy as sa

from forecast.bundle import Bundle
from forecast.data.panel import Panel
from forecast.inference.forecasting import forecast
from forecast.inference.observing import warm_up

DAYS = pd.date_range("2020-01-01", periods=60_000, freq="D")
DAY_TEXTS = [str(date) for date in DAYS.date]
"""The days as text, as requests have them."""
Stamp = tuple[str, str]
"""A series and a day."""
Stored = dict[Stamp, list[float]]
"""The values of each stamp, in the order of storage."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Errors found in the log and the states, and the number of kills checked."""

    lost: int = 0
    """Acknowledged values that are not stored, and steps missing from states."""
    doubled: int = 0
    """Values stored and steps applied more often than they were reported."""
    torn: int = 0
    """Requests that are stored in part."""
    state_error: float = 0.0
    """Largest relative difference of a forecast from that of a replay of the log."""
    kills: int = 0
    at_points: int = 0
    """Kills at a named point."""

    def __add__(self, other: "Verdict") -> "Verdict":
        """Add the counts and take the larger error."""
        return Verdict(
            self.lost + other.lost,
            self.doubled + other.doubled,
            self.torn + other.torn,
            max(self.state_error, other.state_error),
            self.kills + other.kills,
            self.at_points + other.at_points,
        )


@dataclass
class Reporter:
    """A client that reports its series day by day and resends an unacknowledged request first."""

    names: list[str]
    rng: random.Random
    acknowledged: Stored = field(default_factory=dict)
    pending: dict[Stamp, float] = field(default_factory=dict)
    requests: int = 0
    """Number of acknowledged requests."""

    def run(self, url: str) -> None:
        """Send requests until the server is gone."""
        with httpx.Client(base_url=url, timeout=60, verify=False) as client:
            while True:
                try:
                    answer = self.send(client)
                except httpx.TransportError:
                    return
                assert answer.status_code == 200, answer.text

    def send(self, client: httpx.Client) -> httpx.Response:
        """Send one request; its values are acknowledged if the status is 200, else pending."""
        self.pending = self.pending or self._draw_batch()
        answer = client.post("/v1/observations", json=body_of(self.pending))
        if answer.status_code == 200:
            for stamp, y in self.pending.items():
                self.acknowledged.setdefault(stamp, []).append(y)
            self.pending = {}
            self.requests += 1
        return answer

    def _draw_batch(self) -> dict[Stamp, float]:
        """Return the next day of every series and sometimes a correction; all values differ."""
        day, rng = self.requests, self.rng
        batch = {(name, DAY_TEXTS[day]): rng.uniform(100.0, 900.0) for name in self.names}
        if day and rng.random() < 0.3:
            batch[rng.choice(self.names), DAY_TEXTS[rng.randrange(day)]] = rng.uniform(100.0, 900.0)
        return batch

    def compare(self, stored: Stored) -> Verdict:
        """Compare the stored values of these series with the acknowledged and the pending ones."""
        lost = doubled = 0
        is_stored = dict.fromkeys(self.pending, False)
        for stamp in {*self.acknowledged, *self.pending, *stored}:
            if stamp[0] not in self.names:
                continue
            expected, values = self.acknowledged.get(stamp, []), stored.get(stamp, [])
            same = sum(itertools.takewhile(bool, map(float.__eq__, expected, values)))
            lost += len(expected) - same
            if stamp in is_stored and values[same:] == [self.pending[stamp]]:
                is_stored[stamp] = True
            else:
                doubled += len(values) - same
        return Verdict(lost, doubled, torn=int(len({*is_stored.values()}) > 1))


def request_forecasts(url: str, names: Sequence[str], seed: int) -> None:
    """Request forecasts of random series until the server is gone."""
    rng = random.Random(seed)
    with httpx.Client(base_url=url, timeout=60, verify=False) as client:
        while names:
            sample = rng.sample(names, rng.randint(1, len(names)))
            try:
                answer = client.post("/v1/forecasts", json={"unique_ids": sample, "level": [80]})
            except httpx.TransportError:
                return
            assert answer.status_code == 200, answer.text


def body_of(batch: dict[Stamp, float]) -> dict[str, Any]:
    """Return the body of the request that reports a batch."""
    rows = [{"unique_id": name, "ds": day, "y": y} for (name, day), y in batch.items()]
    return {"observations": rows}


def read_stored(url: str) -> Stored:
    """
    Read a log with plain SQL, without the service.

    Of a SQLite log a copy is read, so that its write-ahead log is left to the server; the copy must
    pass the integrity check.
    """
    address = sa.make_url(url)
    with tempfile.TemporaryDirectory() as folder:
        if address.database is not None and address.get_backend_name() == "sqlite":
            for suffix in ("", "-wal"):
                with contextlib.suppress(FileNotFoundError):
                    shutil.copy(f"{address.database}{suffix}", folder)
            address = address.set(database=f"{folder}/{Path(address.database).name}")
        engine = sa.create_engine(address)
        with engine.connect() as connection:
            if address.get_backend_name() == "sqlite":
                assert connection.execute(sa.text("pragma integrity_check")).scalar() == "ok"
            has_table = sa.inspect(connection).has_table("observation")
            rows = connection.execute(sa.text(_STORED)).all() if has_table else []
        engine.dispose()
    stored: Stored = {}
    for name, ds, y in rows:
        stored.setdefault((name, DAY_TEXTS[(ds - _FIRST) // _DAY]), []).append(y)
    return stored


_FIRST, _DAY = DAYS[0].value, pd.Timedelta(days=1).value
_STORED = """
    select s.unique_id, o.ds, o.y from observation o join series s using (series)
    order by o.series, o.ds, o.revision
"""


def compare_states(url: str, bundles: Sequence[Bundle], stored: Stored) -> Verdict:
    """
    Compare the forecasts of the live states with a replay of the log by the library alone.

    Raises:
        httpx.TransportError: The server ended before it answered.
    """
    lengths: dict[str, int] = {}
    for name, _ in stored:
        lengths[name] = lengths.get(name, 0) + 1
    if not lengths:
        return Verdict()
    body = {"unique_ids": [*lengths], "level": [80]}
    answer = httpx.post(f"{url}/v1/forecasts", json=body, timeout=60, verify=False)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    (served,) = (bundle for bundle in bundles if bundle.digest == body["model"]["digest"])
    forecasts = body["forecasts"]
    surplus = [row["position"]["observations"] - lengths[row["unique_id"]] for row in forecasts]
    live = [[row["statecast"], row["lo-80"], row["hi-80"]] for row in forecasts]
    expected = np.moveaxis(_replay(served, lengths, stored), 2, 1)
    return Verdict(
        lost=-sum(min(steps, 0) for steps in surplus),
        doubled=sum(max(steps, 0) for steps in surplus),
        state_error=float(np.max(np.abs(live - expected) / np.abs(expected))),
    )


def _replay(bundle: Bundle, lengths: dict[str, int], stored: Stored) -> np.ndarray:
    """Return forecasts and the bounds of their 80 % intervals: (series, horizon, 3)."""
    total = sum(lengths.values())
    stamps = DAYS.as_unit("ns").asi8
    values = [stored[name, DAY_TEXTS[i]][-1] for name, size in lengths.items() for i in range(size)]
    panel = Panel(
        ids=tuple(lengths),
        indptr=np.r_[0, np.cumsum([*lengths.values()])].astype(np.int64),
        ds=np.concatenate([stamps[:size] for size in lengths.values()]),
        values=np.array(values),
        observed=np.ones(total, np.bool_),
        known_future=np.zeros((total, 0), np.float32),
        past_only=np.zeros((total, 0), np.float32),
    )
    return forecast(bundle, warm_up(bundle, panel), quantiles=(0.1, 0.9))

"""Clients of a server that may be killed, and the account they keep of what they were told."""

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
NAMED = [str(date) for date in DAYS.date]
"""The days as requests name them."""
Stamp = tuple[str, str]
"""Series and day."""
Stored = dict[Stamp, list[float]]
"""The values of each stamp, in the order in which they were stored."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found wrong, and how much was looked at."""

    lost: int = 0
    """Acknowledged values that are not stored, and steps that states lack."""
    doubled: int = 0
    """Values stored, and steps taken, more often than they were reported."""
    torn: int = 0
    """Requests of which a part is stored."""
    state_error: float = 0.0
    """Largest relative difference of a forecast from the replay of the account."""
    kills: int = 0
    at_points: int = 0
    """Of the kills, those at a named point."""

    def __add__(self, other: "Verdict") -> "Verdict":
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
    """Reports its series day by day; what was not acknowledged is sent again first."""

    names: list[str]
    rng: random.Random
    acknowledged: Stored = field(default_factory=dict)
    pending: dict[Stamp, float] = field(default_factory=dict)
    requests: int = 0
    """That were acknowledged."""

    def run(self, url: str) -> None:
        """Until the server is gone."""
        with httpx.Client(base_url=url, timeout=60, verify=False) as client:
            while True:
                try:
                    answer = self.send(client)
                except httpx.TransportError:
                    return
                assert answer.status_code == 200, answer.text

    def send(self, client: httpx.Client) -> httpx.Response:
        """One request; what it holds is acknowledged if the answer says so, else pending."""
        self.pending = self.pending or self._drawn()
        answer = client.post("/v1/observations", json=body_of(self.pending))
        if answer.status_code == 200:
            for stamp, y in self.pending.items():
                self.acknowledged.setdefault(stamp, []).append(y)
            self.pending = {}
            self.requests += 1
        return answer

    def _drawn(self) -> dict[Stamp, float]:
        """The next day of every series, and now and then a correction; no value comes twice."""
        at, rng = self.requests, self.rng
        batch = {(name, NAMED[at]): rng.uniform(100.0, 900.0) for name in self.names}
        if at and rng.random() < 0.3:
            batch[rng.choice(self.names), NAMED[rng.randrange(at)]] = rng.uniform(100.0, 900.0)
        return batch

    def compare(self, stored: Stored) -> Verdict:
        """What is stored of these series beside what was acknowledged, and what was not."""
        lost = doubled = 0
        arrived = dict.fromkeys(self.pending, False)
        for stamp in {*self.acknowledged, *self.pending, *stored}:
            if stamp[0] not in self.names:
                continue
            sent, there = self.acknowledged.get(stamp, []), stored.get(stamp, [])
            same = sum(itertools.takewhile(bool, map(float.__eq__, sent, there)))
            lost += len(sent) - same
            if stamp in arrived and there[same:] == [self.pending[stamp]]:
                arrived[stamp] = True
            else:
                doubled += len(there) - same
        return Verdict(lost, doubled, torn=int(len({*arrived.values()}) > 1))


def ask(url: str, names: Sequence[str], seed: int) -> None:
    """Forecasts of some of the series, again and again, until the server is gone."""
    rng = random.Random(seed)
    with httpx.Client(base_url=url, timeout=60, verify=False) as client:
        while names:
            some = rng.sample(names, rng.randint(1, len(names)))
            try:
                answer = client.post("/v1/forecasts", json={"unique_ids": some, "level": [80]})
            except httpx.TransportError:
                return
            assert answer.status_code == 200, answer.text


def body_of(batch: dict[Stamp, float]) -> dict[str, Any]:
    """The request that reports a batch."""
    rows = [{"unique_id": name, "ds": day, "y": y} for (name, day), y in batch.items()]
    return {"observations": rows}


def stored_in(url: str) -> Stored:
    """What a log holds, read past the service; of SQLite a copy is read, and checked as a whole."""
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
        stored.setdefault((name, NAMED[(ds - _FIRST) // _DAY]), []).append(y)
    return stored


_FIRST, _DAY = DAYS[0].value, pd.Timedelta(days=1).value
_STORED = """
    select s.unique_id, o.ds, o.y from observation o join series s using (series)
    order by o.series, o.ds, o.revision
"""


def compare_states(url: str, bundles: Sequence[Bundle], stored: Stored) -> Verdict:
    """
    Live states beside a replay of what is stored, by the library alone.

    Raises:
        httpx.TransportError: The server was gone before it answered.
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
    (bundle,) = (one for one in bundles if one.digest == body["model"]["digest"])
    more = [
        one["position"]["observations"] - lengths[one["unique_id"]] for one in body["forecasts"]
    ]
    live = [[one["statecast"], one["lo-80"], one["hi-80"]] for one in body["forecasts"]]
    expected = np.moveaxis(_replayed(bundle, lengths, stored), 2, 1)
    return Verdict(
        lost=-sum(min(steps, 0) for steps in more),
        doubled=sum(max(steps, 0) for steps in more),
        state_error=float(np.max(np.abs(live - expected) / np.abs(expected))),
    )


def _replayed(bundle: Bundle, lengths: dict[str, int], stored: Stored) -> np.ndarray:
    """Forecasts and the bounds of their 80 % intervals: (series, horizon, 3)."""
    total = sum(lengths.values())
    stamps = DAYS.as_unit("ns").asi8
    values = [stored[name, NAMED[i]][-1] for name, size in lengths.items() for i in range(size)]
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

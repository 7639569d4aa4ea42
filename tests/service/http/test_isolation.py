"""
What is wrong with one series stays with it: no byte of another's forecast moves.

Each case is played twice, on servers that differ in one value of one series only; all others must
answer alike to the last byte, whoever shared a request, a transaction or a call of the network.
"""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pytest
from starlette.testclient import TestClient

from benchmarks.speed.clients import NAMED
from benchmarks.speed.servers import wait_until
from service.ingest.batch import ObservationBatch

Call = Callable[[], Any]
NAMES = [f"s{i}" for i in range(8)]
ODD, OTHERS = NAMES[3], [*NAMES[:3], *NAMES[4:]]
DAYS = 12


def sent(day: int, names: Sequence[str], odd: float) -> ObservationBatch:
    """A day of some series; the schema of HTTP is not asked."""
    plain = dict(zip(NAMES, np.random.default_rng(day).uniform(100, 900, len(NAMES)), strict=True))
    y = np.array([odd if name == ODD else plain[name] for name in names], np.float64)
    stamps = np.full(len(names), pd.Timestamp(NAMED[day]).value)
    return ObservationBatch(
        names, stamps, y, np.empty((len(names), 0)), (), lambda item: f"/{item}"
    )


def forecasts(client: TestClient, names: Sequence[str]) -> list[dict[str, Any]]:
    """What one request tells of some series, the odd one left out."""
    answer = client.post("/v1/forecasts", json={"unique_ids": names, "level": [80, 95]})
    assert answer.status_code == 200, answer.text
    return [one for one in answer.json()["forecasts"] if one["unique_id"] != ODD]


def together(
    hold: Callable[[Call], Any], waiting: Callable[[], float], calls: list[Call]
) -> list[Any]:
    """Results of calls that were all in a line before the thread that serves it went on."""
    begun, go_on = threading.Event(), threading.Event()

    def busy() -> None:
        begun.set()
        go_on.wait(30)

    with ThreadPoolExecutor(len(calls) + 1) as pool:
        pool.submit(hold, busy)
        begun.wait(30)
        before = waiting()
        made = [pool.submit(call) for call in calls]
        wait_until(waiting, lambda now: now - before == len(calls))
        go_on.set()
        return [one.result() for one in made]


@pytest.fixture
def twins(serve, daily_models, tmp_path) -> tuple[TestClient, TestClient]:
    """Two servers that were told the same."""
    one, other = (
        serve(daily_models[0], data_dir=tmp_path / name, unknown_series="create")
        for name in ("one", "other")
    )
    for client in (one, other):
        for day in range(DAYS):
            client.app.state.slot.serving.write_queue.record(sent(day, NAMES, 500.0))
    return one, other


@pytest.mark.parametrize("odd", [1e30, 1e308, 1e-308, 0.0])
def test_an_odd_value_stays_with_its_series(twins, odd):
    """In the same request, the same transaction, and the same call for forecasts."""
    told = []
    for client, y in zip(twins, (500.0, odd), strict=True):
        serving, metrics = client.app.state.slot.serving, client.app.state.metrics
        write_queue, executor = serving.write_queue, serving.engine.executor
        write_queue.record(sent(DAYS, NAMES, y))
        reports = [partial(write_queue.record, sent(DAYS + 1, [name], y)) for name in NAMES]
        together(write_queue._ask, lambda line=write_queue._line: len(line), reports)
        asks = [partial(forecasts, client, [name]) for name in NAMES]
        pending = partial(metrics.registry.get_sample_value, "statecast_pending_requests")
        alone = together(partial(executor.run, patient=True), pending, asks)
        told.append((forecasts(client, OTHERS), forecasts(client, NAMES), alone))

    assert told[0] == told[1]


@pytest.mark.parametrize("token", ["NaN", "Infinity", "-Infinity", "1e30", "1e999"])
def test_what_is_no_number_is_refused_with_all_that_came_with_it(twins, token):
    """JSON has none of these, or they are beyond what is taken; nothing moves."""
    plain, other = twins
    good = f'{{"unique_id": "{NAMES[0]}", "ds": "{NAMED[DAYS]}", "y": 500.0}}'
    bad = f'{{"unique_id": "{ODD}", "ds": "{NAMED[DAYS]}", "y": {token}}}'

    answer = other.post(
        "/v1/observations",
        content=f'{{"observations": [{good}, {bad}]}}',
        headers={"Content-Type": "application/json"},
    )

    assert answer.status_code in {400, 422}
    assert answer.json()["code"] in {"request.malformed", "request.validation"}
    body = {"unique_ids": NAMES}
    assert other.post("/v1/forecasts", json=body).content == (
        plain.post("/v1/forecasts", json=body).content
    )


def test_a_value_not_known_stays_with_its_series(serve, weekly_bundle, weekly, tmp_path):
    """`null`, where the policy takes it, in the same request as the values of others."""
    names = sorted(weekly["unique_id"].unique())
    last = weekly.groupby("unique_id").tail(1).set_index("unique_id")
    made = []
    for folder, y in (("one", 9000.0), ("other", None)):
        client = serve(weekly_bundle, weekly, data_dir=tmp_path / folder)
        after = [
            str((last.loc[name, "ds"] + pd.Timedelta(weeks=i)).date())
            for name in names
            for i in range(1, 8)
        ]
        rows = [
            {
                "unique_id": name,
                "price": 2.0,
                "deal": 0,
                "feat": 0,
                "ds": after[7 * i],
                "y": y if i == 0 else 5000.0,
            }
            for i, name in enumerate(names)
        ]
        assert client.post("/v1/observations", json={"observations": rows}).status_code == 200
        futr = [
            {"unique_id": name, "ds": ds, "price": 2.0, "deal": 0}
            for i, name in enumerate(names)
            for ds in after[7 * i + 1 : 7 * i + 7]
        ]
        body = {"unique_ids": names, "futr": futr}
        made.append(client.post("/v1/forecasts", json=body).json()["forecasts"])

    assert made[0][0] != made[1][0]
    assert made[0][1:] == made[1][1:]

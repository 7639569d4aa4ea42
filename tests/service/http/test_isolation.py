"""
An unusual value in one series changes no byte of any other series' forecast.

Each case runs on two servers that differ in one value of one series. The forecasts of all other
series must be byte-identical, also if they share a request, a transaction or a batch with it.
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

from benchmarks.speed.clients import DAY_TEXTS
from benchmarks.speed.servers import wait_until
from service.ingest.batch import ObservationBatch

Call = Callable[[], Any]
NAMES = [f"s{i}" for i in range(8)]
ODD, OTHERS = NAMES[3], [*NAMES[:3], *NAMES[4:]]
DAYS = 12


def batch_for(day: int, names: Sequence[str], odd: float) -> ObservationBatch:
    """Return one day of some series as a batch, so that no check of the HTTP schema applies."""
    usual = dict(zip(NAMES, np.random.default_rng(day).uniform(100, 900, len(NAMES)), strict=True))
    y = np.array([odd if name == ODD else usual[name] for name in names], np.float64)
    stamps = np.full(len(names), pd.Timestamp(DAY_TEXTS[day]).value)
    return ObservationBatch(
        names, stamps, y, np.empty((len(names), 0)), (), lambda item: f"/{item}"
    )


def forecasts(client: TestClient, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return the forecasts of some series from one request, without that of the odd series."""
    answer = client.post("/v1/forecasts", json={"unique_ids": names, "level": [80, 95]})
    assert answer.status_code == 200, answer.text
    return [one for one in answer.json()["forecasts"] if one["unique_id"] != ODD]


def run_together(
    hold: Callable[[Call], Any], queue_length: Callable[[], float], calls: list[Call]
) -> list[Any]:
    """Queue all calls while `hold` blocks the thread that serves them; return their results."""
    started, release = threading.Event(), threading.Event()

    def block() -> None:
        started.set()
        release.wait(30)

    with ThreadPoolExecutor(len(calls) + 1) as pool:
        pool.submit(hold, block)
        started.wait(30)
        before = queue_length()
        futures = [pool.submit(call) for call in calls]
        wait_until(queue_length, lambda length: length - before == len(calls))
        release.set()
        return [future.result() for future in futures]


@pytest.fixture
def twins(serve, daily_models, tmp_path) -> tuple[TestClient, TestClient]:
    """Return clients of two servers with the same model and the same observations."""
    one, other = (
        serve(daily_models[0], data_dir=tmp_path / name, unknown_series="create")
        for name in ("one", "other")
    )
    for client in (one, other):
        for day in range(DAYS):
            client.app.state.slot.serving.write_queue.record(batch_for(day, NAMES, 500.0))
    return one, other


@pytest.mark.parametrize("odd", [1e30, 1e308, 1e-308, 0.0])
def test_an_extreme_value_changes_no_other_series(twins, odd):
    """Others share its request, its transaction, or its batch of forecasts."""
    answers = []
    for client, y in zip(twins, (500.0, odd), strict=True):
        serving, metrics = client.app.state.slot.serving, client.app.state.metrics
        write_queue, executor = serving.write_queue, serving.engine.executor
        write_queue.record(batch_for(DAYS, NAMES, y))
        reports = [partial(write_queue.record, batch_for(DAYS + 1, [name], y)) for name in NAMES]
        run_together(write_queue._submit, lambda line=write_queue._jobs: len(line), reports)
        requests = [partial(forecasts, client, [name]) for name in NAMES]
        pending = partial(metrics.registry.get_sample_value, "statecast_pending_requests")
        alone = run_together(partial(executor.run, patient=True), pending, requests)
        answers.append((forecasts(client, OTHERS), forecasts(client, NAMES), alone))

    assert answers[0] == answers[1]


@pytest.mark.parametrize("token", ["NaN", "Infinity", "-Infinity", "1e30", "1e999"])
def test_a_request_with_a_value_that_is_no_number_is_refused_whole(twins, token):
    """NaN, infinity and values out of range are refused, and no forecast changes."""
    plain, other = twins
    good = f'{{"unique_id": "{NAMES[0]}", "ds": "{DAY_TEXTS[DAYS]}", "y": 500.0}}'
    bad = f'{{"unique_id": "{ODD}", "ds": "{DAY_TEXTS[DAYS]}", "y": {token}}}'

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


def test_a_null_value_changes_no_other_series(serve, weekly_bundle, weekly, tmp_path):
    """A masked `null` shares its request with values of other series."""
    names = sorted(weekly["unique_id"].unique())
    last = weekly.groupby("unique_id").tail(1).set_index("unique_id")
    answers = []
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
        answers.append(client.post("/v1/forecasts", json=body).json()["forecasts"])

    assert answers[0][0] != answers[1][0]
    assert answers[0][1:] == answers[1][1:]

"""Counts, long horizons and cold starts work over HTTP with a real server process."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
import pytest

from benchmarks.speed.servers import server
from forecast.bundle import load_bundle
from forecast.config import DataConfig
from forecast.data.panel import Panel
from forecast.data.validation import validate
from forecast.inference.forecasting import forecast
from forecast.inference.observing import warm_up
from service.api import schemas
from service.api.forecast_requests import QuantilePlan
from tests.helpers.service import HORIZON, Serve, train_tiny

RATES = {"bolt": 0.3, "nut": 0.6, "screw": 1.5, "washer": 0.4}


@pytest.fixture(scope="module")
def demand() -> pd.DataFrame:
    """Return half a year of four items that sell 0.3 to 1.5 pieces a day on average."""
    rng = np.random.default_rng(0)
    days = pd.date_range("2024-01-01", periods=182)
    parts = [
        pd.DataFrame({"unique_id": name, "ds": days, "y": rng.poisson(rate, 182).astype(float)})
        for name, rate in RATES.items()
    ]
    return pd.concat(parts, ignore_index=True)


@pytest.fixture(scope="module")
def demand_bundle(demand: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of a model of counts, a kind that training detects from the data."""
    data = DataConfig(freq="D")
    directory = tmp_path_factory.mktemp("demand") / "parts"
    return train_tiny(demand, data, directory, max_steps=150)


@pytest.fixture(scope="module")
def shop(
    demand: pd.DataFrame, demand_bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    """Yield a client of a server process with this model and the history in its log."""
    folder = tmp_path_factory.mktemp("shop")
    demand.to_parquet(folder / "seed.parquet")
    environment = {
        "STATECAST_MODEL": str(demand_bundle),
        "STATECAST_DATA_DIR": str(folder),
        "STATECAST_SEED_DATA": str(folder / "seed.parquet"),
    }
    with server(environment) as running, httpx.Client(base_url=running.url, timeout=60) as client:
        yield client


def request_forecasts(client: httpx.Client, **body: object) -> list[dict]:
    """Return the forecasts of a request that must succeed."""
    answer = client.post("/v1/forecasts", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()["forecasts"]


def inline_history(demand: pd.DataFrame, name: str) -> dict:
    """Return the whole history of an item as one entry of `series` in a request."""
    own = demand[demand["unique_id"] == name]
    stamps = [str(ds.date()) for ds in own["ds"]]
    return {"unique_id": name, "ds": stamps, "y": own["y"].tolist()}


def test_counts_are_forecast_by_their_mean(shop, demand, demand_bundle):
    """`statecast` is near the mean of the last two months and above the median."""
    usual = demand.groupby("unique_id").tail(60).groupby("unique_id")["y"].mean()
    bundle = load_bundle(demand_bundle)
    panel = Panel.from_frame(validate(demand, bundle.config.data))
    quantiles = (0.1, 0.9, 0.5)
    expected = forecast(bundle, warm_up(bundle, panel), quantiles=quantiles)

    forecasts = request_forecasts(shop, unique_ids=list(RATES), level=[80], quantiles=[0.5])

    assert shop.get("/v1/models").json()["models"][0]["kind"] == "count"
    for one, values in zip(forecasts, expected, strict=True):
        columns = [one["statecast"], one["lo-80"], one["hi-80"], one["quantiles"]["0.5"]]
        np.testing.assert_allclose(np.array(columns).T, values, rtol=1e-4, atol=1e-5)
        low, high, median = columns[1:]
        assert all(0 <= a <= b <= c for a, b, c in zip(low, median, high, strict=True))
        assert np.mean(one["statecast"]) == pytest.approx(usual[one["unique_id"]], rel=0.5)
        assert all(m < mean for m, mean in zip(median, one["statecast"], strict=True))


def test_a_forecast_reaches_ten_times_the_trained_horizon(shop):
    """Its first steps equal a short forecast; all are finite, with stamps and intervals."""
    short = request_forecasts(shop, unique_ids=["nut"], h=HORIZON, level=[80])[0]

    long = request_forecasts(shop, unique_ids=["nut"], h=10 * HORIZON, level=[80])[0]

    for column in ("statecast", "lo-80", "hi-80"):
        assert len(long[column]) == 10 * HORIZON
        np.testing.assert_allclose(long[column][:HORIZON], short[column], rtol=1e-5)
    assert long["ds"][-1] == "2024-08-29"
    assert np.isfinite(long["statecast"]).all()
    assert long["hi-80"][-1] - long["lo-80"][-1] > 0


def test_a_longer_horizon_is_refused(shop):
    """The problem names the trained horizon and the largest one allowed."""
    refused = shop.post("/v1/forecasts", json={"unique_ids": ["nut"], "h": 10 * HORIZON + 1})

    assert (refused.status_code, refused.json()["code"]) == (422, "forecast.horizon")
    assert "learned 1 to 6 steps and extrapolates to at most 60" in refused.json()["detail"]


def test_a_long_cold_forecast_equals_the_live_one(shop, demand):
    """From the same history both are equal at four times the trained horizon."""
    live = request_forecasts(shop, unique_ids=["screw"], h=4 * HORIZON, quantiles=[0.9])[0]

    series = [inline_history(demand, "screw")]
    cold = request_forecasts(shop, series=series, h=4 * HORIZON, quantiles=[0.9])[0]

    assert cold["state"] == "cold"
    assert cold["ds"] == live["ds"]
    np.testing.assert_allclose(cold["statecast"], live["statecast"], rtol=1e-4)
    np.testing.assert_allclose(cold["quantiles"]["0.9"], live["quantiles"]["0.9"], rtol=1e-4)


def test_an_unseen_series_is_forecast_from_three_values(shop):
    """Point forecasts are positive, and the lower bounds are not negative."""
    new = {"unique_id": "rivet", "ds": ["2024-07-01", "2024-07-02", "2024-07-03"], "y": [0, 2, 0]}

    cold = request_forecasts(shop, series=[new], h=2 * HORIZON, level=[95])[0]

    assert len(cold["statecast"]) == 2 * HORIZON
    assert min(cold["statecast"]) > 0
    assert min(cold["lo-95"]) >= 0


def test_a_count_of_zero_is_stored_and_a_negative_one_is_refused(shop, demand):
    """The problem names the kind, and only the zero is stored."""
    sold = {"unique_id": "washer", "ds": "2024-07-01", "y": 0}

    refused = shop.post("/v1/observations", json={"observations": [{**sold, "y": -1}]})
    stored = shop.post("/v1/observations", json={"observations": [sold]})

    assert (refused.status_code, refused.json()["code"]) == (422, "data.negative")
    assert "kind 'count'" in refused.json()["detail"]
    assert stored.json()["new"] == 1
    assert request_forecasts(shop, unique_ids=["washer"])[0]["position"]["observations"] == 183


def test_a_response_with_too_many_numbers_is_refused(serve: Serve, monthly_bundle, monthly):
    """`max_values` limits series times steps times columns, so that no response has gigabytes."""
    client = serve(monthly_bundle, monthly, limits={"max_values": 100})
    ids = list(monthly["unique_id"].unique()[:2])
    body = {"unique_ids": ids, "level": [80], "quantiles": [0.25]}

    fits = client.post("/v1/forecasts", json={**body, "h": 12})
    refused = client.post("/v1/forecasts", json={**body, "h": 13})

    assert fits.status_code == 200
    assert (refused.status_code, refused.json()["code"]) == (413, "request.too_large")
    assert "104 numbers" in refused.json()["detail"]


def test_the_size_of_a_response_counts_each_column_once():
    """There is one point, two bounds for each level and one column for each quantile."""
    body = schemas.ForecastRequest(unique_ids=["a"], level=[80, 80], quantiles=[0.9])

    assert QuantilePlan.of(body).answer_size(series=3, horizon=5) == 3 * 5 * 4

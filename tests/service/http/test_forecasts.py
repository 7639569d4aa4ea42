"""`POST /v1/forecasts`: what it answers, from live states and from histories sent along."""

import numpy as np
import pandas as pd
import pytest

from forecast.bundle import load_bundle
from forecast.config import DataConfig
from forecast.data.panel import Panel
from forecast.data.validation import validate
from forecast.inference.forecasting import forecast
from forecast.inference.observing import warm_up
from tests.helpers.service import HORIZON


def futr_rows(weekly: pd.DataFrame, unique_id: str, stamps: list[str]) -> list[dict]:
    """Known-future covariates as a client sends them."""
    return [{"unique_id": unique_id, "ds": ds, "price": 0.04, "deal": 1} for ds in stamps]


def test_a_live_forecast_equals_the_library_on_the_same_history(
    retail_client, monthly, monthly_bundle
):
    """The service adds nothing: numbers, columns and stamps are the library's."""
    ids = sorted(monthly["unique_id"].unique(), reverse=True)
    bundle = load_bundle(monthly_bundle)
    panel = Panel.from_frame(validate(monthly, DataConfig(freq="MS")))
    expected = forecast(bundle, warm_up(bundle, panel), horizon=4, quantiles=(0.1, 0.9, 0.25))[
        ::-1
    ]  # the panel is in order of names

    answer = retail_client.post(
        "/v1/forecasts", json={"unique_ids": ids, "h": 4, "level": [80], "quantiles": [0.25]}
    ).json()

    assert [one["unique_id"] for one in answer["forecasts"]] == ids
    for one, values in zip(answer["forecasts"], expected, strict=True):
        columns = [one["statecast"], one["lo-80"], one["hi-80"], one["quantiles"]["0.25"]]
        np.testing.assert_allclose(np.array(columns).T, values, rtol=1e-5)
        assert one["ds"] == ["2019-01-01", "2019-02-01", "2019-03-01", "2019-04-01"]
        assert one["position"] == {"last_ds": "2018-12-01", "observations": 120}
    assert answer["model"] == {"name": "retail", "version": None, "digest": bundle.digest}


def test_a_cold_forecast_equals_the_live_one_on_the_same_history(retail_client, monthly):
    """Sending the whole history costs more and gives the same."""
    one = monthly[monthly["unique_id"] == monthly["unique_id"].iloc[0]]
    inline = {
        "unique_id": "mine",
        "ds": [str(ds.date()) for ds in one["ds"]],
        "y": one["y"].tolist(),
    }

    cold = retail_client.post("/v1/forecasts", json={"series": [inline], "level": [95]}).json()
    live = retail_client.post(
        "/v1/forecasts", json={"unique_ids": [one["unique_id"].iloc[0]], "level": [95]}
    ).json()

    cold, live = cold["forecasts"][0], live["forecasts"][0]
    assert (cold["state"], live["state"]) == ("cold", "rebuilt")
    assert len(cold["statecast"]) == HORIZON
    for column in ("statecast", "lo-95", "hi-95"):
        np.testing.assert_allclose(cold[column], live[column], rtol=1e-5)


def test_a_forecast_changes_nothing(retail_client, monthly):
    """Asking twice, cold or live, gives the same answer from the same position."""
    name = monthly["unique_id"].iloc[0]
    body = {"unique_ids": [name], "h": 3}

    first = retail_client.post("/v1/forecasts", json=body).json()
    retail_client.post(
        "/v1/forecasts", json={"series": [{"unique_id": name, "ds": ["2000-01-01"], "y": [5.0]}]}
    )

    assert retail_client.post("/v1/forecasts", json=body).json() == first


def test_the_order_and_company_of_series_do_not_matter(retail_client, monthly):
    """Each series is answered as if it were alone."""
    ids = list(monthly["unique_id"].unique())
    together = retail_client.post("/v1/forecasts", json={"unique_ids": ids}).json()["forecasts"]

    for one in together:
        alone = retail_client.post("/v1/forecasts", json={"unique_ids": [one["unique_id"]]}).json()
        np.testing.assert_allclose(alone["forecasts"][0]["statecast"], one["statecast"], rtol=1e-5)


def test_known_future_covariates_move_the_forecast(juice_client, weekly):
    """A model that knows prices uses those that are sent, in any order of rows."""
    name = weekly["unique_id"].iloc[0]
    rows = futr_rows(weekly, name, ["1992-08-13", "1992-08-20"])
    dear = [{**row, "price": 0.08} for row in reversed(rows)]

    cheap = juice_client.post("/v1/forecasts", json={"unique_ids": [name], "h": 2, "futr": rows})
    other = juice_client.post("/v1/forecasts", json={"unique_ids": [name], "h": 2, "futr": dear})

    assert cheap.status_code == other.status_code == 200
    a, b = (r.json()["forecasts"][0]["statecast"] for r in (cheap, other))
    assert a != b


def test_a_missing_future_price_is_told_with_series_and_stamp(juice_client, weekly):
    """The first missing stamp is named, and how many there are."""
    name = weekly["unique_id"].iloc[0]
    rows = futr_rows(weekly, name, ["1992-08-13", "1992-08-27"])

    problem = juice_client.post("/v1/forecasts", json={"unique_ids": [name], "h": 3, "futr": rows})

    assert problem.status_code == 422
    told = problem.json()
    assert told["code"] == "data.missing_future"
    assert "1992-08-20" in told["where"]
    assert name in told["where"]


@pytest.mark.parametrize(
    ("body", "status", "code", "pointer"),
    [
        ({"unique_ids": ["nope"]}, 404, "series.unknown", "/unique_ids/0"),
        ({"unique_ids": ["A3349335T", "A3349335T"]}, 400, "request.invalid", "/unique_ids/1"),
        ({"unique_ids": ["A3349335T"], "h": 61}, 422, "forecast.horizon", None),
        ({"unique_ids": ["A3349335T"], "level": [99.9]}, 422, "forecast.quantile", None),
        (
            {"unique_ids": ["A3349335T"], "futr": [{"unique_id": "b", "ds": "2019-01-01"}]},
            400,
            "request.invalid",
            "/futr/0/unique_id",
        ),
        ({}, 422, "request.validation", ""),
        (
            {"series": [{"unique_id": "a", "ds": ["2019-01-01"], "y": [1, 2]}]},
            422,
            "data.wrong_type",
            "/series/0/y",
        ),
        (
            {"series": [{"unique_id": "a", "ds": ["2019-01-02"], "y": [1]}]},
            422,
            "data.frequency",
            "/series/0/ds/0",
        ),
        (
            {"series": [{"unique_id": "a", "ds": ["2019-01-01", "2019-03-01"], "y": [1, 2]}]},
            409,
            "data.gap",
            "/series/0/ds/1",
        ),
        (
            {"series": [{"unique_id": "a", "ds": ["01/02/2019"], "y": [1]}]},
            422,
            "data.bad_stamps",
            "/series/0/ds/0",
        ),
        (
            {"series": [{"unique_id": "a", "ds": [5], "y": [1]}]},
            422,
            "data.bad_stamps",
            "/series/0/ds/0",
        ),
        (
            {"series": [{"unique_id": "a", "ds": ["2019-01-01"], "y": [-1]}]},
            422,
            "data.negative",
            "/series/0/ds/0",
        ),
        (
            {"series": [{"unique_id": "a", "ds": ["2019-01-01"], "y": [None]}]},
            422,
            "data.missing_values",
            "/series/0/ds/0",
        ),
        (
            {"series": [{"unique_id": "a", "ds": ["2019-01-01"], "y": [1], "prize": [1]}]},
            400,
            "request.invalid",
            "/series/0/prize",
        ),
        (
            {
                "series": [
                    {"unique_id": "a", "ds": ["2019-01-01"], "y": [1], "static": {"brand": "x"}}
                ]
            },
            422,
            "data.wrong_type",
            "/series/0/static/brand",
        ),
    ],
)
def test_a_request_that_cannot_be_served_says_where_and_why(
    retail_client, body, status, code, pointer
):
    """Each mistake has its code, and the place in the body."""
    answer = retail_client.post("/v1/forecasts", json=body)

    told = answer.json()
    assert (answer.status_code, told["code"]) == (status, code)
    if pointer is not None:
        assert told["errors"][0]["pointer"] == pointer


def test_stamps_with_an_offset_are_utc(retail_client):
    """`Z` and `+00:00` are the naive stamp; another offset leaves the grid and is refused."""

    def ask(ds):
        series = [{"unique_id": "a", "ds": [ds], "y": [1]}]
        return retail_client.post("/v1/forecasts", json={"series": series})

    naive, zulu = ask("2019-01-01T00:00:00").json(), ask("2019-01-01T00:00:00Z").json()
    moved = ask("2019-01-01T00:00:00+02:00").json()

    assert naive == zulu
    assert moved["code"] == "data.frequency"

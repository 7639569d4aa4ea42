"""`POST /v1/forecasts` forecasts from live states, or from histories in the request."""

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


def future_rows(weekly: pd.DataFrame, unique_id: str, stamps: list[str]) -> list[dict]:
    """Return known-future covariates as rows of a request body."""
    return [{"unique_id": unique_id, "ds": ds, "price": 0.04, "deal": 1} for ds in stamps]


def test_a_live_forecast_equals_the_library_on_the_same_history(
    retail_client, monthly, monthly_bundle
):
    """The response has the point forecasts, intervals, quantiles and stamps of the library."""
    ids = sorted(monthly["unique_id"].unique(), reverse=True)
    bundle = load_bundle(monthly_bundle)
    panel = Panel.from_frame(validate(monthly, DataConfig(freq="MS")))
    expected = forecast(bundle, warm_up(bundle, panel), horizon=4, quantiles=(0.1, 0.9, 0.25))[
        ::-1
    ]  # the panel is sorted by id, `ids` in reverse

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
    """The history in the request gives the forecast of the stored state within 1e-5."""
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
    """The same live request gets the same response, also after a cold one for the same id."""
    name = monthly["unique_id"].iloc[0]
    body = {"unique_ids": [name], "h": 3}

    first = retail_client.post("/v1/forecasts", json=body).json()
    retail_client.post(
        "/v1/forecasts", json={"series": [{"unique_id": name, "ds": ["2000-01-01"], "y": [5.0]}]}
    )

    assert retail_client.post("/v1/forecasts", json=body).json() == first


def test_a_forecast_does_not_depend_on_other_series_in_the_request(retail_client, monthly):
    """A series gets the same forecast in a request of its own and together with others."""
    ids = list(monthly["unique_id"].unique())
    together = retail_client.post("/v1/forecasts", json={"unique_ids": ids}).json()["forecasts"]

    for one in together:
        alone = retail_client.post("/v1/forecasts", json={"unique_ids": [one["unique_id"]]}).json()
        np.testing.assert_allclose(alone["forecasts"][0]["statecast"], one["statecast"], rtol=1e-5)


def test_known_future_covariates_move_the_forecast(juice_client, weekly):
    """Higher future prices give another forecast; the rows may come in any order."""
    name = weekly["unique_id"].iloc[0]
    rows = future_rows(weekly, name, ["1992-08-13", "1992-08-20"])
    dearer = [{**row, "price": 0.08} for row in reversed(rows)]

    body = {"unique_ids": [name], "h": 2}
    usual = juice_client.post("/v1/forecasts", json={**body, "futr": rows})
    changed = juice_client.post("/v1/forecasts", json={**body, "futr": dearer})

    assert usual.status_code == changed.status_code == 200
    a, b = (r.json()["forecasts"][0]["statecast"] for r in (usual, changed))
    assert a != b


def test_a_missing_future_price_is_reported_with_series_and_stamp(juice_client, weekly):
    """The problem names the series and the first stamp that has no price."""
    name = weekly["unique_id"].iloc[0]
    rows = future_rows(weekly, name, ["1992-08-13", "1992-08-27"])

    response = juice_client.post("/v1/forecasts", json={"unique_ids": [name], "h": 3, "futr": rows})

    assert response.status_code == 422
    problem = response.json()
    assert problem["code"] == "data.missing_future"
    assert "1992-08-20" in problem["where"]
    assert name in problem["where"]


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
def test_an_invalid_request_is_refused_with_a_code_and_a_pointer(
    retail_client, body, status, code, pointer
):
    """The problem has the code of the error and a JSON pointer to its place in the body."""
    answer = retail_client.post("/v1/forecasts", json=body)

    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (status, code)
    if pointer is not None:
        assert problem["errors"][0]["pointer"] == pointer


def test_stamps_with_an_offset_are_converted_to_utc(retail_client):
    """A stamp with `Z` equals the naive one; one moved off the grid is refused."""

    def forecast_from(ds):
        series = [{"unique_id": "a", "ds": [ds], "y": [1]}]
        return retail_client.post("/v1/forecasts", json={"series": series})

    naive = forecast_from("2019-01-01T00:00:00").json()
    zulu = forecast_from("2019-01-01T00:00:00Z").json()
    moved = forecast_from("2019-01-01T00:00:00+02:00").json()

    assert naive == zulu
    assert moved["code"] == "data.frequency"

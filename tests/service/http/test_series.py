"""Series, states, models and what operators ask for."""

import re

import pytest


def test_series_are_listed_page_by_page_in_the_order_of_their_names(retail_client, monthly):
    """Following `next` gives each series once."""
    names, params = [], {"limit": 2}
    while params.get("cursor", "") is not None:
        page = retail_client.get("/v1/series", params=params)
        names += [one["unique_id"] for one in page.json()["series"]]
        params["cursor"] = page.json()["next"]

    assert names == sorted(monthly["unique_id"].unique())
    assert page.json()["total"] == 5


def test_series_are_found_by_part_of_their_name(retail_client):
    """Whatever its case."""
    found = retail_client.get("/v1/series", params={"q": "a334933"}).json()

    assert found["total"] == len(found["series"]) >= 1
    assert all("A334933" in one["unique_id"] for one in found["series"])
    assert retail_client.get("/v1/series", params={"q": "zzz"}).json()["series"] == []


def test_a_series_tells_what_is_stored_of_it(juice_client, weekly):
    """Span, steps, and the static covariates that came with the history."""
    detail = juice_client.get(f"/v1/series/{weekly['unique_id'].iloc[0]}").json()

    assert (detail["first_ds"], detail["last_ds"]) == ("1990-09-06", "1992-08-06")
    assert (detail["observations"], detail["filled"], detail["revisions"]) == (101, 0, 0)
    assert detail["static"] == {"brand": weekly["brand"].iloc[0]}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/series/nope"),
        ("GET", "/v1/series/nope/state"),
        ("POST", "/v1/series/a/b/c/state:rebuild"),
        ("DELETE", "/v1/series/nope"),
    ],
)
def test_an_unknown_series_is_not_found(retail_client, method, path):
    """With the code that all doors share."""
    answer = retail_client.request(method, path)

    assert (answer.status_code, answer.json()["code"]) == (404, "series.unknown")


def test_the_model_in_service_tells_what_it_takes(juice_client):
    """Frequency, horizon, roles of the covariates, and what it was trained on."""
    model = juice_client.get("/v1/models").json()["models"][0]

    assert (model["freq"], model["horizon"], model["fill"]) == ("W-THU", 6, "mask")
    assert (model["known_future"], model["past_only"]) == (["price", "deal"], ["feat"])
    assert model["in_service"] is True
    assert model["facts"]["series"] == 4


def test_probes_and_version(retail_client):
    """Alive, ready with model and progress, and what runs."""
    assert retail_client.get("/livez").json() == {"status": "alive"}
    assert retail_client.get("/healthz").json() == {"status": "alive"}
    ready = retail_client.get("/readyz").json()
    assert (ready["ready"], ready["series"], ready["replayed"]) == (True, 5, 5)
    assert retail_client.get("/version").json()["version"]


def test_without_a_model_the_server_lives_and_says_why_it_is_not_ready(serve, tmp_path):
    """503 with the reason, on the probe and on every route that needs the model."""
    client = serve(tmp_path / "nothing")

    assert client.get("/livez").status_code == 200
    ready = client.get("/readyz")
    assert (ready.status_code, ready.json()["phase"]) == (503, "failed")
    assert "no bundle in this directory" in ready.json()["reason"]
    assert client.get("/v1/models").json()["code"] == "service.not_ready"


def test_a_damaged_bundle_is_never_served(serve, monthly_bundle, tmp_path):
    """One altered byte of the weights, and the server refuses it."""
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in monthly_bundle.iterdir():
        data = bytearray(file.read_bytes())
        data[-1] ^= file.suffix == ".safetensors"
        (broken / file.name).write_bytes(bytes(data))

    client = serve(broken)

    assert "altered" in client.get("/readyz").json()["reason"]


def test_an_empty_log_is_seeded_once(serve, monthly_bundle, monthly, tmp_path):
    """`seed_data` fills a log that holds nothing, and is left alone afterwards."""
    monthly.to_parquet(tmp_path / "seed.parquet")
    client = serve(monthly_bundle, seed_data=tmp_path / "seed.parquet")
    client.post(
        "/v1/observations",
        json={
            "observations": [{"unique_id": "A3349335T", "ds": "2019-01-01", "y": 1.0}],
        },
    )
    client.__exit__(None, None, None)

    again = serve(monthly_bundle, seed_data=tmp_path / "seed.parquet")

    assert again.get("/v1/series/A3349335T").json()["observations"] == 121


def test_metrics_count_by_route_and_never_by_series(retail_client):
    """Names follow the conventions; no label holds a series."""
    retail_client.post("/v1/forecasts", json={"unique_ids": ["A3349335T"]})
    retail_client.post("/v1/forecasts", json={"unique_ids": ["nope"]})
    retail_client.get("/v1/series/A3349335T")
    retail_client.get("/nowhere/A3349335T")

    text = retail_client.get("/metrics").text

    assert 'handler="/v1/series/{unique_id}",method="GET",model="default",status="200"} 1.0' in text
    assert 'handler="none",method="GET",model="default",status="404"} 1.0' in text
    assert (
        'statecast_inference_requests_total{model="default",outcome="success",version=""} 1.0'
        in text
    )
    assert 'statecast_inference_failures_total{model="default",reason="request"} 1.0' in text
    assert 'statecast_series{model="default"} 5.0' in text
    assert "A3349335T" not in text
    assert re.search(
        r'statecast_model_info\{alias="",digest="[0-9a-f]{12}",model="default",name="retail"', text
    )


def test_the_access_log_has_one_line_a_request_without_secrets(serve, monthly_bundle, caplog):
    """Method, path, status, time and id; no header, no body, no query."""
    client = serve(monthly_bundle, api_keys=["k3y"])

    with caplog.at_level("INFO", "service.access"):
        client.get("/v1/series?q=hidden", headers={"x-api-key": "k3y", "x-request-id": "me"})

    lines = [r.message for r in caplog.records if r.name == "service.access"]
    assert len(lines) == 1
    assert re.fullmatch(r"GET /v1/series 200 \d+\.\dms id=me", lines[0])


def test_a_deleted_series_is_gone_and_may_begin_anew(serve, monthly_bundle, monthly):
    """Its name is free: what comes then knows nothing of before, at the next start neither."""
    names = sorted(monthly["unique_id"].unique())
    client = serve(monthly_bundle, monthly, unknown_series="create")
    gone = client.delete(f"/v1/series/{names[1]}").json()
    assert gone == {"unique_id": names[1], "rows": 120}
    assert client.get(f"/v1/series/{names[1]}").status_code == 404
    assert client.post("/v1/forecasts", json={"unique_ids": [names[1]]}).status_code == 404

    fresh = {"unique_id": names[1], "ds": "2021-05-01", "y": 12.0}
    other = {"unique_id": "another", "ds": "2020-01-01", "y": 7.0}
    sent = client.post("/v1/observations", json={"observations": [fresh, other]}).json()
    assert sent["created"] == [names[1], "another"]
    made = client.post("/v1/forecasts", json={"unique_ids": names}).json()["forecasts"]
    assert [one["position"]["observations"] for one in made] == [120, 1, 120, 120, 120]
    folder = client.app.state.settings.data_dir
    client.__exit__(None, None, None)

    again = serve(monthly_bundle, data_dir=folder)

    restored = again.post("/v1/forecasts", json={"unique_ids": names}).json()["forecasts"]
    for one, other in zip(made, restored, strict=True):
        assert one["statecast"] == pytest.approx(other["statecast"], rel=1e-5)
        assert one["position"] == other["position"]

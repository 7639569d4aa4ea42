"""Series, states, models, probes, metrics and the access log are served over HTTP."""

import re

import pytest


def test_series_are_listed_in_pages_sorted_by_name(retail_client, monthly):
    """Following the cursor `next` gives each series once."""
    names, params = [], {"limit": 2}
    while params.get("cursor", "") is not None:
        page = retail_client.get("/v1/series", params=params)
        names += [one["unique_id"] for one in page.json()["series"]]
        params["cursor"] = page.json()["next"]

    assert names == sorted(monthly["unique_id"].unique())
    assert page.json()["total"] == 5


def test_series_are_searched_by_a_part_of_their_name(retail_client):
    """The search ignores case."""
    page = retail_client.get("/v1/series", params={"q": "a334933"}).json()

    assert page["total"] == len(page["series"]) >= 1
    assert all("A334933" in one["unique_id"] for one in page["series"])
    assert retail_client.get("/v1/series", params={"q": "zzz"}).json()["series"] == []


def test_a_series_shows_what_the_log_stores(juice_client, weekly):
    """It has its first and last stamp, its counts of steps, and its static covariates."""
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
    """Every route responds with 404 and the code `series.unknown`."""
    answer = retail_client.request(method, path)

    assert (answer.status_code, answer.json()["code"]) == (404, "series.unknown")


def test_the_model_in_service_describes_its_inputs(juice_client):
    """It lists frequency, horizon, roles of the covariates, and facts about its training."""
    model = juice_client.get("/v1/models").json()["models"][0]

    assert (model["freq"], model["horizon"], model["fill"]) == ("W-THU", 6, "mask")
    assert (model["known_future"], model["past_only"]) == (["price", "deal"], ["feat"])
    assert model["in_service"] is True
    assert model["facts"]["series"] == 4


def test_probes_and_version_are_served(retail_client):
    """Liveness, readiness with the progress of the replay, and the version have routes."""
    assert retail_client.get("/livez").json() == {"status": "alive"}
    assert retail_client.get("/healthz").json() == {"status": "alive"}
    ready = retail_client.get("/readyz").json()
    assert (ready["ready"], ready["series"], ready["replayed"]) == (True, 5, 5)
    assert retail_client.get("/version").json()["version"]


def test_a_server_without_a_model_is_alive_and_not_ready(serve, tmp_path):
    """The readiness probe has status 503 and the reason; routes that need the model fail."""
    client = serve(tmp_path / "nothing")

    assert client.get("/livez").status_code == 200
    ready = client.get("/readyz")
    assert (ready.status_code, ready.json()["phase"]) == (503, "failed")
    assert "no bundle in this directory" in ready.json()["reason"]
    assert client.get("/v1/models").json()["code"] == "service.not_ready"


def test_a_damaged_bundle_is_never_served(serve, monthly_bundle, tmp_path):
    """A server whose weights have one changed byte is not ready and names the reason."""
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in monthly_bundle.iterdir():
        data = bytearray(file.read_bytes())
        data[-1] ^= file.suffix == ".safetensors"
        (broken / file.name).write_bytes(bytes(data))

    client = serve(broken)

    assert "altered" in client.get("/readyz").json()["reason"]


def test_an_empty_log_is_seeded_once(serve, monthly_bundle, monthly, tmp_path):
    """`seed_data` fills an empty log, and is ignored at the next start."""
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


def test_metrics_have_labels_for_routes_and_none_for_series(retail_client):
    """Counters have the route template as a label, and no line contains the id of a series."""
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


def test_the_access_log_has_one_line_per_request_without_secrets(serve, monthly_bundle, caplog):
    """It has method, path, status, time and request id, but no header, body or query."""
    client = serve(monthly_bundle, api_keys=["k3y"])

    with caplog.at_level("INFO", "service.access"):
        client.get("/v1/series?q=hidden", headers={"x-api-key": "k3y", "x-request-id": "me"})

    lines = [r.message for r in caplog.records if r.name == "service.access"]
    assert len(lines) == 1
    assert re.fullmatch(r"GET /v1/series 200 \d+\.\dms id=me", lines[0])


def test_a_deleted_series_may_be_created_again(serve, monthly_bundle, monthly):
    """The new series has nothing of the old one, also after a restart."""
    names = sorted(monthly["unique_id"].unique())
    client = serve(monthly_bundle, monthly, unknown_series="create")
    deletion = client.delete(f"/v1/series/{names[1]}").json()
    assert deletion == {"unique_id": names[1], "rows": 120}
    assert client.get(f"/v1/series/{names[1]}").status_code == 404
    assert client.post("/v1/forecasts", json={"unique_ids": [names[1]]}).status_code == 404

    fresh = {"unique_id": names[1], "ds": "2021-05-01", "y": 12.0}
    other = {"unique_id": "another", "ds": "2020-01-01", "y": 7.0}
    sent = client.post("/v1/observations", json={"observations": [fresh, other]}).json()
    assert sent["created"] == [names[1], "another"]
    live = client.post("/v1/forecasts", json={"unique_ids": names}).json()["forecasts"]
    assert [one["position"]["observations"] for one in live] == [120, 1, 120, 120, 120]
    folder = client.app.state.settings.data_dir
    client.__exit__(None, None, None)

    again = serve(monthly_bundle, data_dir=folder)

    restored = again.post("/v1/forecasts", json={"unique_ids": names}).json()["forecasts"]
    for one, other in zip(live, restored, strict=True):
        assert one["statecast"] == pytest.approx(other["statecast"], rel=1e-5)
        assert one["position"] == other["position"]

"""Several models in one server, each under its name with its own series and log."""

import io
import json
import os
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from starlette.testclient import TestClient

from benchmarks.speed.servers import server, wait_until
from forecast.bundle import load_bundle
from forecast.config import DataConfig
from forecast.errors import ConfigError
from pipelines.cli.http_client import call
from service.ingest.importer import import_history
from service.settings import Settings
from tests.helpers.service import last_stamp, read_readiness, train_tiny


@pytest.fixture(scope="module")
def second(monthly, tmp_path_factory) -> Path:
    """Return another model of the monthly data."""
    folder = tmp_path_factory.mktemp("second")
    return train_tiny(monthly, DataConfig(freq="MS", kind="positive"), folder / "b", max_steps=6)


def point(client: TestClient, model: str, name: str) -> list[float]:
    """Return the point forecast of one series."""
    answer = client.post(f"/models/{model}/v1/forecasts", json={"unique_ids": [name]})
    assert answer.status_code == 200, answer.text
    return answer.json()["forecasts"][0]["statecast"]


def observe(client: TestClient, model: str, name: str, ds: str, y: float) -> None:
    """Report one value of a series."""
    row = {"unique_id": name, "ds": ds, "y": y}
    answer = client.post(f"/models/{model}/v1/observations", json={"observations": [row]})
    assert answer.status_code == 200, answer.text


def test_models_of_one_server_keep_their_series_apart(
    serve_named, monthly, weekly, monthly_bundle, weekly_bundle
):
    """A series of one model is unknown to the other."""
    client = serve_named(
        {"sales": monthly_bundle, "juice": weekly_bundle}, {"sales": monthly, "juice": weekly}
    )

    for model, table in (("sales", monthly), ("juice", weekly)):
        listed = client.get(f"/models/{model}/v1/series").json()["series"]
        assert [one["unique_id"] for one in listed] == sorted(table["unique_id"].unique())
    report = read_readiness(client)
    assert (report["ready"], report["series"]) == (True, 9)
    assert [*report["models"]] == ["sales", "juice"]
    assert client.get("/models/juice/readyz").json()["series"] == 4
    name = weekly["unique_id"].iloc[0]
    problem = client.get(f"/models/sales/v1/series/{name}").json()
    assert (problem["code"], problem["status"]) == ("series.unknown", 404)


def test_equal_names_under_equal_bundles_are_still_two_series(serve_named, monthly, monthly_bundle):
    """With one bundle over two logs, an observation of one changes no forecast of the other."""
    bundles = {"north": monthly_bundle, "south": monthly_bundle}
    client = serve_named(bundles, dict.fromkeys(bundles, monthly))
    series = monthly["unique_id"].iloc[0]
    before = point(client, "south", series)

    observe(client, "north", series, "2019-01-01", 9_000.0)

    assert point(client, "south", series) == before
    assert point(client, "north", series) != before
    assert last_stamp(client, "north", series) == "2019-01-01"
    assert last_stamp(client, "south", series) == "2018-12-01"
    client.__exit__(None, None, None)
    restarted = serve_named(bundles)
    assert last_stamp(restarted, "north", series) == "2019-01-01"
    assert last_stamp(restarted, "south", series) == "2018-12-01"
    np.testing.assert_allclose(point(restarted, "south", series), before, rtol=1e-5)


def test_requests_that_wait_at_the_same_time_are_answered_by_their_own_model(
    serve_named, monthly, monthly_bundle
):
    """Both models share the compute thread, but no call of the network, even with equal bundles."""
    client = serve_named(
        {"north": monthly_bundle, "south": monthly_bundle},
        {"north": monthly, "south": monthly},
    )
    name = monthly["unique_id"].iloc[0]
    observe(client, "north", name, "2019-01-01", 9_000.0)
    alone = {model: point(client, model, name) for model in ("north", "south")}
    executor = client.app.state.catalog.by_name["north"].serving.engine.executor
    assert client.app.state.catalog.by_name["south"].serving.engine.executor is executor
    hold = threading.Event()
    registry = client.app.state.metrics.registry
    with ThreadPoolExecutor(9) as callers:
        callers.submit(executor.run, lambda: hold.wait(30))
        waiting = [(model, callers.submit(point, client, model, name)) for model in [*alone] * 4]
        wait_until(
            lambda: registry.get_sample_value("statecast_pending_requests"), lambda n: n == 9
        )
        hold.set()
        for model, forecast in waiting:
            np.testing.assert_allclose(forecast.result(30), alone[model], rtol=1e-6)


def test_the_log_of_one_model_is_exported_and_pruned_alone(serve_named, monthly, monthly_bundle):
    """The other log keeps every row, and no forecast changes."""
    models = ("north", "south")
    client = serve_named(dict.fromkeys(models, monthly_bundle), dict.fromkeys(models, monthly))
    series = monthly["unique_id"].iloc[0]
    before = point(client, "north", series)

    answer = client.post("/models/north/v1/log:prune", json={"keep_steps": 12})

    assert (answer.status_code, answer.json()["rows"]) == (200, 540)
    for model, rows in (("north", 60), ("south", 600)):
        log = client.get(f"/models/{model}/v1/log")
        assert len(pd.read_parquet(io.BytesIO(log.content))) == rows
        assert point(client, model, series) == before
    assert client.get("/v1/log").json()["code"] == "request.model"


def test_a_model_is_replaced_and_rolled_back_while_the_other_serves(
    serve_named, monthly, monthly_bundle, second, tmp_path
):
    """Rollout and rollback concern one model only."""
    pointer = tmp_path / "served"
    shutil.copytree(monthly_bundle, pointer)
    client = serve_named(
        {"moving": pointer, "still": monthly_bundle},
        {"moving": monthly, "still": monthly},
        watch_seconds=0.05,
    )
    name = monthly["unique_id"].iloc[0]
    before = {model: point(client, model, name) for model in ("moving", "still")}
    shutil.copytree(second, tmp_path / "fresh")
    shutil.rmtree(pointer)
    (tmp_path / "fresh").rename(pointer)

    wait_until(
        lambda: client.get("/models/moving/readyz").json()["successor"] or {},
        lambda rollout: rollout.get("phase") == "in service",
    )

    assert point(client, "moving", name) != before["moving"]
    assert point(client, "still", name) == before["still"]
    assert client.post("/models/still/v1/models:rollback").status_code == 409
    assert client.post("/models/moving/v1/models:rollback").status_code == 200
    assert point(client, "moving", name) == before["moving"]
    text = client.get("/metrics").text
    assert 'statecast_model_successions_total{model="moving",outcome="in service"} 2.0' in text
    assert text.count('statecast_model_info{alias="",') == 2


def test_a_damaged_model_does_not_affect_the_others_and_is_served_once_repaired(
    serve_named, monthly, monthly_bundle, tmp_path
):
    """The others answer, and `/readyz` names the damaged model and the reason."""
    pointer = tmp_path / "served"
    shutil.copytree(monthly_bundle, pointer)
    (pointer / "weights.safetensors").write_bytes(b"torn")
    client = serve_named(
        {"sales": monthly_bundle, "torn": pointer}, {"sales": monthly}, watch_seconds=0.05
    )
    name = monthly["unique_id"].iloc[0]

    answer = client.get("/readyz")

    assert (answer.status_code, answer.json()["phase"]) == (200, "ready")
    assert answer.json()["reason"].startswith("torn: ")
    assert answer.json()["models"]["torn"]["phase"] == "failed"
    assert client.get("/models/torn/readyz").status_code == 503
    refused = client.post("/models/torn/v1/forecasts", json={"unique_ids": [name]})
    assert (refused.status_code, refused.json()["code"]) == (503, "service.not_ready")
    assert point(client, "sales", name)
    shutil.copyfile(monthly_bundle / "weights.safetensors", pointer / "weights.safetensors")
    wait_until(lambda: client.get("/models/torn/readyz").status_code, lambda code: code == 200)
    assert read_readiness(client)["reason"] == ""


def test_a_model_that_fails_to_start_gives_its_log_back(
    serve_named, monthly, monthly_bundle, weekly_bundle, tmp_path
):
    """The log has another frequency; a bundle that fits it can be loaded at the next try."""
    import_history(
        f"sqlite:///{tmp_path / 'data' / 'sales' / 'observations.db'}",
        monthly,
        load_bundle(monthly_bundle).config.data,
    )
    pointer = tmp_path / "served"
    shutil.copytree(weekly_bundle, pointer)
    client = serve_named({"sales": pointer, "other": weekly_bundle}, watch_seconds=0.05)
    assert "freq='MS'" in read_readiness(client)["reason"]

    shutil.copytree(monthly_bundle, pointer, dirs_exist_ok=True)

    wait_until(lambda: read_readiness(client)["reason"], lambda reason: reason == "")
    assert client.get("/models/sales/v1/series").json()["total"] == 5


def test_a_path_without_a_known_model_is_answered_with_the_known_names(serve_named, monthly_bundle):
    """The status is 404, and a misspelled name gets a suggestion."""
    client = serve_named({"sales": monthly_bundle, "stocks": monthly_bundle})

    bare = client.post("/v1/forecasts", json={"unique_ids": ["a"]}).json()
    wrong = client.get("/models/salse/v1/series").json()

    assert (bare["status"], bare["code"]) == (404, "request.model")
    assert "sales, stocks" in bare["detail"]
    assert (wrong["status"], wrong["code"]) == (404, "request.model")
    assert "did you mean 'sales'" in wrong["help"]
    nowhere = client.get("/models/sales/nowhere").json()
    assert (nowhere["code"], nowhere["help"]) == (
        "request.not_found",
        "see /docs for all paths",
    )
    assert client.get("/models/sales").text == client.get("/models/sales/docs").text


def test_a_server_of_one_model_has_no_paths_by_name(retail_client):
    """The answer says to leave the name out."""
    answer = retail_client.get("/models/sales/v1/series").json()
    assert answer["code"] == "request.not_found"
    assert "one model: leave out /models/NAME" in answer["help"]
    assert read_readiness(retail_client)["models"] == {}


def test_the_openapi_document_fits_each_model(serve_named, monthly, monthly_bundle):
    """Under a model's path it has its base URL and examples that work; else it has all models."""
    client = serve_named({"sales": monthly_bundle, "stocks": monthly_bundle}, {"sales": monthly})

    own = client.get("/models/sales/openapi.json").json()
    common = client.get("/openapi.json").json()

    assert own["servers"] == [{"url": "/models/sales"}]
    body = own["paths"]["/v1/forecasts"]["post"]["requestBody"]["content"]["application/json"]
    example = body["examples"]["live"]["value"]
    assert client.post(f"{own['servers'][0]['url']}/v1/forecasts", json=example).status_code == 200
    assert common["servers"][0]["variables"]["model"]["enum"] == ["sales", "stocks"]
    assert own["paths"].keys() == common["paths"].keys()
    assert "A33493" not in client.get("/models/stocks/openapi.json").text
    pytest.importorskip("fastapi_offline")
    assert client.get("/models/sales/docs").status_code == 200
    assert client.get("/models/sales/docs/assets/swagger-ui.css").status_code == 200


def test_keys_guard_every_model_but_its_probes(serve_named, monthly_bundle):
    """Only the probes of a model are answered without a key."""
    client = serve_named({"sales": monthly_bundle}, api_keys=["k"])

    assert client.get("/models/sales/v1/series").status_code == 401
    assert client.get("/models/sales/readyz").status_code == 200
    assert client.get("/models/sales/v1/series", headers={"x-api-key": "k"}).status_code == 200


def test_metrics_have_the_label_of_their_model(serve_named, monthly, monthly_bundle):
    """The label is empty for requests that concern no model."""
    client = serve_named(
        {"sales": monthly_bundle, "stocks": monthly_bundle},
        {"sales": monthly, "stocks": monthly},
    )
    name = monthly["unique_id"].iloc[0]
    observe(client, "sales", name, "2019-01-01", 300.0)
    point(client, "stocks", name)
    client.post("/models/stocks/v1/forecasts", json={"unique_ids": ["none"]})

    value = client.app.state.metrics.registry.get_sample_value

    new = "statecast_observations_total"
    assert value(new, {"model": "sales", "status": "new"}) == 1
    assert value(new, {"model": "stocks", "status": "new"}) is None
    assert value("statecast_series", {"model": "stocks"}) == 5
    answered = {"version": "", "outcome": "success"}
    assert value("statecast_inference_requests_total", {"model": "stocks", **answered}) == 1
    assert value("statecast_inference_requests_total", {"model": "sales", **answered}) is None
    failed = {"model": "stocks", "reason": "request"}
    assert value("statecast_inference_failures_total", failed) == 1
    http = {"method": "POST", "handler": "/v1/observations", "status": "200"}
    assert value("http_requests_total", {"model": "sales", **http}) == 1
    probes = {"method": "GET", "handler": "/readyz", "status": "200", "model": ""}
    assert value("http_requests_total", probes) >= 1


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"STATECAST_MODELS": '{"a": "x"}', "STATECAST_MODEL": "y"}, "are both set"),
        ({"STATECAST_MODELS": '{"a": "x"}', "STATECAST_SEED_DATA": "y.csv"}, "for one model"),
        ({"STATECAST_MODELS": '{"a": "x"}', "STATECAST_DATABASE_URL": "sqlite:///l.db"}, "one fi"),
        ({"STATECAST_MODELS": '{"Sales": "x"}'}, "cannot name a model"),
        ({"STATECAST_MODELS": '{"a/b": "x"}'}, "cannot name a model"),
        ({"STATECAST_MODELS": '{"bundles": "x"}'}, "cannot name a model"),
        ({"STATECAST_MODELS": "sales=x"}, "expected JSON"),
    ],
)
def test_settings_of_several_models_that_contradict_each_other_are_refused(
    variables, message, monkeypatch
):
    """The error is raised before anything is opened."""
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)

    with pytest.raises((ConfigError, ValueError), match=message):
        Settings()


def test_the_command_line_reaches_a_model_by_its_base_url(monthly, monthly_bundle, tmp_path):
    """The base URL ends with the name of the model."""
    environment = {
        "STATECAST_MODELS": json.dumps(dict.fromkeys(("sales", "stocks"), str(monthly_bundle))),
        "STATECAST_DATA_DIR": str(tmp_path),
        "STATECAST_UNKNOWN_SERIES": "create",
    }
    row = {"unique_id": "tea", "ds": "2019-01-01", "y": 4.0}
    with server(environment) as running:
        url = running.url
        answer = call(f"{url}/models/stocks/", "/v1/observations", {"observations": [row]})
        totals = {
            name: call(f"{url}/models/{name}", "/v1/series")["total"]
            for name in ("sales", "stocks")
        }

    assert answer["created"] == ["tea"]
    assert totals == {"sales": 0, "stocks": 1}


def test_a_server_ends_when_none_of_its_models_can_be_served(tmp_path):
    """The exit code is 2, and the error gives the reason for each model."""
    environment = {
        **os.environ,
        "STATECAST_PORT": "0",
        "STATECAST_DATA_DIR": str(tmp_path),
        "STATECAST_MODELS": '{"sales": "nowhere", "stocks": "here/neither"}',
    }

    process = subprocess.run(
        [sys.executable, "-m", "service"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert process.returncode == 2
    assert "error[service.unavailable]: no model can be served: sales: no bundle" in process.stderr
    assert "Traceback" not in process.stderr

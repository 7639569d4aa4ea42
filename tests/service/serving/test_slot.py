"""Rollout and rollback while the server answers, and starts from the copy of the last model."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from starlette.testclient import TestClient

from benchmarks.speed.servers import wait_until
from forecast.bundle import Bundle, load_bundle
from forecast.config import DataConfig
from tests.helpers.service import observe, replace_model, train_tiny, wait_for_successor

WATCH = {"watch_seconds": 0.05}


@pytest.fixture(scope="module")
def second(monthly, tmp_path_factory) -> Path:
    """Return another model of the same data."""
    folder = tmp_path_factory.mktemp("second")
    return train_tiny(monthly, DataConfig(freq="MS", kind="positive"), folder / "b", max_steps=6)


@pytest.fixture
def pointer(tmp_path, monthly_bundle) -> Path:
    """Return a directory that is served and whose content a test replaces."""
    folder = tmp_path / "served"
    shutil.copytree(monthly_bundle, folder)
    return folder


def forecasts(client: TestClient, names: list[str]) -> list[dict[str, Any]]:
    """Return the answer to a forecast request for some series."""
    answer = client.post("/v1/forecasts", json={"unique_ids": names, "level": [80]})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_new_model_takes_over_with_states_of_its_own(serve, pointer, second, monthly, tmp_path):
    """Its states hold all observations, and equal those of a start without snapshots."""
    names = sorted(monthly["unique_id"].unique())
    client = serve(pointer, monthly, **WATCH, data_dir=tmp_path / "data")
    observe(client, names[0], "2019-01-01", 300.0)
    before = forecasts(client, names)

    replace_model(second, pointer)
    rollout = wait_for_successor(client, lambda s: s.get("phase") == "in service")

    assert rollout["digest"] == load_bundle(second).digest
    after = forecasts(client, names)
    assert after["model"]["digest"] == rollout["digest"] != before["model"]["digest"]
    assert after["forecasts"][0]["position"] == before["forecasts"][0]["position"]
    observe(client, names[0], "2019-02-01", 310.0)
    live = forecasts(client, names)
    client.__exit__(None, None, None)
    shutil.rmtree(tmp_path / "data" / "snapshots")
    fresh = forecasts(serve(pointer, data_dir=tmp_path / "data"), names)
    for one, other in zip(live["forecasts"], fresh["forecasts"], strict=True):
        np.testing.assert_allclose(one["statecast"], other["statecast"], rtol=1e-5)


def test_a_rollback_restores_the_model_before_with_all_later_observations(
    serve, pointer, second, monthly
):
    """It stays in service although the source still names the other model."""
    names = sorted(monthly["unique_id"].unique())
    client = serve(pointer, monthly, **WATCH)
    first = forecasts(client, names)["model"]["digest"]
    assert client.post("/v1/models:rollback").status_code == 409
    replace_model(second, pointer)
    wait_for_successor(client, lambda s: s.get("phase") == "in service")
    observe(client, names[0], "2019-01-01", 300.0)

    back = client.post("/v1/models:rollback").json()

    assert (back["digest"], back["in_service"]) == (first, True)
    answer = forecasts(client, names)
    assert answer["model"]["digest"] == first
    assert answer["forecasts"][0]["position"]["last_ds"] == "2019-01-01"
    assert client.post("/v1/models:refresh").status_code == 202
    held = [(one["digest"], one["in_service"]) for one in client.get("/v1/models").json()["models"]]
    assert held == [(first, True), (load_bundle(second).digest, False)]
    assert client.get("/readyz").json()["successor"]["phase"] == "rolled back"
    forward = client.post("/v1/models:rollback").json()
    assert forward["digest"] == load_bundle(second).digest


def _wild(bundle: Bundle) -> Bundle:
    with torch.no_grad():
        bundle.network.point.trust.fill_(1.0)
        bundle.network.point.outer.bias.fill_(5.0)
    return replace(bundle)


def _broken(bundle: Bundle) -> Bundle:
    with torch.no_grad():
        bundle.network.point.trust.fill_(1.0)
        bundle.network.point.outer.bias.fill_(float("nan"))
    return replace(bundle)


@pytest.mark.parametrize(("harm", "reason"), [(_wild, "lie further than"), (_broken, "finite")])
def test_a_model_that_forecasts_wildly_stays_out(serve, pointer, second, monthly, harm, reason):
    """The model in service gives the same forecasts as before."""
    names = sorted(monthly["unique_id"].unique())
    client = serve(pointer, monthly, **WATCH)
    before = forecasts(client, names)

    replace_model(harm(load_bundle(second)), pointer)
    rollout = wait_for_successor(client, lambda s: s.get("phase") == "refused")

    assert reason in rollout["reason"]
    assert forecasts(client, names) == before


@pytest.mark.parametrize(
    ("harm", "code"),
    [
        (lambda folder: (folder / "weights.safetensors").write_bytes(b"torn"), "weights"),
        (lambda folder: (folder / "bundle.json").write_text("{"), "bundle"),
        (lambda folder: shutil.rmtree(folder), "bundle"),
    ],
)
def test_a_damaged_bundle_stays_out(serve, pointer, second, monthly, harm, code, tmp_path):
    """`/readyz` gives the reason, and a whole bundle is served as soon as it is there."""
    names = sorted(monthly["unique_id"].unique())
    client = serve(pointer, monthly, **WATCH)
    before = forecasts(client, names)
    damaged = tmp_path / "damaged"
    shutil.copytree(second, damaged)
    harm(damaged)
    shutil.rmtree(pointer)
    if damaged.exists():
        damaged.rename(pointer)

    ready = wait_until(lambda: client.get("/readyz").json(), lambda ready: code in ready["reason"])

    assert ready["ready"]
    assert forecasts(client, names)["forecasts"] == before["forecasts"]
    pointer.mkdir(exist_ok=True)
    replace_model(second, pointer)
    wait_for_successor(client, lambda s: s.get("phase") == "in service")
    wait_until(lambda: client.get("/readyz").json()["reason"], lambda reason: not reason)


def test_a_model_of_another_frequency_stays_out(serve, pointer, weekly_bundle, monthly):
    """It would misread the stamps of this log."""
    client = serve(pointer, monthly, **WATCH)

    replace_model(weekly_bundle, pointer)
    rollout = wait_for_successor(client, lambda s: s.get("phase") == "refused")

    assert "freq='MS'" in rollout["reason"]


def digest(folder: Path) -> str:
    """Return the digest of a bundle."""
    return load_bundle(folder).digest


def test_a_restart_serves_the_last_model_first_and_then_follows_the_source(
    serve, pointer, second, monthly
):
    """The model that the source names by then replaces it by a rollout."""
    names = sorted(monthly["unique_id"].unique())
    client = serve(pointer, monthly, **WATCH)
    first = forecasts(client, names)["model"]["digest"]
    client.__exit__(None, None, None)
    replace_model(second, pointer)

    client = serve(pointer, **WATCH)
    rollout = wait_for_successor(client, lambda s: s.get("phase") == "in service")

    assert rollout["digest"] == digest(second) == forecasts(client, names)["model"]["digest"]
    held = [(one["digest"], one["in_service"]) for one in client.get("/v1/models").json()["models"]]
    assert held == [(rollout["digest"], True), (first, False)]


@pytest.mark.parametrize(
    "harm",
    [
        lambda folder: (folder / "weights.safetensors").write_bytes(b"torn"),
        lambda folder: (folder / "bundle.json").write_text("{"),
        lambda folder: shutil.rmtree(folder),
        lambda folder: replace_model(_wild(load_bundle(folder)), folder),
    ],
)
def test_a_bad_source_does_not_prevent_a_restart(serve, pointer, second, monthly, harm):
    """The last model gives the same forecasts as before, and `/readyz` gives the reason."""
    names = sorted(monthly["unique_id"].unique())
    client = serve(pointer, monthly, **WATCH)
    before = forecasts(client, names)
    client.__exit__(None, None, None)
    replace_model(second, pointer)
    harm(pointer)

    client = serve(pointer, **WATCH)
    ready = wait_until(
        lambda: client.get("/readyz").json(),
        lambda ready: ready["reason"] or (ready["successor"] or {}).get("phase") == "refused",
    )

    assert ready["ready"]
    assert forecasts(client, names) == before


def test_a_rollback_outlasts_a_restart_until_the_source_names_another_model(
    serve, pointer, second, monthly, tmp_path
):
    """The model that was rolled back returns only after the source has named another one."""
    client = serve(pointer, monthly, **WATCH)
    first, names = digest(pointer), sorted(monthly["unique_id"].unique())
    replace_model(second, pointer)
    wait_for_successor(client, lambda s: s.get("phase") == "in service")
    client.post("/v1/models:rollback").raise_for_status()
    client.__exit__(None, None, None)

    client = serve(pointer, **WATCH)

    ready = client.get("/readyz").json()
    assert ready["model"]["digest"] == first == forecasts(client, names)["model"]["digest"]
    assert ready["successor"]["digest"] == digest(second)
    assert ready["successor"]["phase"] == "rolled back"
    copies = tmp_path / f"data of {pointer.name}" / "bundles"
    replace_model(copies / first, pointer)
    wait_until(lambda: client.get("/readyz").json(), lambda ready: ready["successor"] is None)
    replace_model(second, pointer)
    assert wait_for_successor(client, lambda s: s.get("phase") == "in service")["digest"] == digest(
        second
    )


def test_an_empty_log_starts_with_the_model_of_the_source(
    serve, pointer, weekly_bundle, weekly, monthly, tmp_path
):
    """The model that served before has another frequency and is not used."""
    serve(pointer, monthly).__exit__(None, None, None)
    home = tmp_path / f"data of {pointer.name}"
    for path in home.glob("observations.db*"):
        path.unlink()
    replace_model(weekly_bundle, pointer)

    client = serve(pointer, weekly)

    assert client.get("/readyz").json()["model"]["digest"] == digest(weekly_bundle)
    assert client.get("/v1/series").json()["total"] == weekly["unique_id"].nunique()

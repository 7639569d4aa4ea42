"""Rollout and rollback while the server answers, and starts from the copy of the last model."""

import shutil
from pathlib import Path

import pytest

from benchmarks.speed.servers import wait_until
from forecast.bundle import load_bundle
from tests.helpers.service import WATCH, forecasts, make_wild, replace_model, wait_for_successor


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
        lambda folder: replace_model(make_wild(load_bundle(folder)), folder),
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

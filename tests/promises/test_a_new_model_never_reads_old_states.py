"""Promise 12: a new model replays the log before it takes over; a bad one is refused."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from forecast.bundle import Bundle, load_bundle
from tests.helpers.service import (
    WATCH,
    forecasts,
    make_wild,
    observe,
    replace_model,
    wait_for_successor,
)


def _make_nan(bundle: Bundle) -> Bundle:
    """Return the bundle with a bias that makes its forecasts NaN."""
    with torch.no_grad():
        bundle.network.point.shrinkage.fill_(1.0)
        bundle.network.point.outer.bias.fill_(float("nan"))
    return replace(bundle)


def test_a_new_model_takes_over_with_its_own_states(serve, pointer, second, monthly, tmp_path):
    """Its states have seen all observations, and equal those of a start without snapshots."""
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


@pytest.mark.parametrize(
    ("change", "reason"), [(make_wild, "lie further than"), (_make_nan, "finite")]
)
def test_a_model_with_wild_forecasts_is_refused(serve, pointer, second, monthly, change, reason):
    """The model in service gives the same forecasts as before."""
    names = sorted(monthly["unique_id"].unique())
    client = serve(pointer, monthly, **WATCH)
    before = forecasts(client, names)

    replace_model(change(load_bundle(second)), pointer)
    rollout = wait_for_successor(client, lambda s: s.get("phase") == "refused")

    assert reason in rollout["reason"]
    assert forecasts(client, names) == before


def test_a_rollback_restores_the_previous_model_with_all_later_observations(
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

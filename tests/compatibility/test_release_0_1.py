"""
Files that release 0.1 wrote are still read: saved forecasters, bundles, logs and snapshots.

The files in `release_0_1` come from one server: four weekly series with covariates and a static
column, an ensemble of two networks, one observation reported over HTTP, then SIGTERM. The request
and the answer were recorded before it stopped.
"""

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from starlette.testclient import TestClient

from forecast.forecaster import Forecaster
from service.app import create_app
from service.settings import Settings

FILES = Path(__file__).parent / "release_0_1"
REQUEST = json.loads((FILES / "request.json").read_text(encoding="utf-8"))
ANSWER = json.loads((FILES / "answer.json").read_text(encoding="utf-8"))


@pytest.fixture
def data_dir(tmp_path):
    """A copy of the server's data folder, whose model is at `tmp_path / "model"`."""
    folder = tmp_path / "data"
    shutil.copytree(FILES / "server", folder)
    (folder / "observations.sqlite").rename(folder / "observations.db")
    shutil.copytree(folder / "bundles" / ANSWER["model"]["digest"], tmp_path / "model")
    note = folder / "bundles" / "in_service.json"
    in_service = json.loads(note.read_text(encoding="utf-8"))
    note.write_text(json.dumps({**in_service, "model": str(tmp_path / "model")}), encoding="utf-8")
    return folder


def test_a_server_goes_on_from_the_log_and_the_snapshots(data_dir, tmp_path, caplog):
    """Every state comes from a snapshot, and the forecasts are those given before."""
    caplog.set_level(logging.INFO, logger="service")
    settings = Settings(model=str(tmp_path / "model"), data_dir=data_dir)
    app = create_app(settings)

    with TestClient(app, base_url="http://127.0.0.1") as client:
        app.state.slot.wait(60)
        answer = client.post("/v1/forecasts", json=REQUEST).json()

    assert "4 series from snapshots, 0 to be replayed" in caplog.text
    assert answer["model"] == ANSWER["model"]
    for forecast, before in zip(answer["forecasts"], ANSWER["forecasts"], strict=True):
        assert forecast["position"] == before["position"]
        assert forecast["ds"] == before["ds"]
        for column in ("statecast", "lo-80", "hi-80"):
            np.testing.assert_allclose(forecast[column], before[column], rtol=1e-5)


def test_the_log_alone_gives_the_same_states(data_dir, tmp_path):
    """Without snapshots the series are replayed from the log."""
    shutil.rmtree(data_dir / "snapshots")
    app = create_app(Settings(model=str(tmp_path / "model"), data_dir=data_dir))

    with TestClient(app, base_url="http://127.0.0.1") as client:
        app.state.slot.wait(60)
        answer = client.post("/v1/forecasts", json=REQUEST).json()

    for forecast, before in zip(answer["forecasts"], ANSWER["forecasts"], strict=True):
        assert forecast["position"] == before["position"]
        np.testing.assert_allclose(forecast["statecast"], before["statecast"], rtol=1e-4)


def test_a_saved_forecaster_is_loaded_with_its_states():
    """It forecasts from where its series stood, one observation before the server's answer."""
    forecaster = Forecaster.load(FILES / "forecaster")

    assert forecaster.bundle_.digest == ANSWER["model"]["digest"]
    last = pd.Timestamp(ANSWER["forecasts"][0]["position"]["last_ds"]) - pd.Timedelta(weeks=1)
    assert (forecaster.states_.last_ds == last.value).all()
    assert np.isfinite(forecaster.states_.hidden).all()

"""A model with the states of its series on disk is what was saved, or it is refused."""

import json

import numpy as np
import pytest

from forecast.bundle import JSON_NAME, save_bundle
from forecast.errors import DamagedBundle, NotFitted
from forecast.inference.forecasting import forecast
from forecast.inference.observing import warm_up
from forecast.inference.saved_forecaster import (
    SERIES_NAME,
    STATES_NAME,
    SavedForecaster,
    load_forecaster,
    save_forecaster,
)
from forecast.inference.states import initial_states


@pytest.fixture(scope="module")
def live(bundle, panel):
    """A dozen shops and where each stands."""
    return SavedForecaster(bundle, warm_up(bundle, panel), panel.ids, integer_ids=False)


def test_what_is_loaded_forecasts_the_same(live, tmp_path):
    """Model, states and names; again over what was there."""
    for overwrite in (False, True):
        save_forecaster(live, tmp_path / "m", overwrite=overwrite)

        loaded = load_forecaster(tmp_path / "m")

        assert (loaded.ids, loaded.integer_ids) == (live.ids, False)
        np.testing.assert_array_equal(
            forecast(loaded.bundle, loaded.states), forecast(live.bundle, live.states)
        )
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"ids": 3}', '{"ids": ["a"]}', "\x00"])
def test_damaged_names_are_refused(live, tmp_path, text):
    """Whatever stands in the file."""
    save_forecaster(live, tmp_path / "m")
    (tmp_path / "m" / SERIES_NAME).write_text(text)

    with pytest.raises(DamagedBundle, match="cannot be read"):
        load_forecaster(tmp_path / "m")


def test_damaged_or_foreign_states_are_refused(live, tmp_path):
    """Cut short, missing, of another model, of fewer series; a model alone has none."""
    save_forecaster(live, tmp_path / "m")
    states, series = tmp_path / "m" / STATES_NAME, tmp_path / "m" / SERIES_NAME
    whole, names = states.read_bytes(), json.loads(series.read_text())

    states.write_bytes(whole[:-1])
    with pytest.raises(DamagedBundle, match="cannot be read"):
        load_forecaster(tmp_path / "m")
    states.write_bytes(whole.replace(live.bundle.digest.encode(), b"0" * 64))
    with pytest.raises(DamagedBundle, match="model 000000000000"):
        load_forecaster(tmp_path / "m")
    states.unlink()
    with pytest.raises(DamagedBundle, match="cannot be read"):
        load_forecaster(tmp_path / "m")

    states.write_bytes(whole)
    series.write_text(json.dumps(names | {"ids": names["ids"][1:]}))
    with pytest.raises(DamagedBundle, match="not those of 11 series"):
        load_forecaster(tmp_path / "m")

    save_bundle(live.bundle, tmp_path / "alone")
    with pytest.raises(NotFitted, match="without the states"):
        load_forecaster(tmp_path / "alone")


def test_states_of_another_layout_are_refused(live, tmp_path):
    """What has the digest but not the shapes."""
    fresh = initial_states(live.bundle, len(live.ids))
    other = SavedForecaster(live.bundle, fresh.take([0]), live.ids, integer_ids=False)
    save_forecaster(other, tmp_path / "m")

    with pytest.raises(DamagedBundle, match="not those of 12 series"):
        load_forecaster(tmp_path / "m")


def test_a_bundle_that_is_no_object_is_refused(live, tmp_path):
    """A list where settings should be."""
    save_forecaster(live, tmp_path / "m")
    (tmp_path / "m" / JSON_NAME).write_text("[1]")

    with pytest.raises(DamagedBundle, match="no object"):
        load_forecaster(tmp_path / "m")

"""A saved forecaster is loaded as it was, or refused."""

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
def saved(bundle, panel):
    """A model and the states of a dozen series."""
    return SavedForecaster(bundle, warm_up(bundle, panel), panel.ids, integer_ids=False)


def test_a_loaded_forecaster_forecasts_the_same(saved, tmp_path):
    """It has the same model, states and names, also after overwriting another one."""
    for overwrite in (False, True):
        save_forecaster(saved, tmp_path / "m", overwrite=overwrite)

        loaded = load_forecaster(tmp_path / "m")

        assert (loaded.ids, loaded.integer_ids) == (saved.ids, False)
        np.testing.assert_array_equal(
            forecast(loaded.bundle, loaded.states), forecast(saved.bundle, saved.states)
        )
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"ids": 3}', '{"ids": ["a"]}', "\x00"])
def test_damaged_names_are_refused(saved, tmp_path, text):
    """Whatever the file holds instead of names, the error says that it cannot be read."""
    save_forecaster(saved, tmp_path / "m")
    (tmp_path / "m" / SERIES_NAME).write_text(text)

    with pytest.raises(DamagedBundle, match="cannot be read"):
        load_forecaster(tmp_path / "m")


def test_damaged_or_foreign_states_are_refused(saved, tmp_path):
    """They are cut short, missing, of another model, or of fewer series; or there are none."""
    save_forecaster(saved, tmp_path / "m")
    states, series = tmp_path / "m" / STATES_NAME, tmp_path / "m" / SERIES_NAME
    whole, names = states.read_bytes(), json.loads(series.read_text())

    states.write_bytes(whole[:-1])
    with pytest.raises(DamagedBundle, match="cannot be read"):
        load_forecaster(tmp_path / "m")
    states.write_bytes(whole.replace(saved.bundle.digest.encode(), b"0" * 64))
    with pytest.raises(DamagedBundle, match="model 000000000000"):
        load_forecaster(tmp_path / "m")
    states.unlink()
    with pytest.raises(DamagedBundle, match="cannot be read"):
        load_forecaster(tmp_path / "m")

    states.write_bytes(whole)
    series.write_text(json.dumps(names | {"ids": names["ids"][1:]}))
    with pytest.raises(DamagedBundle, match="not those of 11 series"):
        load_forecaster(tmp_path / "m")

    save_bundle(saved.bundle, tmp_path / "alone")
    with pytest.raises(NotFitted, match="without the states"):
        load_forecaster(tmp_path / "alone")


def test_states_of_another_layout_are_refused(saved, tmp_path):
    """Arrays of other shapes are refused although the digest is right."""
    empty = initial_states(saved.bundle, len(saved.ids))
    other = SavedForecaster(saved.bundle, empty.take([0]), saved.ids, integer_ids=False)
    save_forecaster(other, tmp_path / "m")

    with pytest.raises(DamagedBundle, match="not those of 12 series"):
        load_forecaster(tmp_path / "m")


def test_settings_that_are_not_an_object_are_refused(saved, tmp_path):
    """A list in the place of the settings is a damaged bundle."""
    save_forecaster(saved, tmp_path / "m")
    (tmp_path / "m" / JSON_NAME).write_text("[1]")

    with pytest.raises(DamagedBundle, match="not a JSON object"):
        load_forecaster(tmp_path / "m")

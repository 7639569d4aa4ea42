"""Parameters of the Forecaster are named, copied and checked as scikit-learn does it."""

import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from forecast.errors import ConfigError, NotFitted, UnknownSetting
from forecast.forecaster import Forecaster


def test_a_clone_has_the_parameters_and_is_not_fitted(retail, quick):
    """scikit-learn copies the settings, not the model or the states."""
    forecaster = Forecaster(h=6, freq="MS", config=quick).fit(retail)

    copy = clone(forecaster)

    assert copy.get_params() == forecaster.get_params()
    assert forecaster.__sklearn_is_fitted__()
    assert not copy.__sklearn_is_fitted__()
    check_is_fitted(forecaster)
    with pytest.raises(NotFitted):
        copy.predict()


def test_a_clone_learns_the_same_as_the_original(retail, quick):
    """Equal parameters and equal data give equal forecasts."""
    forecaster = Forecaster(h=6, config=quick)

    forecasts = clone(forecaster).fit(retail).predict()

    pd.testing.assert_frame_equal(forecasts, forecaster.fit(retail).predict())


def test_every_setting_has_a_nested_name(quick):
    """A nested name changes one setting, and leaves the configuration that was passed unchanged."""
    forecaster = Forecaster(h=6, config=quick)

    forecaster.set_params(h=9, config__train__max_steps=7, config__model__cell="gru")

    assert (forecaster.h, forecaster.freq) == (9, None)
    assert forecaster.get_params()["config__train__max_steps"] == 7
    assert forecaster.config.model.cell == "gru"
    assert forecaster.config.model.hidden_size == 16
    assert quick.train.max_steps == 30
    assert Forecaster().get_params(deep=False) == {"h": None, "freq": None, "config": None}


def test_a_wrong_parameter_is_refused_and_changes_nothing():
    """The error for an unknown name lists the known ones; no other parameter is set either."""
    forecaster = Forecaster(h=6)

    with pytest.raises(UnknownSetting, match="'config__train__steps' is not a parameter") as caught:
        forecaster.set_params(h=9, config__train__steps=7)
    with pytest.raises(ConfigError, match="hidden_size=0 must be at least 1"):
        forecaster.set_params(h=9, config__model__hidden_size=0)

    assert "config__train__max_steps" in caught.value.help
    assert forecaster.h == 6

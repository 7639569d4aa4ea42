"""Parameters of the analyst's object, as scikit-learn names, copies and checks them."""

import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from forecast.config import Config
from forecast.errors import ConfigError, NotFitted, UnknownSetting
from forecast.forecaster import Forecaster
from tests.forecast.test_forecaster import QUICK


@pytest.fixture(scope="module")
def quick() -> Config:
    """Settings of a run of about a second."""
    return Config.from_dict(QUICK)


def test_a_clone_has_the_parameters_and_none_of_the_learning(retail, quick):
    """What scikit-learn copies is how to learn, not what was learned."""
    forecaster = Forecaster(h=6, freq="MS", config=quick).fit(retail)

    copy = clone(forecaster)

    assert copy.get_params() == forecaster.get_params()
    assert forecaster.__sklearn_is_fitted__()
    assert not copy.__sklearn_is_fitted__()
    check_is_fitted(forecaster)
    with pytest.raises(NotFitted):
        copy.predict()


def test_a_clone_learns_what_the_original_learns(retail, quick):
    """Equal parameters and equal data give equal forecasts."""
    forecaster = Forecaster(h=6, config=quick)

    made = clone(forecaster).fit(retail).predict()

    pd.testing.assert_frame_equal(made, forecaster.fit(retail).predict())


def test_settings_have_names_of_their_own():
    """A nested name changes one setting and leaves the given configuration as it was."""
    given = Config.from_dict(QUICK)
    forecaster = Forecaster(h=6, config=given)

    forecaster.set_params(h=9, config__train__max_steps=7, config__model__cell="gru")

    assert (forecaster.h, forecaster.freq) == (9, None)
    assert forecaster.get_params()["config__train__max_steps"] == 7
    assert forecaster.config.model.cell == "gru"
    assert forecaster.config.model.hidden_size == 16
    assert given.train.max_steps == 30
    assert Forecaster().get_params(deep=False) == {"h": None, "freq": None, "config": None}


def test_a_wrong_parameter_is_refused_with_the_names_there_are():
    """Nothing is changed when one name is wrong, or one value impossible."""
    forecaster = Forecaster(h=6)

    with pytest.raises(UnknownSetting, match="'config__train__steps' is no parameter") as caught:
        forecaster.set_params(h=9, config__train__steps=7)
    with pytest.raises(ConfigError, match="hidden_size=0 must be at least 1"):
        forecaster.set_params(h=9, config__model__hidden_size=0)

    assert "config__train__max_steps" in caught.value.help
    assert forecaster.h == 6

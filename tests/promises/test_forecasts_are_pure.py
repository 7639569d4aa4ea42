"""Promise 4: a forecast reads a state and changes nothing; `observe` returns a new state."""

import numpy as np

from forecast.inference.forecasting import forecast
from forecast.inference.observing import observe, warm_up


def test_a_forecast_leaves_the_state_as_it_was(bundle, panel):
    """Two forecasts from one state are equal, and its bytes do not change."""
    states = warm_up(bundle, panel)
    before = states.to_bytes()

    once = forecast(bundle, states, quantiles=(0.05, 0.95))
    again = forecast(bundle, states, quantiles=(0.05, 0.95))

    np.testing.assert_array_equal(once, again)
    assert states.to_bytes() == before


def test_observing_leaves_the_old_state_as_it_was(bundle, panel):
    """A state is a value: the one before an observation can still be used."""
    cut = panel.lengths - 3
    states = warm_up(bundle, panel.head(cut))
    before = states.to_bytes()

    observe(bundle, states, panel.tail(cut))

    assert states.to_bytes() == before

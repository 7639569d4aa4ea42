"""Promise 2: a state serialises bit for bit, and any other model refuses it."""

from dataclasses import replace

import numpy as np
import pytest

from forecast.errors import (
    ForeignState,
    StateError,
)
from forecast.inference.forecasting import forecast
from forecast.inference.observing import observe, warm_up
from forecast.inference.states import States
from forecast.training.train import train


def test_a_state_goes_to_bytes_and_back_bit_for_bit(bundle, panel):
    """Nothing is rounded or left out, and the forecasts are equal."""
    states = warm_up(bundle, panel)

    back = States.from_bytes(states.to_bytes())

    assert back.to_bytes() == states.to_bytes()
    np.testing.assert_array_equal(forecast(bundle, back), forecast(bundle, states))


@pytest.mark.parametrize("junk", [b"", b"not a state", b"\x10\x00\x00\x00\x00\x00\x00\x00{}"])
def test_bytes_that_are_not_a_state_are_refused(junk):
    """Empty, random or truncated bytes are a StateError."""
    with pytest.raises(StateError, match="not a state"):
        States.from_bytes(junk)


def test_a_state_is_refused_by_any_other_model(bundle, panel, config):
    """The digest of settings and weights is part of the identity of a state."""
    other = train(panel, replace(config, train=replace(config.train, max_steps=2))).bundle
    states = warm_up(bundle, panel)

    with pytest.raises(ForeignState, match="was made by model"):
        forecast(other, states)
    with pytest.raises(ForeignState, match="was made by model"):
        observe(other, states, panel)

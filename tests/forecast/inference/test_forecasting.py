"""Promises about states: chunk invariance, purity, causality, identity."""

from dataclasses import replace

import numpy as np
import pytest

from forecast.data.panel import Panel
from forecast.errors import (
    LateValues,
    MissingSteps,
    TooShort,
    UnknownQuantile,
    UnseenHorizon,
)
from forecast.inference.forecasting import forecast
from forecast.inference.observing import observe, warm_up
from forecast.inference.states import initial_states


def test_steps_that_do_not_follow_are_refused(bundle, panel):
    """A gap and a repeated step are different errors, with series and stamp."""
    cut = panel.lengths - 5
    states = warm_up(bundle, panel.head(cut))

    with pytest.raises(MissingSteps, match=r"expected 20.* found 20"):
        observe(bundle, states, panel.tail(cut + 1))
    with pytest.raises(LateValues, match="do not continue"):
        observe(bundle, states, panel.tail(cut - 1))


def test_requests_outside_what_the_model_learned_are_refused(bundle, panel):
    """They are too long horizons, quantiles out of range, and series without observations."""
    states = warm_up(bundle, panel)

    with pytest.raises(UnseenHorizon, match="learned 1 to 6 steps and extrapolates to at most 60"):
        forecast(bundle, states, horizon=61)
    with pytest.raises(UnknownQuantile, match=r"0\.999 is not possible"):
        forecast(bundle, states, quantiles=(0.999,))
    with pytest.raises(TooShort, match="no observation yet"):
        forecast(bundle, initial_states(bundle, 2))


def test_beyond_the_trained_horizon_the_forecast_goes_on_from_itself(bundle, panel):
    """The second block is the forecast after observing the first; intervals widen."""
    states = warm_up(bundle, panel)
    far = forecast(bundle, states, horizon=16, quantiles=(0.1, 0.5, 0.9))
    near = forecast(bundle, states, horizon=6, quantiles=(0.1, 0.5, 0.9))

    stamps = bundle.calendar.after(states.last_ds, 6)
    observed = Panel(
        ids=panel.ids,
        indptr=np.arange(0, 6 * panel.num_series + 1, 6),
        ds=stamps.ravel(),
        values=near[..., 0].ravel(),
        observed=np.ones(stamps.size, bool),
        known_future=np.zeros((stamps.size, 0), np.float32),
        past_only=np.zeros((stamps.size, 0), np.float32),
    )
    second = forecast(bundle, observe(bundle, states, observed), horizon=6)

    np.testing.assert_array_equal(far[:, :6], near)
    np.testing.assert_allclose(far[:, 6:12, 0], second[..., 0], rtol=1e-6)
    width = np.log(far[..., 3] / far[..., 1])
    assert (width[:, 15] >= width[:, 3]).all()
    assert (np.diff(far[..., 1:], axis=-1) >= 0).all()


def test_no_quantiles_cross_beyond_the_trained_horizon(bundle, panel):
    """Not even if the outer ones narrow within it; any choice of quantiles agrees with all."""
    states = warm_up(bundle, panel)
    learned = bundle.config.model.quantiles
    closing = np.array(bundle.factors)
    closing[..., -1:] *= np.linspace(3.0, 1.0, closing.shape[1])[:, None]  # the outermost
    narrowing = replace(bundle, factors=closing)
    states = replace(states, digest=narrowing.digest)

    far = forecast(narrowing, states, horizon=40, quantiles=learned)
    some = forecast(narrowing, states, horizon=40, quantiles=(learned[1], 0.5, learned[-1]))

    assert (np.diff(far[..., 1:], axis=-1) >= 0).all()
    np.testing.assert_array_equal(some[..., [1, 3]], far[..., [2, len(learned)]])


def test_no_quantile_exceeds_ten_times_the_highest_value(bundle, panel):
    """Even factors that would make the intervals absurdly wide do not change that."""
    wild = replace(bundle, factors=np.full_like(bundle.factors, 500.0))
    highest = [
        panel.values[a:b].max() for a, b in zip(panel.indptr, panel.indptr[1:], strict=False)
    ]

    out = forecast(wild, warm_up(wild, panel), quantiles=(0.5, 0.99))

    assert (out[..., 2] <= 10 * np.array(highest)[:, None] * (1 + 1e-5)).all()
    assert (out[..., 2] > 5 * np.array(highest)[:, None]).any()
    np.testing.assert_array_equal(out[..., 0], forecast(bundle, warm_up(bundle, panel))[..., 0])


def test_quantiles_rise_and_the_median_is_the_point_forecast(bundle, panel):
    """Quantiles may be asked for in any order, at or between the learned ones."""
    quantiles = (0.9, 0.5, 0.1, 0.33, 0.77)

    out = forecast(bundle, warm_up(bundle, panel), quantiles=quantiles)

    ordered = out[..., 1 + np.argsort(quantiles)]
    assert (np.diff(ordered, axis=-1) > 0).all()
    np.testing.assert_array_equal(out[..., 0], out[..., 1 + quantiles.index(0.5)])
    assert (out >= 0).all()


def test_a_shorter_horizon_is_the_beginning_of_the_whole(bundle, panel):
    """The forecast of a step does not depend on the horizon."""
    states = warm_up(bundle, panel)

    np.testing.assert_array_equal(
        forecast(bundle, states, horizon=2), forecast(bundle, states)[:, :2]
    )

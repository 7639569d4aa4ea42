"""Sample paths have the quantiles of the forecast at each step, and sums of the right spread."""

from dataclasses import replace

import numpy as np

from forecast.bundle import Bundle
from forecast.data.panel import Panel
from forecast.inference.forecasting import forecast
from forecast.inference.observing import warm_up
from forecast.inference.sampling import sample
from forecast.models.conformal import neighbour_correlation, normal_scores


def test_each_step_of_the_paths_has_the_forecasts_quantiles(bundle: Bundle, panel: Panel):
    """A tenth of many paths lies below the 10 % quantile at every step; equal seeds repeat them."""
    states = warm_up(bundle, panel)

    paths = sample(bundle, states, paths=4000, seed=1)
    low, high = forecast(bundle, states, quantiles=(0.1, 0.9))[..., 1:].transpose(2, 0, 1)

    assert paths.shape == (panel.num_series, 4000, bundle.horizon)
    np.testing.assert_allclose((paths < low[:, None]).mean(axis=1), 0.1, atol=0.03)
    np.testing.assert_allclose((paths > high[:, None]).mean(axis=1), 0.1, atol=0.03)
    np.testing.assert_array_equal(paths, sample(bundle, states, paths=4000, seed=1))


def test_correlated_steps_make_sums_wider(bundle: Bundle, panel: Panel):
    """The correlation changes the spread of a sum over steps, never that of a step."""
    bundles = [replace(bundle, correlation=rho) for rho in (0.0, 0.95)]

    independent, correlated = (
        sample(model, warm_up(model, panel), paths=3000) for model in bundles
    )

    assert (correlated.sum(2).std(1) > 1.5 * independent.sum(2).std(1)).all()
    np.testing.assert_allclose(correlated.std(1), independent.std(1), rtol=0.15)


def test_normal_scores_are_deviates_of_the_forecast_distribution():
    """At a quantile the score is its deviate; beyond the last quantile it is that of the last."""
    distances = np.array([[[[1.0, 2.0]], [[2.0, 6.0]]]])
    upper = (0.75, 0.975)
    residuals = {2.0: 0.6745, 4.0: 1.3172, 6.0: 1.96, 99.0: 1.96, -1.0: -0.6745, 0.0: 0.0}

    for residual, score in residuals.items():
        actual = normal_scores(np.array([[residual]]), distances, upper)
        np.testing.assert_allclose(actual, [[score]], atol=1e-3)


def test_the_correlation_of_an_autoregression_is_estimated():
    """Scores of an autoregression with 0.7 give about 0.7, though a fifth is unknown."""
    rng = np.random.default_rng(0)
    z = rng.standard_normal((4000, 6))
    for h in range(1, 6):
        z[:, h] = 0.7 * z[:, h - 1] + np.sqrt(1 - 0.49) * z[:, h]
    known = rng.random(z.shape) < 0.8

    assert abs(neighbour_correlation(z, known) - 0.7) < 0.03

"""Sample paths: their steps have the forecast's quantiles, their sums the spread they should."""

from dataclasses import replace

import numpy as np

from forecast.bundle import Bundle
from forecast.data.panel import Panel
from forecast.inference.forecasting import forecast
from forecast.inference.observing import warm_up
from forecast.inference.sampling import sample
from forecast.models.conformal import neighbour_correlation, normal_scores


def test_each_step_of_the_paths_has_the_forecasts_quantiles(bundle: Bundle, panel: Panel):
    """Of many paths, a tenth lies below the 10 % quantile at every step."""
    states = warm_up(bundle, panel)

    paths = sample(bundle, states, paths=4000, seed=1)
    low, high = forecast(bundle, states, quantiles=(0.1, 0.9))[..., 1:].transpose(2, 0, 1)

    assert paths.shape == (panel.num_series, 4000, bundle.horizon)
    np.testing.assert_allclose((paths < low[:, None]).mean(axis=1), 0.1, atol=0.03)
    np.testing.assert_allclose((paths > high[:, None]).mean(axis=1), 0.1, atol=0.03)
    np.testing.assert_array_equal(paths, sample(bundle, states, paths=4000, seed=1))


def test_steps_that_go_together_make_sums_wider(bundle: Bundle, panel: Panel):
    """The correlation changes the spread of a sum over steps, never that of a step."""
    apart, tied = (replace(bundle, correlation=rho) for rho in (0.0, 0.95))
    states = [warm_up(model, panel) for model in (apart, tied)]

    free, bound = (
        sample(model, state, paths=3000) for model, state in zip((apart, tied), states, strict=True)
    )

    assert (bound.sum(2).std(1) > 1.5 * free.sum(2).std(1)).all()
    np.testing.assert_allclose(bound.std(1), free.std(1), rtol=0.15)


def test_normal_scores_find_the_place_in_the_distribution():
    """At a quantile the score is its deviate; beyond the last one it is the last one."""
    distances = np.array([[[[1.0, 2.0]], [[2.0, 6.0]]]])
    upper = (0.75, 0.975)
    residuals = {2.0: 0.6745, 4.0: 1.3172, 6.0: 1.96, 99.0: 1.96, -1.0: -0.6745, 0.0: 0.0}

    for residual, score in residuals.items():
        found = normal_scores(np.array([[residual]]), distances, upper)
        np.testing.assert_allclose(found, [[score]], atol=1e-3)


def test_the_correlation_of_an_autoregression_is_found():
    """Scores made with 0.7 give about 0.7, whatever is not known."""
    rng = np.random.default_rng(0)
    z = rng.standard_normal((4000, 6))
    for h in range(1, 6):
        z[:, h] = 0.7 * z[:, h - 1] + np.sqrt(1 - 0.49) * z[:, h]
    known = rng.random(z.shape) < 0.8

    assert abs(neighbour_correlation(z, known) - 0.7) < 0.03

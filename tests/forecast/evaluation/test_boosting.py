"""The boosted model is scale-free, learns seasons and intervals, and returns no absurd value."""

import numpy as np
import pytest

from forecast.evaluation import boosting
from forecast.evaluation.boosting import Steps, forecast_boosted


def steps(series: list[np.ndarray], horizon: int = 6) -> Steps:
    """Return histories without covariates."""
    y = np.concatenate(series)
    return Steps(
        y=y,
        indptr=np.r_[0, np.cumsum([len(part) for part in series])],
        known=np.empty((len(y), 0)),
        ahead=np.empty((len(series), horizon, 0)),
    )


@pytest.fixture(scope="module")
def seasonal() -> list[np.ndarray]:
    """Return 12 positive series with a season of 12, noise of 5 % and levels from 1 to 1,000."""
    rng = np.random.default_rng(0)
    shape = 1 + 0.5 * np.sin(np.arange(96) * 2 * np.pi / 12)
    return [level * shape * rng.lognormal(0, 0.05, 96) for level in np.geomspace(1, 1000, 12)]


def truth(level: float) -> np.ndarray:
    """Return the noiseless continuation of a series of `seasonal`."""
    return level * (1 + 0.5 * np.sin(np.arange(96, 102) * 2 * np.pi / 12))


def test_a_season_is_learned_by_one_model_for_large_and_small_series(seasonal):
    """Every series is forecast within 15 % of its noiseless continuation."""
    outputs = forecast_boosted(steps(seasonal), season_length=12)

    for level, own in zip(np.geomspace(1, 1000, 12), outputs[..., 0], strict=True):
        np.testing.assert_allclose(own, truth(level), rtol=0.15)


def test_forecasts_follow_the_unit_of_the_data(seasonal):
    """Data divided by a thousand give forecasts divided by a thousand."""
    outputs = forecast_boosted(steps(seasonal), season_length=12, levels=[80])

    small = forecast_boosted(steps([y / 1000 for y in seasonal]), season_length=12, levels=[80])

    np.testing.assert_allclose(small, outputs / 1000, rtol=0.1)


def test_intervals_cover_about_their_level():
    """The 80 % interval covers 70 to 90 % of new values of the same distribution."""
    rng = np.random.default_rng(0)
    values = rng.normal(0, 1, (40, 106))

    outputs = forecast_boosted(steps(list(values[:, :100])), season_length=1, levels=[80, 95])

    inside = (outputs[..., 1] <= values[:, 100:]) & (values[:, 100:] <= outputs[..., 2])
    assert 0.7 < inside.mean() < 0.9
    assert (outputs[..., 3] <= outputs[..., 1]).all()
    assert (outputs[..., 4] >= outputs[..., 2]).all()


@pytest.mark.parametrize("zeros", [0.0, 0.02, 0.5])
def test_data_without_negative_values_get_no_negative_forecast(zeros):
    """A series may have no, few or many zeros, begin with zeros, or be zero throughout."""
    rng = np.random.default_rng(0)
    series = [rng.poisson(3.0, 80) + 0.5 for _ in range(6)]
    series = [np.where(rng.random(80) < zeros, 0.0, y) for y in series]
    if zeros == 0.5:
        series[0][:60] = 0.0
        series[1][:] = 0.0

    outputs = forecast_boosted(steps(series), season_length=7, levels=[80])

    assert (outputs >= 0).all()
    assert (outputs < 20).all()


def test_values_that_may_be_negative_are_forecast_below_zero():
    """A sine around zero is forecast on both sides of it."""
    y = np.sin(np.arange(160) * 2 * np.pi / 8)

    outputs = forecast_boosted(steps([y], horizon=8), season_length=8)

    np.testing.assert_allclose(outputs[0, :, 0], y[:8], atol=0.35)


def test_rows_of_large_data_are_sampled_evenly(seasonal):
    """Every horizon occurs, no row is drawn twice, and targets stay within their series."""
    data = steps(seasonal)
    origin, h = boosting._draw_rows(data.lengths, data.indptr[:-1], 6, 500)

    assert 450 < len(origin) <= 500
    assert len(set(zip(origin.tolist(), h.tolist(), strict=True))) == len(origin)
    assert set(h.tolist()) == {1, 2, 3, 4, 5, 6}
    series = np.searchsorted(data.indptr, origin, side="right")
    assert (series == np.searchsorted(data.indptr, origin + h, side="right")).all()


def test_a_lag_longer_than_every_history_is_ignored():
    """Forecasts are finite if no row has a value two seasons back."""
    y = [np.arange(1.0, 15.0) + level for level in (0.0, 50.0)]

    outputs = forecast_boosted(steps(y), season_length=12, levels=[80])

    assert np.isfinite(outputs).all()


def test_series_of_one_step_give_no_boosted_forecast():
    """The function returns None, and the caller uses another forecast."""
    assert forecast_boosted(steps([np.ones(1), np.ones(1)]), season_length=1) is None

"""Damped-trend smoothers equal their equations, and are pooled by their recent errors."""

import numpy as np
import pytest

from forecast.config import DataConfig
from forecast.features.smoothing import DAMPING, GAINS, WIDTH, pooled, smooth
from forecast.training.defaults import wants_smoothers


def run(x: np.ndarray, usual: np.ndarray | None = None, season: int = 2) -> np.ndarray:
    """Return the smoothers of each series after all its steps."""
    smoothers = np.zeros((len(x), WIDTH))
    usual = np.zeros_like(x) if usual is None else usual
    for step in range(x.shape[1]):
        smooth(smoothers, x[:, step], usual[:, step], np.full(len(x), step), season)
    return smoothers


def reference(x: np.ndarray) -> tuple[float, float]:
    """Return level and slope of one series by the equations of Gardner & McKenzie, in loops."""
    fits = []
    for gain, slope_gain in GAINS.T:
        level = slope = error = 0.0
        for step, value in enumerate(x):
            expected = level + DAMPING * slope
            if step > 2:
                share = max(0.03, 1 / (step - 2))
                error = (1 - share) * error + share * abs(value - expected)
            quick = max(gain, 1 / (step + 1))
            before, level = level, quick * value + (1 - quick) * expected
            if step >= 2:
                slope = slope_gain * (level - before) + (1 - slope_gain) * DAMPING * slope
        fits.append((level, slope, error))
    levels, slopes, errors = np.array(fits).T
    share = errors**-4.0 / (errors**-4.0).sum()
    return float(share @ levels), float(share @ slopes)


def test_smoothers_equal_their_equations():
    """Each series of a call equals the loop over that series alone."""
    x = np.random.default_rng(0).normal(5, 1, (4, 60)) + np.outer([0, 0.1, 1, -1], np.arange(60))

    level, slope = pooled(run(x))

    expected = [reference(row) for row in x]
    np.testing.assert_allclose(level, [one for one, _ in expected], rtol=1e-4)
    np.testing.assert_allclose(slope, [one for _, one in expected], rtol=1e-3, atol=1e-6)


def test_each_series_follows_the_smoothers_that_suit_it():
    """Noise around a level, a random walk and a line have the level and slope to expect."""
    rng = np.random.default_rng(1)
    noise, walk = rng.normal(10, 1, 400), 10 + rng.normal(0, 1, 400).cumsum()
    line = 3.0 * np.arange(400)

    level, slope = pooled(run(np.stack([noise, walk, line])))

    assert abs(level[0] - 10) < 0.5
    assert abs(level[1] - walk[-1]) < 1
    assert level[2] == pytest.approx(line[-1], abs=1)
    assert abs(slope[0]) < 0.1
    assert 1.5 < slope[2] < 3  # a fast smoother without a trend is nearly as good


def test_a_known_season_is_removed():
    """The level of a series that repeats its season stays constant."""
    season = np.array([5.0, -1.0, -4.0, 0.0])
    x = 20 + np.tile(season, 30)
    usual = np.r_[np.full(4, np.nan), np.tile(season, 29)]

    level, slope = pooled(run(x[None], usual[None], 4))

    assert level[0] == pytest.approx(20, abs=0.01)
    assert slope[0] == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("value", [0.0, 7.0, 1e30, -1e-30])
def test_a_constant_series_has_its_value_as_level(value):
    """Smoothers without any error share the weight, and nothing is divided by zero."""
    level, slope = pooled(run(np.full((1, 50), value)))

    np.testing.assert_allclose([level[0], slope[0]], [value, 0.0], rtol=1e-6)


@pytest.mark.parametrize(
    ("kind", "seasons", "steps", "expected"),
    [
        ("positive", (12,), 36, True),
        ("real", (4,), 40, True),
        ("positive", (12,), 35, False),
        ("positive", (), 90, False),
        ("positive", (24, 168), 900, False),
        ("count", (7,), 90, False),
        ("price", (), 90, False),
        ("volatility", (5,), 90, False),
    ],
)
def test_smoothers_are_used_for_amounts_with_one_season(kind, seasons, steps, expected):
    """A series of the upper quartile of lengths must also have three full seasons."""
    data = DataConfig(kind=kind, season_lengths=seasons)

    assert wants_smoothers(data, np.array([5, steps, steps, steps])) is expected

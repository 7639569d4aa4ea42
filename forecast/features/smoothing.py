"""
Exponential smoothers of deseasonalised values, pooled by their running errors.

Six smoothers, fast and slow, with a trend and without, run side by side. The errors are running
means of each series, so that a series is forecast by the smoothers that suit it, and by others
once it changes.

References:
    Gardner & McKenzie, Forecasting trends in time series, Management Science 31(10), 1985.
    Bates & Granger, The combination of forecasts, Operational Research Quarterly 20(4), 1969.
"""

import itertools

import numpy as np
from jaxtyping import Float

GAINS = np.array(list(itertools.product((0.1, 0.3, 0.8), (0.0, 0.05)))).T
"""Level gain and trend gain of each smoother; a trend gain of 0 has no trend."""
DAMPING = 0.98
ERROR_GAIN = 0.03
SHARPNESS = 4
"""A smoother with half the error of another gets 2 ** SHARPNESS times its weight."""
WIDTH: int = 3 * GAINS.shape[1]
"""Numbers that are stored for each series: levels, slopes and running absolute errors."""


def smooth(
    stored: Float[np.ndarray, "n stored"],
    x: Float[np.ndarray, " n"],
    usual: Float[np.ndarray, " n"],
    t: np.ndarray,
    season: int,
) -> None:
    """
    Take one step in place.

    Args:
        stored: State of the smoothers before the step; zeros at first.
        x: Value, in model space.
        usual: Seasonal part of the value; NaN if it is unknown.
        t: Steps before this one.
        season: Steps in the season. During the first season its part is unknown, so errors do not
            count and there is no trend.
    """
    level, slope, error = _parts(stored)
    gain, slope_gain = GAINS
    age = t[:, None] - season
    deseasonalised = (x - np.nan_to_num(usual))[:, None]
    expected = level + DAMPING * slope
    miss = np.abs(deseasonalised - expected)
    error += np.where(age > 0, np.maximum(ERROR_GAIN, 1 / np.maximum(age, 1)), 0) * (miss - error)
    fast_gain = np.maximum(gain, 1 / (t[:, None] + 1))
    new = expected + fast_gain * (deseasonalised - expected)
    moved = slope_gain * (new - level) + (1 - slope_gain) * DAMPING * slope
    slope[:] = np.where((age >= 0) & (slope_gain > 0), moved, 0.0)
    level[:] = new


def pooled(
    stored: Float[np.ndarray, "n stored"],
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """
    Return the pooled level and slope, in model space; the slope is damped by `DAMPING` a step.

    >>> stored = np.zeros((1, WIDTH))
    >>> for t in range(9):
    ...     smooth(stored, np.array([7.0]), np.array([2.0]), np.array([t]), 4)
    >>> [part.round(3).tolist() for part in pooled(stored)]
    [[5.0], [0.0]]
    """
    level, slope, error = _parts(stored)
    tiny = 1e-9 + 1e-6 * np.abs(level).max(axis=1, keepdims=True)
    share = ((error.min(axis=1, keepdims=True) + tiny) / (error + tiny)) ** SHARPNESS
    share /= share.sum(axis=1, keepdims=True)
    return (share * level).sum(axis=1), (share * slope).sum(axis=1)


def _parts(stored: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return views of levels, slopes and errors, one column for each smoother."""
    n = GAINS.shape[1]
    return stored[:, :n], stored[:, n : 2 * n], stored[:, 2 * n :]

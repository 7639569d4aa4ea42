"""
Exponential smoothers of what is left without the season, weighed by how well each has done.

A few of them, quick and slow, with a trend and without, run beside each other. Every series has its
own errors of them, so that each is forecast by those that suit it, and by others once it changes.

References:
    Gardner & McKenzie, Forecasting trends in time series, Management Science 31(10), 1985.
    Bates & Granger, The combination of forecasts, Operational Research Quarterly 20(4), 1969.
"""

import itertools

import numpy as np
from jaxtyping import Float

GAINS = np.array(list(itertools.product((0.1, 0.3, 0.8), (0.0, 0.05)))).T
"""Level gains, and trend gains: 0 has no trend."""
DAMPING = 0.98
ERROR_GAIN = 0.03
SHARPNESS = 4
"""A smoother with half the error of another has the weight of two to this power."""
WIDTH: int = 3 * GAINS.shape[1]
"""Numbers kept of each series: levels, slopes and running absolute errors."""


def smooth(
    kept: Float[np.ndarray, "n kept"],
    x: Float[np.ndarray, " n"],
    usual: Float[np.ndarray, " n"],
    t: np.ndarray,
    season: int,
) -> None:
    """
    Take one step in place.

    Args:
        kept: As the step before left it; zeros at first.
        x: The value, in model space.
        usual: What the season adds to it; NaN where that is not known.
        t: Steps seen before this one.
        season: Steps in it. What it adds is not known through the first one, so that no error
            counts there, and nothing has a trend.
    """
    level, slope, error = _parts(kept)
    gain, slope_gain = GAINS
    age = t[:, None] - season
    free = (x - np.nan_to_num(usual))[:, None]
    expected = level + DAMPING * slope
    missed = np.abs(free - expected)
    error += np.where(age > 0, np.maximum(ERROR_GAIN, 1 / np.maximum(age, 1)), 0) * (missed - error)
    quick = np.maximum(gain, 1 / (t[:, None] + 1))
    new = expected + quick * (free - expected)
    moved = slope_gain * (new - level) + (1 - slope_gain) * DAMPING * slope
    slope[:] = np.where((age >= 0) & (slope_gain > 0), moved, 0.0)
    level[:] = new


def pooled(
    kept: Float[np.ndarray, "n kept"],
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """
    Level and slope of all together, in model space; the slope is damped by `DAMPING` a step.

    >>> kept = np.zeros((1, WIDTH))
    >>> for t in range(9):
    ...     smooth(kept, np.array([7.0]), np.array([2.0]), np.array([t]), 4)
    >>> [part.round(3).tolist() for part in pooled(kept)]
    [[5.0], [0.0]]
    """
    level, slope, error = _parts(kept)
    tiny = 1e-9 + 1e-6 * np.abs(level).max(axis=1, keepdims=True)
    share = ((error.min(axis=1, keepdims=True) + tiny) / (error + tiny)) ** SHARPNESS
    share /= share.sum(axis=1, keepdims=True)
    return (share * level).sum(axis=1), (share * slope).sum(axis=1)


def _parts(kept: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As views."""
    some = GAINS.shape[1]
    return kept[:, :some], kept[:, some : 2 * some], kept[:, 2 * some :]

"""
Zeros and sizes of intermittent series: logarithms of zeros, running sizes and gaps.

Arrays have an entry for each series that takes a step. Sizes of amounts are logarithms.

References:
    Croston, Forecasting and stock control for intermittent demands, ORQ 23(3), 1972.
"""

import numpy as np
from jaxtyping import Bool, Float, Int

LEAST_SHARE = 0.01
"""Smallest value of the log space, as a share of the running level, where zeros are possible."""
MAX_DROP = float(np.log(10))
"""Largest log distance by which zeros may pull the level below the running size."""
SIZE_GAIN = 0.05
Floats = Float[np.ndarray, " n"]
Flags = Bool[np.ndarray, " n"]


def log_of(y: Floats, level: Floats, size: Floats, first: Flags) -> Floats:
    """
    Return logarithms of amounts that may be 0.

    Values below 1 % of the running level are read as 1 % of it. So a zero has a logarithm, which
    depends on its own series only. Many zeros in a row pull the level down, but not without end.
    Before a series has begun, a zero is read as 1.

    >>> y, level, first = np.array([0.0, 0.001, 7.0]), np.zeros(3), np.zeros(3, bool)
    >>> np.exp(log_of(y, level, level, first)).round(3).tolist()
    [0.01, 0.01, 7.0]
    """
    logs = np.log(np.where(y > 0, y, 1.0))
    share = np.log(LEAST_SHARE)
    above = np.where(y > 0, np.maximum(logs, level + share), bounded_level(level, size) + share)
    return np.where(first, logs, above)


def bounded_level(level: Floats, size: Floats) -> Floats:
    """Return the running level, at most `MAX_DROP` below the running size."""
    return np.where(size == 0, level, np.maximum(level, size - MAX_DROP))


def update_amounts(
    size: Floats, gap: Floats, x: Floats, positive: Flags, t: Int[np.ndarray, " n"], level: Floats
) -> tuple[Floats, Floats]:
    """Return the running logarithm of values above 0, and the steps before the first of them."""
    size = np.where(size == 0, level, size)
    moved = size + np.maximum(SIZE_GAIN, 1 / (t + 1)) * (x - size)
    return np.where(positive, moved, size), gap + ((t == 0) & ~positive)


def update_counts(size: Floats, gap: Floats, x: Floats, sold: Flags) -> tuple[Floats, Floats]:
    """Return the running size of non-zero counts, and the steps since the last one (Croston)."""
    moved = np.where(size > 0, size + SIZE_GAIN * (x - size), x)
    return np.where(sold, moved, size), np.where(sold, 0.0, gap + 1)

"""
What a zero is read as, and the running size of what is not zero.

All arrays are of the series that take a step together; sizes of amounts are logarithms.

References:
    Croston, Forecasting and stock control for intermittent demands, ORQ 23(3), 1972.
"""

import numpy as np
from jaxtyping import Bool, Float, Int

LEAST_SHARE = 0.01
"""Of the running level: where zeros are possible the log space reads nothing as less."""
MOST_SUNK = float(np.log(10))
"""How far zeros may draw the level that they are read by below the running size."""
SIZE_GAIN = 0.05
Floats = Float[np.ndarray, " n"]
Flags = Bool[np.ndarray, " n"]


def log_of(y: Floats, level: Floats, size: Floats, first: Flags) -> Floats:
    """
    Logarithms of amounts that may be 0.

    What lies below 1 % of the running level is read as 1 % of it, so that a zero has a logarithm
    and no other series has a say in it. Many zeros in a row draw the level down with them, but not
    without end. Where a series has not begun, a zero stands for 1 until it does.

    >>> y, level, first = np.array([0.0, 0.001, 7.0]), np.zeros(3), np.zeros(3, bool)
    >>> np.exp(log_of(y, level, level, first)).round(3).tolist()
    [0.01, 0.01, 7.0]
    """
    logs = np.log(np.where(y > 0, y, 1.0))
    share = np.log(LEAST_SHARE)
    above = np.where(y > 0, np.maximum(logs, level + share), lifted(level, size) + share)
    return np.where(first, logs, above)


def lifted(level: Floats, size: Floats) -> Floats:
    """The running level, but not further below the running size than zeros may draw it."""
    return np.where(size == 0, level, np.maximum(level, size - MOST_SUNK))


def update_amounts(
    size: Floats, gap: Floats, x: Floats, positive: Flags, t: Int[np.ndarray, " n"], level: Floats
) -> tuple[Floats, Floats]:
    """The running logarithm of what is above 0, and the steps before the first such."""
    size = np.where(size == 0, level, size)
    moved = size + np.maximum(SIZE_GAIN, 1 / (t + 1)) * (x - size)
    return np.where(positive, moved, size), gap + ((t == 0) & ~positive)


def update_counts(size: Floats, gap: Floats, x: Floats, sold: Flags) -> tuple[Floats, Floats]:
    """Croston's two: the running size of what is not zero, and the steps since it was not."""
    moved = np.where(size > 0, size + SIZE_GAIN * (x - size), x)
    return np.where(sold, moved, size), np.where(sold, 0.0, gap + 1)

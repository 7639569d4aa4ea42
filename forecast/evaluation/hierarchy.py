"""
Scores of a hierarchy of sums: the weighted scaled errors of the M5 competition.

Bottom series are summed to groups, level by level: the total, each state, each store, ... A
*level* tells the group of each bottom series, the weight of each group and the scale of its errors.
Forecasts of groups are sums of bottom forecasts (bottom-up), so these must be means: a sum of
medians is not the median of the sum, and for counts it is far too low.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """One way to sum the bottom series, with weights and scales of the groups."""

    codes: Int[np.ndarray, " series"]
    """Group of each bottom series, counted from 0."""
    weights: Float[np.ndarray, " group"]
    """Share of each group, for instance in revenue; all shares sum to 1."""
    scales: Float[np.ndarray, " group"]
    """Root of the mean squared one-step change of the group's history, in the unit of `y`."""


def wrmsse(
    y: Float[np.ndarray, "series horizon"],
    forecast: Float[np.ndarray, "series horizon"],
    levels: Sequence[Level],
) -> Float[np.ndarray, " level"]:
    """
    Return the weighted root mean squared scaled error of each level; M5 scores by their mean.

    The scaled error of a group is its root mean squared error over the horizon, divided by its
    scale: 1 is the error of the naive forecast, one step ahead, on the group's history.

    Args:
        y: Values of the bottom series, without NaN.
        forecast: Mean forecasts of the bottom series, in the same unit and order.
        levels: Groups to sum to, with weights and scales. A group whose scale is NaN is left out,
            and the weights of the others are scaled up to sum to 1.

    Returns:
        One value a level, without unit, in [0, inf).

    References:
        Makridakis, Spiliotis & Assimakopoulos, M5 accuracy competition: results, findings, and
        conclusions, IJF 38(4), 2022, section 3.

    >>> y, flat = np.array([[3.0, 5.0], [1.0, 1.0]]), np.array([[3.0, 4.0], [1.0, 2.0]])
    >>> total = Level(codes=np.zeros(2, int), weights=np.ones(1), scales=np.array([2.0]))
    >>> bottom = Level(codes=np.arange(2), weights=np.array([0.8, 0.2]), scales=np.ones(2))
    >>> wrmsse(y, flat, [total, bottom]).round(4).tolist()
    [0.0, 0.7071]
    """
    errors = np.asarray(y, np.float64) - forecast
    scores = []
    for level in levels:
        summed = group_sums(errors, level.codes, len(level.weights))
        scaled = np.sqrt(np.mean(summed**2, axis=1)) / level.scales
        finite = np.isfinite(scaled)
        scores.append(level.weights[finite] @ scaled[finite] / level.weights[finite].sum())
    return np.array(scores)


def group_sums(
    values: Float[np.ndarray, "series time"], codes: Int[np.ndarray, " series"], groups: int
) -> Float[np.ndarray, "group time"]:
    """
    Sum the series of each group, in double precision.

    >>> group_sums(np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), np.array([1, 0, 1]), 2).tolist()
    [[3.0, 4.0], [6.0, 8.0]]
    """
    sums = np.zeros((groups, values.shape[1]))
    np.add.at(sums, codes, values)
    return sums


def change_scales(history: Float[np.ndarray, "series time"]) -> Float[np.ndarray, " series"]:
    """
    Return the root mean squared one-step change of each history from its first nonzero value.

    Steps before the first sale do not count, as in M5. A history that never changes has scale NaN:
    no error can be divided by it.

    >>> change_scales(np.array([[0.0, 0.0, 2.0, 2.0, 5.0], [1.0, 1.0, 1.0, 1.0, 1.0]])).round(4)
    array([2.1213,    nan])
    """
    squared = np.diff(np.asarray(history, np.float64)) ** 2
    return np.asarray(np.sqrt(_mean_change(squared, history)))


def absolute_scales(history: Float[np.ndarray, "series time"]) -> Float[np.ndarray, " series"]:
    """
    Return the mean absolute one-step change of each history, counted as in `change_scales`.

    >>> absolute_scales(np.array([[0.0, 0.0, 2.0, 2.0, 5.0]])).tolist()
    [1.5]
    """
    return _mean_change(np.abs(np.diff(np.asarray(history, np.float64))), history)


def _mean_change(
    change: Float[np.ndarray, "series change"], history: Float[np.ndarray, "series time"]
) -> Float[np.ndarray, " series"]:
    """Return the mean over the changes from the first sale on; NaN if nothing changes."""
    first = np.argmax(history != 0, axis=1)
    counts = np.arange(change.shape[1]) >= first[:, None]
    total = np.where(counts, change, 0.0).sum(axis=1)
    mean = total / np.maximum(counts.sum(axis=1), 1)
    return np.asarray(np.where(total > 0, mean, np.nan))


def weighted_pinball(
    y: Float[np.ndarray, "series horizon"],
    forecast: Float[np.ndarray, "series horizon quantile"],
    quantiles: Sequence[float],
    *,
    weights: Float[np.ndarray, " series"],
    scales: Float[np.ndarray, " series"],
) -> float:
    """
    Return the weighted scaled pinball loss of M5 Uncertainty at one level of the hierarchy.

    Args:
        y: Values, without NaN.
        forecast: Quantile forecasts, in the order of `quantiles`.
        quantiles: Fractions inside (0, 1).
        weights: Share of each series.
        scales: Mean absolute one-step change of each history (`absolute_scales`). A series whose
            scale is NaN is left out, and the weights of the others are scaled up to sum to 1.

    Returns:
        The mean over the quantiles, without unit, in [0, inf); lower is better.

    References:
        Makridakis et al., The M5 uncertainty competition: results, findings and conclusions,
        IJF 38(4), 2022, section 3.

    >>> y, median = np.array([[3.0, 5.0]]), np.array([[[4.0], [4.0]]])
    >>> weighted_pinball(y, median, [0.5], weights=np.ones(1), scales=np.array([2.0]))
    0.25
    """
    levels = np.asarray(quantiles)
    above = np.asarray(y, np.float64)[..., None] - forecast
    loss = np.maximum(levels * above, (levels - 1) * above).mean(axis=(1, 2))
    finite = np.isfinite(scales)
    return float(weights[finite] @ (loss[finite] / scales[finite]) / weights[finite].sum())

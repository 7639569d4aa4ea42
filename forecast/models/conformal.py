"""
Conformal correction of the quantiles, for each horizon.

The distance of a quantile from the point forecast is multiplied by the factor with which it would
have covered its share of the targets at late origins, with the finite-sample correction of split
conformal prediction. It is a factor, not a shift, so that it holds for series of any spread. With
few forecasts, the factor is shrunk towards the one that all steps and both sides share, and widened
by Student's t in place of the normal.

The normal scores of the same targets give the correlation of neighbouring steps, on which the
spread of a sum over steps depends.

References:
    Romano, Patterson & Candes, Conformalized quantile regression, NeurIPS 2019.
    Meeker, Hahn & Escobar, Statistical intervals, 2nd edition, 2017 (Student's t for a prediction
    from few normal observations).
"""

from bisect import bisect_left
from statistics import NormalDist

import numpy as np
from jaxtyping import Bool, Float

MIN_FACTOR, MAX_FACTOR = 0.2, 1000.0
POOLED = 10.0
"""Weight of the factor that all steps and both sides share, in forecasts."""


def fit_factors(
    residual: Float[np.ndarray, "origin horizon"],
    distances: Float[np.ndarray, "origin two horizon upper"],
    known: Bool[np.ndarray, "origin horizon"],
    upper: tuple[float, ...],
    independent: float,
) -> Float[np.ndarray, "two horizon upper"]:
    """
    Fit the factor of each distance below ([0]) and above ([1]) the point forecast.

    Args:
        residual: Target minus point forecast, in units of the series.
        distances: Distances of the quantiles from the head.
        known: Which targets were observed.
        upper: The quantiles above the median; those below mirror them.
        independent: Number of independent forecasts of a whole horizon that the origins are worth,
            since those of neighbouring steps are alike.

    Returns:
        The factors. A horizon without observed targets takes those of the horizon before; all are
        1 if nothing was observed.
    """
    from scipy.special import stdtrit  # Only training needs it.

    ratios = residual[:, None, :, None] / np.maximum(distances, 1e-9)
    ratios[:, 0] *= -1
    factors = np.ones(distances.shape[1:])
    if not known.any():
        return factors
    for h in range(residual.shape[1]):
        rows = known[:, h]
        number = int(rows.sum())
        if not number:
            factors[:, h] = factors[:, max(h - 1, 0)]
            continue
        for u, quantile in enumerate(upper):
            if u and number < quantile * (number + 1):  # So few cannot tell.
                factors[:, h, u] = factors[:, h, u - 1]
            else:
                factors[:, h, u] = _quantile(ratios[rows, :, h, u], quantile)
    shared = ratios.swapaxes(1, 2)[known].reshape(-1, len(upper))
    pooled = [_quantile(shared[:, u, None], quantile)[0] for u, quantile in enumerate(upper)]
    own = independent / (independent + POOLED)
    factors = np.clip(factors, MIN_FACTOR, MAX_FACTOR) ** own
    factors *= np.clip(pooled, MIN_FACTOR, MAX_FACTOR) ** (1 - own)
    freedom = independent * (2 - own)  # The shared factor has twice the data.
    widening = np.array([stdtrit(freedom, q) / NormalDist().inv_cdf(q) for q in upper])
    widened: np.ndarray = factors * widening
    return widened


def _quantile(ratios: np.ndarray, quantile: float) -> np.ndarray:
    """Return the quantile of each column at rank `quantile * (n + 1)`, as split conformal does."""
    values: np.ndarray = np.quantile(ratios, quantile, axis=0, method="weibull")
    return values


def apply_factors(
    distances: Float[np.ndarray, "origin two horizon upper"],
    factors: Float[np.ndarray, "two horizon upper"],
) -> Float[np.ndarray, "origin two horizon upper"]:
    """Multiply distances by their factors; quantiles that would cross are pushed apart."""
    rows = np.ascontiguousarray(factors.swapaxes(-1, -2), distances.dtype)
    corrected = distances.swapaxes(-1, -2) * rows  # The layout of the network: long rows.
    for u in range(1, corrected.shape[-2]):  # 10x faster than `accumulate` on a short axis.
        np.maximum(corrected[..., u, :], corrected[..., u - 1, :], out=corrected[..., u, :])
    result: np.ndarray = corrected.swapaxes(-1, -2)
    return result


def normal_scores(
    residual: Float[np.ndarray, "origin horizon"],
    distances: Float[np.ndarray, "origin two horizon upper"],
    upper: tuple[float, ...],
) -> Float[np.ndarray, "origin horizon"]:
    """
    Return the position of each target in its forecast distribution, as a standard normal deviate.

    It is interpolated linearly between the quantiles; beyond the outermost it is the outermost.
    """
    deviates = np.array([0.0, *(NormalDist().inv_cdf(q) for q in upper)])
    side = (residual > 0).astype(np.int64)[:, None, :, None]
    grid = np.take_along_axis(distances, side, axis=1)[:, 0]
    grid = np.concatenate([np.zeros_like(grid[..., :1]), grid], axis=-1)
    size = np.abs(residual)[..., None]
    place = np.clip((grid <= size).sum(axis=-1) - 1, 0, len(upper) - 1)[..., None]
    low, high = (np.take_along_axis(grid, place + i, axis=-1)[..., 0] for i in (0, 1))
    share = np.clip((size[..., 0] - low) / np.maximum(high - low, 1e-12), 0.0, 1.0)
    below, above = deviates[place[..., 0]], deviates[place[..., 0] + 1]
    scores: np.ndarray = np.sign(residual) * (below + share * (above - below))
    return scores


def neighbour_correlation(
    scores: Float[np.ndarray, "origin horizon"], known: Bool[np.ndarray, "origin horizon"]
) -> float:
    """
    Return the correlation of the scores of neighbouring steps, at least 0; 0 without pairs.

    >>> neighbour_correlation(np.array([[1.0, 1.0], [-1.0, -1.0]]), np.ones((2, 2), np.bool_))
    0.99
    """
    both = known[:, 1:] & known[:, :-1]
    before, after = scores[:, :-1][both], scores[:, 1:][both]
    if len(before) < 2 or before.std() == 0 or after.std() == 0:
        return 0.0
    return float(np.clip(np.corrcoef(before, after)[0, 1], 0.0, 0.99))


def between_quantiles(
    trained: tuple[float, ...], quantiles: tuple[float, ...]
) -> list[tuple[int, float, float]]:
    """
    Interpolate quantiles between the trained ones, linearly in the normal deviate.

    Args:
        trained: The quantiles of the model.
        quantiles: The wanted quantiles, within the range of the trained ones.

    Returns:
        For each quantile: index of a trained distance, its weight (the one before has the rest),
        and the sign.

    >>> between_quantiles((0.1, 0.5, 0.9), (0.1, 0.5))
    [(0, 1.0, -1.0), (0, 0.0, -1.0)]
    """
    normal = NormalDist()
    deviates = [normal.inv_cdf(q) for q in trained if q >= 0.5]
    interpolations = []
    for quantile in quantiles:
        deviate = normal.inv_cdf(max(quantile, 1 - quantile))
        j = min(max(bisect_left(deviates, deviate) - 1, 0), len(deviates) - 2)
        share = (deviate - deviates[j]) / (deviates[j + 1] - deviates[j])
        interpolations.append((j, share, 1.0 if quantile > 0.5 else -1.0))
    return interpolations

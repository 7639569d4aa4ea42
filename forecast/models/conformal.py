"""
Conformal correction of the quantiles, horizon by horizon.

Each quantile's distance from the point forecast is multiplied by the factor that would have made
it cover its share of the targets at late origins, with the finite-sample correction of split
conformal prediction. A factor, not a shift, so that it holds for series of any spread. Where few
forecasts could be looked at, it is near the one that all steps and both sides would share, and
what a spread known from so few would need: Student's t in place of the normal.

The normal scores of the same targets tell how closely neighbouring steps go together, which is
what the spread of a sum over steps depends on.

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
"""How many forecasts the factor that all steps and both sides would share counts for."""


def fit_factors(
    residual: Float[np.ndarray, "origin horizon"],
    distances: Float[np.ndarray, "origin two horizon upper"],
    known: Bool[np.ndarray, "origin horizon"],
    upper: tuple[float, ...],
    independent: float,
) -> Float[np.ndarray, "two horizon upper"]:
    """
    The factor of each distance, below [0] and above [1] the point forecast.

    Args:
        residual: Target minus point forecast, in units of the series.
        distances: Of the quantiles, as the head gave them.
        known: Which targets were observed.
        upper: The quantiles above the median; those below mirror them.
        independent: How many forecasts of a whole horizon the origins are worth: those of
            neighbouring steps tell much the same.

    Returns:
        Where a horizon has no observed target, of its own it takes those of the one before; all
        are 1 where nothing was observed.
    """
    from scipy.special import stdtrit  # learning only

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
            if u and number < quantile * (number + 1):  # beyond what so few can tell
                factors[:, h, u] = factors[:, h, u - 1]
            else:
                factors[:, h, u] = _quantile(ratios[rows, :, h, u], quantile)
    shared = ratios.swapaxes(1, 2)[known].reshape(-1, len(upper))
    pooled = [_quantile(shared[:, u, None], quantile)[0] for u, quantile in enumerate(upper)]
    own = independent / (independent + POOLED)
    factors = np.clip(factors, MIN_FACTOR, MAX_FACTOR) ** own
    factors *= np.clip(pooled, MIN_FACTOR, MAX_FACTOR) ** (1 - own)
    freedom = independent * (2 - own)  # what both sides share was seen twice as often
    unsure = np.array([stdtrit(freedom, q) / NormalDist().inv_cdf(q) for q in upper])
    widened: np.ndarray = factors * unsure
    return widened


def _quantile(ratios: np.ndarray, quantile: float) -> np.ndarray:
    """Down each column, as split conformal prediction takes it: rank `quantile (n + 1)`."""
    found: np.ndarray = np.quantile(ratios, quantile, axis=0, method="weibull")
    return found


def apply_factors(
    distances: Float[np.ndarray, "origin two horizon upper"],
    factors: Float[np.ndarray, "two horizon upper"],
) -> Float[np.ndarray, "origin two horizon upper"]:
    """Correct the distances; quantiles that would cross are pushed apart."""
    rows = np.ascontiguousarray(factors.swapaxes(-1, -2), distances.dtype)
    corrected = distances.swapaxes(-1, -2) * rows  # as the network lays them out: long rows
    for u in range(1, corrected.shape[-2]):  # ten times as fast as `accumulate` on a short axis
        np.maximum(corrected[..., u, :], corrected[..., u - 1, :], out=corrected[..., u, :])
    back: np.ndarray = corrected.swapaxes(-1, -2)
    return back


def normal_scores(
    residual: Float[np.ndarray, "origin horizon"],
    distances: Float[np.ndarray, "origin two horizon upper"],
    upper: tuple[float, ...],
) -> Float[np.ndarray, "origin horizon"]:
    """
    Where each target lies in its forecast distribution, as a standard normal deviate.

    Between quantiles it is linear in the deviate; beyond the outermost it is the outermost.
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
    Correlation of the scores of neighbouring steps ahead, at least 0; 0 where there are none.

    >>> neighbour_correlation(np.array([[1.0, 1.0], [-1.0, -1.0]]), np.ones((2, 2), np.bool_))
    0.99
    """
    both = known[:, 1:] & known[:, :-1]
    before, after = scores[:, :-1][both], scores[:, 1:][both]
    if len(before) < 2 or before.std() == 0 or after.std() == 0:
        return 0.0
    return float(np.clip(np.corrcoef(before, after)[0, 1], 0.0, 0.99))


def between_quantiles(
    learned: tuple[float, ...], asked: tuple[float, ...]
) -> list[tuple[int, float, float]]:
    """
    Which learned distance each quantile takes, its share (the one before has the rest), the sign.

    Between learned quantiles it is linear in the normal deviate.

    >>> between_quantiles((0.1, 0.5, 0.9), (0.1, 0.5))
    [(0, 1.0, -1.0), (0, 0.0, -1.0)]
    """
    normal = NormalDist()
    deviates = [normal.inv_cdf(q) for q in learned if q >= 0.5]
    found = []
    for quantile in asked:
        deviate = normal.inv_cdf(max(quantile, 1 - quantile))
        j = min(max(bisect_left(deviates, deviate) - 1, 0), len(deviates) - 2)
        share = (deviate - deviates[j]) / (deviates[j + 1] - deviates[j])
        found.append((j, share, 1.0 if quantile > 0.5 else -1.0))
    return found

"""
Conformal correction of the quantiles, horizon by horizon.

Each quantile's distance from the point forecast is multiplied by the factor that would have made
it cover its share of the targets at late origins, with the finite-sample correction of split
conformal prediction. A factor, not a shift, so that it holds for series of any spread.

References:
    Romano, Patterson & Candes, Conformalized quantile regression, NeurIPS 2019.
"""

import numpy as np
from jaxtyping import Bool, Float

MIN_FACTOR, MAX_FACTOR = 0.2, 5.0


def fit_factors(
    residual: Float[np.ndarray, "origin horizon"],
    distances: Float[np.ndarray, "origin two horizon upper"],
    known: Bool[np.ndarray, "origin horizon"],
    upper: tuple[float, ...],
) -> Float[np.ndarray, "two horizon upper"]:
    """
    The factor of each distance, below [0] and above [1] the point forecast.

    Args:
        residual: Target minus point forecast, in units of the series.
        distances: Of the quantiles, as the head gave them.
        known: Which targets were observed.
        upper: The quantiles above the median; those below mirror them.

    Returns:
        1 where a horizon has no observed target at all.
    """
    factors = np.ones(distances.shape[1:])
    for h in range(residual.shape[1]):
        rows = known[:, h]
        number = int(rows.sum())
        if not number:
            continue
        for side, sign in enumerate((-1.0, 1.0)):
            ratio = sign * residual[rows, h, None] / np.maximum(distances[rows, side, h], 1e-9)
            ratio.sort(axis=0)
            for u, quantile in enumerate(upper):
                rank = min(int(np.ceil((number + 1) * quantile)), number) - 1
                factors[side, h, u] = ratio[rank, u]
    return np.clip(factors, MIN_FACTOR, MAX_FACTOR)


def apply_factors(
    distances: Float[np.ndarray, "origin two horizon upper"],
    factors: Float[np.ndarray, "two horizon upper"],
) -> Float[np.ndarray, "origin two horizon upper"]:
    """Correct the distances; quantiles that would cross are pushed apart."""
    return np.maximum.accumulate(distances * factors, axis=-1)

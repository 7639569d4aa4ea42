"""
Sample paths, for what quantiles of single steps cannot say: the spread of a sum over steps.

A path is drawn from the forecast distribution of each step, with the ranks of its steps tied
together by a Gaussian copula: a first-order autoregression whose correlation was measured on
held-out steps. Series are drawn independently of each other; a sum over series is therefore too
narrow as far as they share their surprises.

References:
    Nelsen, An introduction to copulas, Springer, 2006.
"""

from statistics import NormalDist

import numpy as np
from jaxtyping import Float

from forecast.bundle import Bundle
from forecast.errors import ConfigError
from forecast.inference.forecasting import forecast
from forecast.inference.states import States

MAX_PATHS = 10_000


def sample(
    bundle: Bundle,
    states: States,
    *,
    paths: int = 100,
    seed: int = 0,
    horizon: int | None = None,
    known_future: Float[np.ndarray, "series horizon known"] | None = None,
) -> Float[np.ndarray, "series path horizon"]:
    """
    Draw paths of each series from where its state stands. Pure, and the same for the same seed.

    Args:
        bundle: The model whose states these are.
        states: Each has seen at least one observation.
        paths: How many a series, at most 10,000.
        seed: Of the draws.
        horizon: As for `streaming.forecast`.
        known_future: As for `streaming.forecast`.

    Returns:
        In the unit of `y`. The quantiles of `sample(...).sum(axis=2)` are those of the total.

    Raises:
        ConfigError: No path, or more than 10,000. Otherwise as `streaming.forecast` does.
    """
    if not 1 <= paths <= MAX_PATHS:
        raise ConfigError(f"paths={paths} must be between 1 and {MAX_PATHS:,}")
    learned = bundle.config.model.quantiles
    made = forecast(bundle, states, horizon=horizon, known_future=known_future, quantiles=learned)[
        ..., 1:
    ]
    deviates = np.array([NormalDist().inv_cdf(q) for q in learned])
    series, steps = made.shape[:2]
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((series, paths, steps))
    rho = bundle.correlation
    for h in range(1, steps):
        noise[..., h] = rho * noise[..., h - 1] + np.sqrt(1 - rho**2) * noise[..., h]
    # beyond the outermost quantiles the outermost pieces go on: linear in the deviate
    place = np.clip(np.searchsorted(deviates, noise) - 1, 0, len(deviates) - 2)
    share = (noise - deviates[place]) / (deviates[place + 1] - deviates[place])
    rows, ahead = np.arange(series)[:, None, None], np.arange(steps)
    low, high = made[rows, ahead, place], made[rows, ahead, place + 1]
    drawn: np.ndarray = low + share * (high - low)
    return drawn if bundle.config.data.kind == "real" else np.maximum(drawn, 0.0)

"""
Sample paths: they give the spread of a sum over steps, which quantiles of single steps do not.

Each step of a path is drawn from its forecast distribution. A Gaussian copula ties the steps
together: a first-order autoregression whose correlation was measured on held-out steps. Series are
drawn independently of each other, so the spread of a sum over series is too narrow where their
errors are correlated.

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
"""Most paths a series that one call draws."""


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
    Draw sample paths of each series from its state, which stays as it is.

    Args:
        bundle: The model that made the states.
        states: Each has seen at least one observation.
        paths: Number of paths a series, at most 10,000.
        seed: Seed of the random numbers; equal seeds give equal paths.
        horizon: As for `forecasting.forecast`.
        known_future: As for `forecasting.forecast`.

    Returns:
        Paths in the unit of `y`. The quantiles of `sample(...).sum(axis=2)` are those of the total.

    Raises:
        ConfigError: No path, or more than 10,000.
        ForeignState, UnseenHorizon, MissingFuture, TooShort: As for `forecasting.forecast`.
    """
    if not 1 <= paths <= MAX_PATHS:
        raise ConfigError(f"paths={paths} must be between 1 and {MAX_PATHS:,}")
    learned = bundle.config.model.quantiles
    values = forecast(
        bundle, states, horizon=horizon, known_future=known_future, quantiles=learned
    )[..., 1:]
    deviates = np.array([NormalDist().inv_cdf(q) for q in learned])
    series, steps = values.shape[:2]
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((series, paths, steps))
    rho = bundle.correlation
    for h in range(1, steps):
        noise[..., h] = rho * noise[..., h - 1] + np.sqrt(1 - rho**2) * noise[..., h]
    # Between two quantiles the distribution is linear in the normal deviate; beyond the outermost
    # ones, the outermost line goes on.
    place = np.clip(np.searchsorted(deviates, noise) - 1, 0, len(deviates) - 2)
    share = (noise - deviates[place]) / (deviates[place + 1] - deviates[place])
    rows, ahead = np.arange(series)[:, None, None], np.arange(steps)
    low, high = values[rows, ahead, place], values[rows, ahead, place + 1]
    samples: np.ndarray = low + share * (high - low)
    return samples if bundle.config.data.kind == "real" else np.maximum(samples, 0.0)

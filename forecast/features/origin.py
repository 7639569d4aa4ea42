"""
What a forecast reads from the state of the filters: the last columns, the seasons ahead, bounds.

A pass over a panel lays columns out for every step; a forecast needs those of the last one only,
and finds them in the state.
"""

import numpy as np
from jaxtyping import Float, Int

from forecast.features import smoothing
from forecast.features.filter_spec import LAST, LEVEL, PEAK, SIZE, SMOOTH, TREND, FilterSpec
from forecast.features.filters import FilterState, centre_and_unit, profiles_of, steps_since
from forecast.features.intermittent import LEAST_SHARE, lifted


def columns_at_origin(spec: FilterSpec, state: FilterState) -> Float[np.ndarray, "series column"]:
    """The columns of each series' last step, read back from its state."""
    s, rows = state.scalars, np.arange(len(state.scalars))
    centre, unit = centre_and_unit(spec, s)
    profiles = profiles_of(spec, state.rings)
    kept = s[:, spec.first_smoother : spec.first_covariate]
    begun = steps_since(spec, state.count, s)
    return np.column_stack(
        [
            s[:, LAST],
            centre,
            unit,
            s[:, SMOOTH],
            s[:, TREND : spec.first_smoother],
            *(smoothing.pooled(kept) if spec.smoothers else ()),
            *(
                profile[rows, (begun - 1) % season]
                for season, profile in zip(spec.seasons, profiles, strict=True)
            ),
        ]
    ).astype(np.float32)


def upper_bound(spec: FilterSpec, state: FilterState) -> Float[np.ndarray, " series"]:
    """
    The most that is forecast of each series, in model space: ten times its highest value so far.

    Only the log space needs it, where a spread that is plausible around a small value is absurd.
    """
    if spec.space != "log":
        return np.full(len(state.count), np.inf)
    most: np.ndarray = state.scalars[:, PEAK] + np.log(10)
    return most


def lower_bound(spec: FilterSpec, state: FilterState) -> Float[np.ndarray, " series"]:
    """
    A forecast below this means zero, in model space: 1.5 % of the running level.

    Before the first value above 0 every forecast does. Only where zeros are possible, in the log
    space and for counts: networks there come close to a zero that is certain, such as that of a
    closed shop, but never reach it.
    """
    share = 1.5 * LEAST_SHARE
    if spec.space == "ratio":
        _, unit = centre_and_unit(spec, state.scalars)
        return share * unit
    if spec.waits:
        least = lifted(state.scalars[:, LEVEL], state.scalars[:, SIZE]) + np.log(share)
        return np.where(steps_since(spec, state.count, state.scalars) > 0, least, np.inf)
    return np.full(len(state.count), -np.inf)


def season_offsets(season: int, horizon: int) -> Int[np.ndarray, " horizon"]:
    """
    Steps from the origin to the same phase of the last season known at it, for each h.

    >>> season_offsets(4, 6)
    array([-3, -2, -1,  0, -3, -2])
    """
    ahead = np.arange(1, horizon + 1)
    return ahead - season * -(-ahead // season)


def latest_seasons(
    spec: FilterSpec, state: FilterState, horizon: int
) -> Float[np.ndarray, "series season two horizon"]:
    """For each season: the value, and the profile, at the target's phase; NaN where unknown."""
    out = np.empty((len(state.count), len(spec.seasons), 2, horizon), np.float32)
    past = state.rings[:, : spec.ring_length]
    origin = steps_since(spec, state.count, state.scalars)[:, None] - 1
    for i, (season, profile) in enumerate(
        zip(spec.seasons, profiles_of(spec, state.rings), strict=True)
    ):
        at = origin + season_offsets(season, min(season, horizon))
        values = np.take_along_axis(past, at % spec.ring_length, axis=1)
        usual = np.take_along_axis(profile, at % season, axis=1)
        for begin in range(0, horizon, season):
            out[:, i, 0, begin : begin + season] = values[:, : horizon - begin]
            out[:, i, 1, begin : begin + season] = usual[:, : horizon - begin]
    return out

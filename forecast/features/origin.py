"""
Inputs of a forecast from the state of the filters: columns, seasons and bounds at the origin.

A scan over a panel returns columns for every step. A forecast needs only those of the last step,
which the state still has.
"""

import numpy as np
from jaxtyping import Float, Int

from forecast.features import smoothing
from forecast.features.filter_spec import FilterSpec
from forecast.features.filter_state import (
    FilterState,
    ScalarViews,
    centre_and_unit,
    past_values,
    profiles_of,
    steps_since_begin,
)
from forecast.features.intermittent import LEAST_SHARE, bounded_level


def columns_at_origin(spec: FilterSpec, state: FilterState) -> Float[np.ndarray, "series column"]:
    """Return the columns of each series' last step, read from its state."""
    views, rows = ScalarViews.of(spec, state.scalars), np.arange(len(state.scalars))
    centre, unit = centre_and_unit(spec, views)
    profiles = profiles_of(spec, state.rings)
    t = steps_since_begin(spec, state.count, views.gap) - 1
    return np.column_stack(
        [
            views.last,
            centre,
            unit,
            views.smooth,
            views.trends,
            *(smoothing.pooled(views.smoothers) if spec.smoothers else ()),
            *(
                profile[rows, t % season]
                for season, profile in zip(spec.seasons, profiles, strict=True)
            ),
        ]
    ).astype(np.float32)


def upper_bound(spec: FilterSpec, state: FilterState) -> Float[np.ndarray, " series"]:
    """
    Return the largest forecast of each series, in model space: ten times its largest value so far.

    Only the log space needs a bound: a spread that is plausible there can be absurd in `y`.
    """
    if spec.space != "log":
        return np.full(len(state.count), np.inf)
    most: np.ndarray = ScalarViews.of(spec, state.scalars).peak + np.log(10)
    return most


def lower_bound(spec: FilterSpec, state: FilterState) -> Float[np.ndarray, " series"]:
    """
    Return the value, in model space, below which a forecast is zero: 1.5 % of the running level.

    The bound is infinite before the first value above 0, and minus infinity where zeros are not
    possible. It is needed in the log space and for counts because a network comes close to a
    certain zero, such as that of a closed shop, but never reaches it.
    """
    views, share = ScalarViews.of(spec, state.scalars), 1.5 * LEAST_SHARE
    if spec.space == "ratio":
        _, unit = centre_and_unit(spec, views)
        return share * unit
    if spec.waits:
        least = bounded_level(views.level, views.size) + np.log(share)
        return np.where(steps_since_begin(spec, state.count, views.gap) > 0, least, np.inf)
    return np.full(len(state.count), -np.inf)


def season_offsets(season: int, horizon: int) -> Int[np.ndarray, " horizon"]:
    """
    Return the steps from the origin to the target's phase in the last known season, for each h.

    >>> season_offsets(4, 6)
    array([-3, -2, -1,  0, -3, -2])
    """
    ahead = np.arange(1, horizon + 1)
    return ahead - season * -(-ahead // season)


def latest_seasons(
    spec: FilterSpec, state: FilterState, horizon: int
) -> Float[np.ndarray, "series season two horizon"]:
    """Return value and profile at the target's phase of each season; NaN where unknown."""
    out = np.empty((len(state.count), len(spec.seasons), 2, horizon), np.float32)
    past, gap = past_values(spec, state.rings), ScalarViews.of(spec, state.scalars).gap
    origin = steps_since_begin(spec, state.count, gap)[:, None] - 1
    for i, (season, profile) in enumerate(
        zip(spec.seasons, profiles_of(spec, state.rings), strict=True)
    ):
        steps = origin + season_offsets(season, min(season, horizon))
        values = np.take_along_axis(past, steps % spec.ring_length, axis=1)
        usual = np.take_along_axis(profile, steps % season, axis=1)
        for begin in range(0, horizon, season):
            out[:, i, 0, begin : begin + season] = values[:, : horizon - begin]
            out[:, i, 1, begin : begin + season] = usual[:, : horizon - begin]
    return out

"""
The causal filters of each series: level, scale, trends, seasonal profiles, in O(1) a step.

`advance` moves every series by its next observations. Called once with a whole panel it is the scan
of training; called with one observation it is the step of the service. Both run the same lines, so
they agree to the bit.

Everything here is in *model space*: the logarithm of `y`, or `y` itself. A series is described
relative to its own running level and in its own unit, so that no feature depends on the scale of
`y`. Only counts reveal their scale, because it decides how noisy they are.

References:
    Gardner & McKenzie, Forecasting trends in time series, Management Science 31(10), 1985.
    Smyl, A hybrid method of exponential smoothing and recurrent neural networks, IJF 36(1), 2020.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from forecast.data.panel import Panel
from forecast.features import intermittent, smoothing
from forecast.features.filter_spec import FilterSpec
from forecast.features.filter_state import (
    FilterState,
    ScalarViews,
    centre_and_unit,
    past_values,
    profiles_of,
    steps_since_begin,
)

PROFILE_GAIN, SCALE_GAIN, FAST_GAIN, COVARIATE_GAIN, SMOOTH_GAIN = 0.2, 0.03, 0.2, 0.05, 0.3
COUNT_PROFILE_GAIN = 0.12
MAX_AGE = 100
"""Steps after which a series is no longer young: a larger age would only reveal the date."""
Values = Float[np.ndarray, " n"]
Flags = Bool[np.ndarray, " n"]
Steps = Int[np.ndarray, " n"]


@dataclass(frozen=True, slots=True)
class FilterOutput:
    """Output of the filters for each step of a panel, series end to end."""

    features: Float[np.ndarray, "time feature"]
    """What the network reads."""
    columns: Float[np.ndarray, "time column"]
    """What the skip forecasts are made from, as `filter_spec.Column` names it."""


def advance(
    spec: FilterSpec,
    state: FilterState,
    panel: Panel,
    extra_features: Float[np.ndarray, "time other"] | None = None,
) -> tuple[FilterState, FilterOutput]:
    """
    Move each series by all its steps in the panel: row `i` of the state takes series `i`.

    Series take their steps together, the longest first, so that each NumPy call works on all series
    that still have a step. The cost grows with the new observations, not with the past.

    Args:
        spec: The filters.
        state: State before the first step; it stays as it is.
        panel: The observations.
        extra_features: Further features of each step, which are appended to those of the filters.

    Returns:
        The new state, and the output for each step in the panel's order.
    """
    lengths = panel.lengths
    order = np.argsort(-lengths, kind="stable")
    count, scalars, rings = state.count[order], state.scalars[order], state.rings[order]
    begins = panel.indptr[:-1][order]
    num_extra = 0 if extra_features is None else extra_features.shape[1]
    features = np.zeros((len(panel.values), spec.num_features + num_extra), np.float32)
    if extra_features is not None:
        features[:, spec.num_features :] = extra_features
    columns = np.zeros((len(panel.values), spec.num_columns), np.float32)
    active = len(order) - np.searchsorted(
        lengths[order][::-1], np.arange(lengths.max(initial=0)), side="right"
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        for step, n in enumerate(active):
            rows = begins[:n] + step
            covariates = np.hstack([panel.known_future[rows], panel.past_only[rows]])
            features[rows, : spec.num_features], columns[rows] = _step(
                spec,
                count[:n],
                scalars[:n],
                rings[:n],
                panel.values[rows],
                panel.observed[rows],
                covariates.astype(np.float64),
            )
            count[:n] += 1
    original = np.empty_like(order)
    original[order] = np.arange(len(order))
    new_state = FilterState(count[original], scalars[original], rings[original])
    return new_state, FilterOutput(features, columns)


def _step(
    spec: FilterSpec,
    count: Steps,
    scalars: Float[np.ndarray, "n scalar"],
    rings: Float[np.ndarray, "n ring"],
    y: Values,
    observed: Flags,
    covariates: Float[np.ndarray, "n covariate"],
) -> tuple[Float[np.ndarray, "n feature"], Float[np.ndarray, "n column"]]:
    """Take one step of all series in place; `count` is the number of steps before it."""
    views = ScalarViews.of(spec, scalars)
    past, profiles = past_values(spec, rings), list(profiles_of(spec, rings))
    rows, t = np.arange(len(y)), steps_since_begin(spec, count, views.gap)
    first = t == 0
    is_count = spec.space == "ratio"
    last, level = views.last.copy(), views.level.copy()

    x = to_model_space(spec, y, level, views.size, first)
    if not observed.all():
        x = _fill_unobserved(spec, views, profiles, x, np.flatnonzero(~observed), t)
    x = x.astype(np.float32).astype(np.float64)

    change = np.where(first, 0.0, x - last)
    lags = [past[rows, (t - season) % spec.ring_length] for season in spec.seasons]
    mean = _update_level(spec, views, past, x, t)
    level_change = np.where(first, 0.0, mean - level)
    views.last[:] = x
    peak = np.where(observed, np.maximum(views.peak, x), views.peak)
    views.peak[:] = np.where(first, x, peak)
    _update_scales(spec, views, x, change, t)
    views.smooth[:] += np.maximum(SMOOTH_GAIN, 1 / (t + 1)) * (x - views.smooth)
    if is_count:
        sold = observed & (x > 0)
        views.size[:], views.gap[:] = intermittent.update_counts(views.size, views.gap, x, sold)
    elif spec.waits:
        positive = observed & (y > 0)
        views.size[:], views.gap[:] = intermittent.update_amounts(
            views.size, views.gap, x, positive, t, level
        )
    trends = _update_trends(spec, views, x, t)
    columns = [views.smooth, *(part for trend in trends for part in trend)]
    if spec.smoothers:
        season = spec.seasons[-1]
        smoothing.smooth(views.smoothers, x, profiles[-1][rows, t % season], t, season)
        columns += smoothing.pooled(views.smoothers)
    centre, unit = centre_and_unit(spec, views)

    slopes = [slope for (_, slope), (_, gain, _) in zip(trends, spec.trends, strict=True) if gain]
    relative = [(x - mean) / unit, change / unit]
    relative.append(level_change / unit * np.sqrt(min(spec.window, 10)))
    relative += [2 * slope / unit for slope in slopes]
    relative += [(x - trend_level) / unit for trend_level, _ in trends]
    relative += _seasonal_features(spec, past, lags, x, mean, unit, t)
    columns += _update_profiles(spec, profiles, x if is_count else x - mean, t)

    features = [np.arcsinh(part) for part in relative]
    scale, fast = (np.maximum(part, 0.01 * unit) for part in (views.scale, views.fast_scale))
    youth = np.log1p(np.minimum(t, MAX_AGE)) - 3
    features += [np.log(scale / unit), np.log(fast / scale), youth, observed - 1.0]
    if is_count:
        features += _count_features(spec, views, profiles, x, unit, t)
    if spec.waits and (waiting := first & ~(observed & (y > 0))).any():
        rings[waiting] = np.nan  # A series that has not begun has no past.
    if spec.num_covariates:
        views.covariates[:] += np.maximum(COVARIATE_GAIN, 1 / (t + 1))[:, None] * (
            covariates - views.covariates
        )
        features += [(covariates - views.covariates)[:, i] for i in spec.amounts]
        features += [covariates[:, i] for i in spec.raw]
    return (
        np.stack(features, axis=1).astype(np.float32),
        np.stack([x, centre, unit, *columns], axis=1).astype(np.float32),
    )


def _fill_unobserved(
    spec: FilterSpec,
    views: ScalarViews,
    profiles: Sequence[Float[np.ndarray, "n _"]],
    x: Values,
    missing: Int[np.ndarray, " missing"],
    t: Steps,
) -> Values:
    """Return the values with the expected one at steps that were not observed."""
    is_count = spec.space == "ratio"
    expected = views.count_level()[missing] if is_count else views.last[missing]
    for season, profile in zip(spec.seasons, profiles, strict=True):
        centre = 0.0 if is_count else views.level[missing] - _known_mean(profile[missing])
        seasonal = profile[missing, t[missing] % season] + centre
        expected = np.where(np.isnan(seasonal), expected, seasonal)
    filled = x.copy()
    filled[missing] = expected
    return filled


def _known_mean(profile: Float[np.ndarray, "n season"]) -> Values:
    """
    Return the mean of the known phases of a profile.

    It is subtracted where a profile is added to the level, so that the sum leaves the level where
    it is: unobserved values are made from the level and enter it again.
    """
    known = ~np.isnan(profile)
    mean: np.ndarray = np.where(known, profile, 0.0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
    return mean


def _update_level(
    spec: FilterSpec, views: ScalarViews, past: Float[np.ndarray, "n past"], x: Values, t: Steps
) -> Values:
    """Store the value among the past ones, and return the new mean over the window."""
    rows, length = np.arange(len(x)), spec.ring_length
    leaving = np.where(t >= spec.window, past[rows, (t - spec.window) % length], 0.0)
    views.window_sum[:] += x - leaving
    past[rows, t % length] = x
    mean: np.ndarray = views.window_sum / np.minimum(t + 1, spec.window)
    views.level[:] = mean
    return mean


def _update_scales(
    spec: FilterSpec, views: ScalarViews, x: Values, change: Values, t: Steps
) -> None:
    """Move the slow and the fast running mean of absolute changes."""
    start = (spec.unit or 0.01) if spec.space == "log" else 0.1 * np.abs(x)
    age = np.maximum(t, 1)
    for scale, gain in ((views.scale, SCALE_GAIN), (views.fast_scale, FAST_GAIN)):
        moved = scale + np.maximum(gain, 1 / age) * (np.abs(change) - scale)
        scale[:] = np.where(t == 0, start, moved)


def _update_trends(
    spec: FilterSpec, views: ScalarViews, x: Values, t: Steps
) -> list[tuple[Values, Values]]:
    """Move each trend, and return its new level and slope; running means have a slope of 0."""
    trends = []
    for i, (gain, slope_gain, damping) in enumerate(spec.trends):
        level, slope = views.trends[:, 2 * i], damping * views.trends[:, 2 * i + 1]
        if slope_gain == 0:
            new_level = level + np.maximum(gain, 1 / (t + 1)) * (x - level)
            new_slope = np.zeros_like(new_level)
        else:
            first = t == 0
            new_level = np.where(first, x, gain * x + (1 - gain) * (level + slope))
            new_slope = slope_gain * (new_level - level) + (1 - slope_gain) * slope
            new_slope = np.where(first, 0.0, new_slope)
        views.trends[:, 2 * i], views.trends[:, 2 * i + 1] = new_level, new_slope
        trends.append((new_level, new_slope))
    return trends


def _seasonal_features(
    spec: FilterSpec,
    past: Float[np.ndarray, "n past"],
    lags: Sequence[Values],
    x: Values,
    mean: Values,
    unit: Values,
    t: Steps,
) -> list[Values]:
    """Return distances from the value a season ago and, for short seasons, from the next one."""
    rows, features = np.arange(len(x)), []
    for season, lag in zip(spec.seasons, lags, strict=True):
        features.append(np.nan_to_num((x - lag) / (2 * unit)))
        if season < 60:
            ahead = past[rows, (t + 1 - season) % spec.ring_length]
            features.append(np.nan_to_num((ahead - mean) / (2 * unit)))
    return features


def _update_profiles(
    spec: FilterSpec, profiles: Sequence[Float[np.ndarray, "n _"]], value: Values, t: Steps
) -> list[Values]:
    """Move each profile at the phase of the step, and return its new value there."""
    rows, least_gain = np.arange(len(value)), PROFILE_GAIN
    if spec.space == "ratio":
        least_gain = COUNT_PROFILE_GAIN
    updated = []
    for season, profile in zip(spec.seasons, profiles, strict=True):
        usual = profile[rows, t % season]
        gain = np.maximum(least_gain, 1 / (t // season + 1))
        moved = usual + gain * (value - usual)
        profile[rows, t % season] = np.where(np.isnan(usual), value, moved)
        updated.append(profile[rows, t % season])
    return updated


def _count_features(
    spec: FilterSpec,
    views: ScalarViews,
    profiles: Sequence[Float[np.ndarray, "n _"]],
    x: Values,
    unit: Values,
    t: Steps,
) -> list[Values]:
    """Return the features of counts: whether any were sold, gap, size, and the next phases."""
    rows = np.arange(len(x))
    size = np.where(views.size > 0, views.size, 1.0)
    gap = np.log1p(np.minimum(views.gap, MAX_AGE))
    features = [(x > 0) - 0.5, gap, np.log(unit), np.log(size / unit)]
    for season, profile in zip(spec.seasons, profiles, strict=True):
        coming = profile[rows, (t + 1) % season]
        features.append(np.log(np.where(np.isnan(coming), unit, coming) / unit + 0.1))
    return features


def to_model_space(
    spec: FilterSpec, y: Values, level: Values, size: Values, first: Flags
) -> Values:
    """
    Return `log(y)` in the log space, else `y`.

    Args:
        spec: The filters. If zeros are possible, `intermittent.log_of` reads them.
        y: Values.
        level: Running level before the step.
        size: Running size of values above 0.
        first: Whether the step is the first of its series.
    """
    if spec.space != "log":
        return y
    if spec.zeros:
        return intermittent.log_of(y, level, size, first)
    logs: np.ndarray = np.log(np.where(y > 0, y, 1.0))
    return logs

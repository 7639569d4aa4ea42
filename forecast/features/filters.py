"""
The causal encoder of each series: level, scale, trends, seasonal profiles, in O(1) a step.

One function, `advance`, moves every series by its next observations. Called once with a whole
panel it is the scan that training uses; called with one observation it is the step that the
service uses; both run the same lines, so they agree to the bit.

Everything here is in *model space*: the logarithm of `y`, or `y` itself. A series is described
relative to its own running level and in its own unit, so that no feature depends on the scale of
`y`. Only counts tell their scale too, for it decides how noisy they are.

References:
    Gardner & McKenzie, Forecasting trends in time series, Management Science 31(10), 1985.
    Smyl, A hybrid method of exponential smoothing and recurrent neural networks, IJF 36(1), 2020.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from forecast.data.panel import Panel
from forecast.features import intermittent, smoothing
from forecast.features.filter_spec import (
    FAST,
    GAP,
    LAST,
    LEVEL,
    PEAK,
    SCALE,
    SIZE,
    SLOW,
    SMOOTH,
    SUM,
    TREND,
    FilterSpec,
)

PROFILE_GAIN, SCALE_GAIN, FAST_GAIN, COVARIATE_GAIN, SMOOTH_GAIN = 0.2, 0.03, 0.2, 0.05, 0.3
COUNT_PROFILE_GAIN = 0.12
MAX_AGE = 100
"""Steps after which a series is no longer young: its age would only tell the date."""


@dataclass(frozen=True, slots=True)
class FilterState:
    """What the filters remember of each series. A value: `advance` returns a new one."""

    count: Int[np.ndarray, " series"]
    """Steps seen."""
    scalars: Float[np.ndarray, "series scalar"]
    rings: Float[np.ndarray, "series ring"]
    """The last values and seasonal profiles, each at its step modulo its length."""

    @classmethod
    def initial(cls, spec: FilterSpec, num_series: int) -> "FilterState":
        """The state of series of which nothing was seen."""
        return cls(
            np.zeros(num_series, np.int64),
            np.zeros((num_series, spec.num_scalars)),
            np.full((num_series, spec.num_rings), np.nan, np.float32),
        )

    def take(self, rows: Int[np.ndarray, " row"]) -> "FilterState":
        """The states of these series, copied."""
        return type(self)(self.count[rows], self.scalars[rows], self.rings[rows])


@dataclass(frozen=True, slots=True)
class FilterOutput:
    """What the scan saw at each step of a panel, series end to end."""

    features: Float[np.ndarray, "time feature"]
    columns: Float[np.ndarray, "time column"]


def advance(
    spec: FilterSpec,
    state: FilterState,
    panel: Panel,
    extra_features: Float[np.ndarray, "time other"] | None = None,
) -> tuple[FilterState, FilterOutput]:
    """
    Move each series by all its steps in the panel: row `i` of the state takes series `i`.

    Steps are taken in lockstep over series, longest first, so that each NumPy call works on all
    series that still have a step: cost grows with observations, not with the past. Features of
    each step from elsewhere, `extra_features`, come after those of the filters.

    Returns:
        The new state, and features and columns of each step in the panel's order.
    """
    lengths = panel.lengths
    order = np.argsort(-lengths, kind="stable")
    count, scalars, rings = state.count[order], state.scalars[order], state.rings[order]
    begins = panel.indptr[:-1][order]
    others = 0 if extra_features is None else extra_features.shape[1]
    features = np.zeros((len(panel.values), spec.num_features + others), np.float32)
    if extra_features is not None:
        features[:, spec.num_features :] = extra_features
    columns = np.zeros((len(panel.values), spec.num_columns), np.float32)
    active = len(order) - np.searchsorted(
        lengths[order][::-1], np.arange(lengths.max(initial=0)), side="right"
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        for step, n in enumerate(active):
            at = begins[:n] + step
            covariates = np.hstack([panel.known_future[at], panel.past_only[at]])
            features[at, : spec.num_features], columns[at] = _step(
                spec,
                count[:n],
                scalars[:n],
                rings[:n],
                panel.values[at],
                panel.observed[at],
                covariates.astype(np.float64),
            )
            count[:n] += 1
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    return FilterState(count[back], scalars[back], rings[back]), FilterOutput(features, columns)


def _step(
    spec: FilterSpec,
    count: Int[np.ndarray, " n"],
    scalars: Float[np.ndarray, "n scalar"],
    rings: Float[np.ndarray, "n ring"],
    y: Float[np.ndarray, " n"],
    observed: np.ndarray,
    covariates: Float[np.ndarray, "n covariate"],
) -> tuple[Float[np.ndarray, "n feature"], Float[np.ndarray, "n column"]]:
    """Take one step in place; `count` is the steps seen before it."""
    rows, t = np.arange(len(y)), steps_since(spec, count, scalars)
    first = t == 0
    ratio = spec.space == "ratio"
    past, length = rings[:, : spec.ring_length], spec.ring_length
    last, level = scalars[:, LAST].copy(), scalars[:, LEVEL].copy()
    profiles = list(profiles_of(spec, rings))

    x = to_model_space(spec, y, level, scalars[:, SIZE], first)
    if not observed.all():
        lost = np.flatnonzero(~observed)
        expected = scalars[lost, TREND + 2 * SLOW] if ratio else last[lost]
        for season, profile in zip(spec.seasons, profiles, strict=True):
            centre = 0.0 if ratio else level[lost] - _mean(profile[lost])
            seasonal = profile[lost, t[lost] % season] + centre
            expected = np.where(np.isnan(seasonal), expected, seasonal)
        x = x.copy()
        x[lost] = expected
    x = x.astype(np.float32).astype(np.float64)

    dx = np.where(first, 0.0, x - last)
    lags = [past[rows, (t - season) % length] for season in spec.seasons]
    gone = np.where(t >= spec.window, past[rows, (t - spec.window) % length], 0.0)
    scalars[:, SUM] += x - gone
    past[rows, t % length] = x
    mean = scalars[:, SUM] / np.minimum(t + 1, spec.window)
    dlevel = np.where(first, 0.0, mean - level)
    scalars[:, LEVEL], scalars[:, LAST] = mean, x
    highest = np.where(observed, np.maximum(scalars[:, PEAK], x), scalars[:, PEAK])
    scalars[:, PEAK] = np.where(first, x, highest)

    start = (spec.unit or 0.01) if spec.space == "log" else 0.1 * np.abs(x)
    age = np.maximum(t, 1)
    for place, gain in ((SCALE, SCALE_GAIN), (FAST, FAST_GAIN)):
        before = scalars[:, place]
        moved = before + np.maximum(gain, 1 / age) * (np.abs(dx) - before)
        scalars[:, place] = np.where(first, start, moved)
    smooth = scalars[:, SMOOTH] + np.maximum(SMOOTH_GAIN, 1 / (t + 1)) * (x - scalars[:, SMOOTH])
    scalars[:, SMOOTH] = smooth
    sized = scalars[:, SIZE], scalars[:, GAP]
    if ratio:
        scalars[:, SIZE], scalars[:, GAP] = intermittent.update_counts(
            *sized, x, observed & (x > 0)
        )
    elif spec.waits:
        positive = observed & (y > 0)
        scalars[:, SIZE], scalars[:, GAP] = intermittent.update_amounts(
            *sized, x, positive, t, level
        )

    columns, gaps, slopes = [smooth], [], []
    for i, (gain, slope_gain, damping) in enumerate(spec.trends):
        place = TREND + 2 * i
        old, slope = scalars[:, place].copy(), damping * scalars[:, place + 1]
        if slope_gain == 0:
            new = old + np.maximum(gain, 1 / (t + 1)) * (x - old)
            slope = np.zeros_like(new)
        else:
            new = np.where(first, x, gain * x + (1 - gain) * (old + slope))
            slope = np.where(first, 0.0, slope_gain * (new - old) + (1 - slope_gain) * slope)
            slopes.append(slope)
        scalars[:, place], scalars[:, place + 1] = new, slope
        gaps.append(new)
        columns += [new, slope]
    if spec.smoothers:
        season = spec.seasons[-1]
        kept = scalars[:, spec.first_smoother : spec.first_covariate]
        smoothing.smooth(kept, x, profiles[-1][rows, t % season], t, season)
        columns += smoothing.pooled(kept)
    centre, unit = centre_and_unit(spec, scalars)

    parts = [(x - mean) / unit, dx / unit, dlevel / unit * np.sqrt(min(spec.window, 10))]
    parts += [2 * slope / unit for slope in slopes] + [(x - new) / unit for new in gaps]
    logs = []
    for season, lag, profile in zip(spec.seasons, lags, profiles, strict=True):
        parts.append(np.nan_to_num((x - lag) / (2 * unit)))
        if season < 60:
            ahead = past[rows, (t + 1 - season) % length]
            parts.append(np.nan_to_num((ahead - mean) / (2 * unit)))
        usual = profile[rows, t % season]
        seen = x if ratio else x - mean
        weight = np.maximum(COUNT_PROFILE_GAIN if ratio else PROFILE_GAIN, 1 / (t // season + 1))
        profile[rows, t % season] = np.where(np.isnan(usual), seen, usual + weight * (seen - usual))
        columns.append(profile[rows, t % season])
        if ratio:
            coming = profile[rows, (t + 1) % season]
            logs.append(np.log(np.where(np.isnan(coming), unit, coming) / unit + 0.1))
    features = [np.arcsinh(part) for part in parts]
    scale, fast = (np.maximum(scalars[:, place], 0.01 * unit) for place in (SCALE, FAST))
    young = np.log1p(np.minimum(t, MAX_AGE)) - 3
    features += [np.log(scale / unit), np.log(fast / scale), young, observed - 1.0]
    if ratio:
        size = np.where(scalars[:, SIZE] > 0, scalars[:, SIZE], 1.0)
        gap = np.log1p(np.minimum(scalars[:, GAP], MAX_AGE))
        features += [(x > 0) - 0.5, gap, np.log(unit), np.log(size / unit), *logs]
    if spec.waits and (waiting := first & ~(observed & (y > 0))).any():
        rings[waiting] = np.nan  # what is not begun has no past
    if spec.num_covariates:
        known = scalars[:, spec.first_covariate :]
        known += np.maximum(COVARIATE_GAIN, 1 / (t + 1))[:, None] * (covariates - known)
        features += [(covariates - known)[:, i] for i in spec.amounts]
        features += [covariates[:, i] for i in spec.raw]
    return (
        np.stack(features, axis=1).astype(np.float32),
        np.stack([x, centre, unit, *columns], axis=1).astype(np.float32),
    )


def _mean(profile: Float[np.ndarray, "n season"]) -> Float[np.ndarray, " n"]:
    """
    Of what is known of it.

    Added to a level, a profile has to leave it where it is: what is not observed is made from the
    level and goes into it again.
    """
    known = ~np.isnan(profile)
    mean: np.ndarray = np.where(known, profile, 0.0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
    return mean


def steps_since(
    spec: FilterSpec, count: Int[np.ndarray, " n"], scalars: Float[np.ndarray, "n scalar"]
) -> Int[np.ndarray, " n"]:
    """Steps seen since a series began."""
    return count - scalars[:, GAP].astype(np.int64) if spec.waits else count


def centre_and_unit(
    spec: FilterSpec, scalars: Float[np.ndarray, "n scalar"]
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Where relative values are counted from, and in what."""
    level = scalars[:, LEVEL]
    if spec.space == "ratio":
        size = np.where(scalars[:, SIZE] > 0, scalars[:, SIZE], 1.0)
        return np.zeros_like(level), scalars[:, TREND + 2 * SLOW] + 0.05 * size
    if spec.unit is not None:
        return level, np.full_like(level, spec.unit)
    tiny = 1e-4 if spec.space == "log" else 1e-6 * np.abs(level) + 1e-12
    return level, np.maximum(scalars[:, SCALE], tiny)


def to_model_space(
    spec: FilterSpec,
    y: Float[np.ndarray, " n"],
    level: Float[np.ndarray, " n"],
    size: Float[np.ndarray, " n"],
    first: Bool[np.ndarray, " n"],
) -> Float[np.ndarray, " n"]:
    """`log(y)` for the log space, `y` otherwise; a zero is read as `sizes.log_of` tells."""
    if spec.space != "log":
        return y
    if spec.zeros:
        return intermittent.log_of(y, level, size, first)
    logs: np.ndarray = np.log(np.where(y > 0, y, 1.0))
    return logs


def profiles_of(
    spec: FilterSpec, rings: Float[np.ndarray, "n ring"]
) -> Iterator[Float[np.ndarray, "n season"]]:
    """The part of the rings that holds each season's profile, as views."""
    end = spec.ring_length
    for season in spec.seasons:
        end += season
        yield rings[:, end - season : end]


def covariate_means(spec: FilterSpec, state: FilterState) -> Float[np.ndarray, "series covariate"]:
    """The running mean of each covariate, known-future ones first."""
    return state.scalars[:, spec.first_covariate :]

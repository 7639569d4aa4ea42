"""
The causal encoder of each series: level, scale, trends, seasonal profiles, in O(1) a step.

One function, `advance`, moves every series by its next observations. Called once with a whole
panel it is the scan that training uses; called with one observation it is the step that the
service uses; both run the same lines, so they agree to the bit.

Everything here is in *model space*: the logarithm of `y` when the data are positive, `y` itself
otherwise. A series is described relative to its own running level and in its own unit, so that
no feature depends on the scale of `y`.

References:
    Gardner & McKenzie, Forecasting trends in time series, Management Science 31(10), 1985.
    Smyl, A hybrid method of exponential smoothing and recurrent neural networks, IJF 36(1), 2020.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from forecast.panel import Panel

LOG_UNIT = 0.1
"""Unit of positive data: on the log scale 0.1 is about ten percent."""
TRENDS = ((0.8, 0.2, 0.9), (0.5, 0.1, 0.97))
"""Damped trends (level gain, trend gain, damping): a quick one and a slow one."""
PROFILE_GAIN, SCALE_GAIN, FAST_GAIN, COVARIATE_GAIN, SMOOTH_GAIN = 0.2, 0.03, 0.2, 0.05, 0.3

SUM, LEVEL, LAST, SCALE, FAST, FLOOR, SMOOTH, TREND = 0, 1, 2, 3, 4, 5, 6, 7
"""Places in `FilterState.scalars`; each trend takes two from TREND on, covariates follow."""
VALUE, UNIT = 0, 2
"""Places in the columns: value, level, unit, smooth, two for each trend, one for each season."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterSpec:
    """What the filters of a model remember; fixed when it is trained."""

    log: bool
    """Whether model space is the logarithm of `y`."""
    seasons: tuple[int, ...]
    """Steps in each season, shortest first."""
    num_known: int
    """Known-future covariates given by the user, without calendar features."""
    num_past: int

    @property
    def window(self) -> int:
        """Steps that the running level averages over."""
        if not self.seasons:
            return 3
        season = self.seasons[-1]
        if len(self.seasons) > 1:
            return min(season, 672)
        return 2 * season if 5 <= season <= 7 else season if season <= 24 else season // 4

    @property
    def ring_length(self) -> int:
        """How many past values are kept."""
        return max(self.window, *self.seasons, 1)

    @property
    def num_covariates(self) -> int:
        """Known-future and past-only together."""
        return self.num_known + self.num_past

    @property
    def num_scalars(self) -> int:
        """Width of `FilterState.scalars`."""
        return TREND + 2 * len(TRENDS) + self.num_covariates

    @property
    def num_rings(self) -> int:
        """Width of `FilterState.rings`: past values, then one profile a season."""
        return self.ring_length + sum(self.seasons)

    @property
    def num_columns(self) -> int:
        """Width of the columns that the skip forecasts are made from."""
        return 4 + 2 * len(TRENDS) + len(self.seasons)

    @property
    def num_features(self) -> int:
        """Width of what the network reads at each step, before calendar and static features."""
        short = sum(season < 60 for season in self.seasons)
        return 7 + 2 * len(TRENDS) + len(self.seasons) + short + 2 * self.num_covariates


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
class Encoded:
    """What the scan saw at each step of a panel, series end to end."""

    features: Float[np.ndarray, "time feature"]
    columns: Float[np.ndarray, "time column"]


def advance(spec: FilterSpec, state: FilterState, panel: Panel) -> tuple[FilterState, Encoded]:
    """
    Move each series by all its steps in the panel: row `i` of the state takes series `i`.

    Steps are taken in lockstep over series, longest first, so that each NumPy call works on all
    series that still have a step: cost grows with observations, not with the past.

    Returns:
        The new state, and features and columns of each step in the panel's order.
    """
    lengths = panel.lengths
    order = np.argsort(-lengths, kind="stable")
    count, scalars, rings = state.count[order], state.scalars[order], state.rings[order]
    begins = panel.indptr[:-1][order]
    features = np.zeros((len(panel.values), spec.num_features), np.float32)
    columns = np.zeros((len(panel.values), spec.num_columns), np.float32)
    covariates = np.hstack([panel.known_future, panel.past_only]).astype(np.float64)
    active = len(order) - np.searchsorted(lengths[order][::-1], np.arange(lengths.max(initial=0)),
                                          side="right")  # fmt: skip
    with np.errstate(invalid="ignore", divide="ignore"):
        for step, n in enumerate(active):
            at = begins[:n] + step
            features[at], columns[at] = _step(
                spec, count[:n], scalars[:n], rings[:n],
                panel.values[at], panel.observed[at], covariates[at],
            )  # fmt: skip
            count[:n] += 1
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    return FilterState(count[back], scalars[back], rings[back]), Encoded(features, columns)


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
    rows, first, t = np.arange(len(y)), count == 0, count
    past, length = rings[:, : spec.ring_length], spec.ring_length
    last, level = scalars[:, LAST].copy(), scalars[:, LEVEL].copy()
    profiles = _profiles(spec, rings)

    x = to_model_space(spec, y, scalars)
    if not observed.all():
        expected = last
        for season, profile in zip(spec.seasons, profiles, strict=True):
            seasonal = level + profile[rows, t % season]
            expected = np.where(np.isnan(seasonal), expected, seasonal)
        x = np.where(observed, x, expected)
    x = x.astype(np.float32).astype(np.float64)

    dx = np.where(first, 0.0, x - last)
    lags = [past[rows, (t - season) % length] for season in spec.seasons]
    gone = np.where(t >= spec.window, past[rows, (t - spec.window) % length], 0.0)
    scalars[:, SUM] += x - gone
    past[rows, t % length] = x
    mean = scalars[:, SUM] / np.minimum(t + 1, spec.window)
    dlevel = np.where(first, 0.0, mean - level)
    scalars[:, LEVEL], scalars[:, LAST] = mean, x

    start = LOG_UNIT if spec.log else 0.1 * np.abs(x)
    age = np.maximum(t, 1)
    for place, gain in ((SCALE, SCALE_GAIN), (FAST, FAST_GAIN)):
        before = scalars[:, place]
        moved = before + np.maximum(gain, 1 / age) * (np.abs(dx) - before)
        scalars[:, place] = np.where(first, start, moved)
    tiny = 1e-6 * np.abs(mean) + 1e-12
    unit = np.full(len(y), LOG_UNIT) if spec.log else np.maximum(scalars[:, SCALE], tiny)

    smooth = scalars[:, SMOOTH] + np.maximum(SMOOTH_GAIN, 1 / (t + 1)) * (x - scalars[:, SMOOTH])
    scalars[:, SMOOTH] = smooth
    parts = [
        (x - mean) / unit,
        dx / unit,
        dlevel / unit * np.sqrt(min(spec.window, 10)),
    ]
    columns = [x, mean, unit, smooth]
    for i, (gain, slope_gain, damping) in enumerate(TRENDS):
        place = TREND + 2 * i
        old, slope = scalars[:, place].copy(), damping * scalars[:, place + 1]
        new = np.where(first, x, gain * x + (1 - gain) * (old + slope))
        slope = np.where(first, 0.0, slope_gain * (new - old) + (1 - slope_gain) * slope)
        scalars[:, place], scalars[:, place + 1] = new, slope
        parts += [2 * slope / unit, (x - new) / unit]
        columns += [new, slope]
    for season, lag, profile in zip(spec.seasons, lags, profiles, strict=True):
        parts.append(np.nan_to_num((x - lag) / (2 * unit)))
        if season < 60:
            ahead = past[rows, (t + 1 - season) % length]
            parts.append(np.nan_to_num((ahead - mean) / (2 * unit)))
        usual = profile[rows, t % season]
        weight = np.maximum(PROFILE_GAIN, 1 / (t // season + 1))
        profile[rows, t % season] = np.where(
            np.isnan(usual), x - mean, usual + weight * (x - mean - usual)
        )
        columns.append(profile[rows, t % season])
    features = [np.arcsinh(part) for part in parts]
    scale, fast = (np.maximum(scalars[:, place], 0.01 * unit) for place in (SCALE, FAST))
    features += [np.log(scale / unit), np.log(fast / scale), np.log1p(t) - 3, observed - 1.0]
    place = TREND + 2 * len(TRENDS)
    if spec.num_covariates:
        known = scalars[:, place:]
        known += np.maximum(COVARIATE_GAIN, 1 / (t + 1))[:, None] * (covariates - known)
        features += [*(covariates - known).T, *covariates.T]
    return (
        np.stack(features, axis=1).astype(np.float32),
        np.stack(columns, axis=1).astype(np.float32),
    )


def to_model_space(
    spec: FilterSpec, y: Float[np.ndarray, " n"], scalars: Float[np.ndarray, "n scalar"]
) -> Float[np.ndarray, " n"]:
    """
    `log(max(y, floor))` for positive data, `y` otherwise.

    The floor is 1 % of the series' first positive value, kept in its state, so that a zero has a
    logarithm and no other series has a say in it.
    """
    if not spec.log:
        return y
    floor = scalars[:, FLOOR]
    scalars[:, FLOOR] = np.where((floor == 0) & (y > 0), 0.01 * y, floor)
    least = np.where(scalars[:, FLOOR] > 0, scalars[:, FLOOR], 1.0)
    logs: np.ndarray = np.log(np.maximum(y, least))
    return logs


def _profiles(
    spec: FilterSpec, rings: Float[np.ndarray, "n ring"]
) -> list[Float[np.ndarray, "n season"]]:
    """The part of the rings that holds each season's profile, as views."""
    ends = spec.ring_length + np.cumsum(spec.seasons, dtype=np.int64)
    return [rings[:, end - season : end] for end, season in zip(ends, spec.seasons, strict=True)]


def covariate_means(spec: FilterSpec, state: FilterState) -> Float[np.ndarray, "series known"]:
    """The running mean of each known-future covariate."""
    place = TREND + 2 * len(TRENDS)
    return state.scalars[:, place : place + spec.num_known]


def latest_columns(spec: FilterSpec, state: FilterState) -> Float[np.ndarray, "series column"]:
    """The columns of each series' last step, read back from its state."""
    s = state.scalars
    unit = (
        np.full(len(s), LOG_UNIT)
        if spec.log
        else np.maximum(s[:, SCALE], 1e-6 * np.abs(s[:, LEVEL]) + 1e-12)
    )
    rows = np.arange(len(s))
    return np.column_stack(
        [
            s[:, LAST], s[:, LEVEL], unit, s[:, SMOOTH], s[:, TREND : TREND + 2 * len(TRENDS)],
            *(profile[rows, (state.count - 1) % season]
              for season, profile in zip(spec.seasons, _profiles(spec, state.rings), strict=True)),
        ]
    ).astype(np.float32)  # fmt: skip


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
    rows, origin = np.arange(len(state.count))[:, None], state.count[:, None] - 1
    for i, (season, profile) in enumerate(
        zip(spec.seasons, _profiles(spec, state.rings), strict=True)
    ):
        at = origin + season_offsets(season, horizon)
        out[:, i, 0] = state.rings[rows, at % spec.ring_length]
        out[:, i, 1] = profile[rows, at % season]
    return out

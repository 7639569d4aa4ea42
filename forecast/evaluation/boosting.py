"""
A baseline of gradient-boosted trees on lags: one model of all series and all steps ahead.

Each row is an origin and a step ahead, and the step is a feature (a direct, global model). Values
enter as their distance from the running level of the series, so that a split means the same for
large and small series. The features are the usual ones of retail competitions: last values, the
same phase of the last two seasons, running means, calendar, known-future covariates.

References:
    Makridakis, Spiliotis & Assimakopoulos, M5 accuracy competition, IJF 38(4), 2022 (global
    boosted models of lags and running means hold the first places).
    Montero-Manso & Hyndman, Principles and algorithms for forecasting groups of time series:
    locality and globality, IJF 37(4), 2021.
    Ke et al., LightGBM, NeurIPS 2017, whose algorithm scikit-learn's histogram trees follow.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

if TYPE_CHECKING:
    from sklearn.ensemble import HistGradientBoostingRegressor


MAX_ROWS = 60_000
"""Most training rows (origin, step ahead), drawn evenly; more are slower and no better."""
MAX_HELD_OUT = 30_000
"""Most rows whose errors set the width of the intervals."""
HELD_OUT = 0.2
"""Share of each series, at its end, whose errors set the width of the intervals."""
LAGS = 6
"""Number of last values among the features, beside those of past seasons."""
FEW_ZEROS = 0.05
"""Largest share of zeros with which data without negative values are learned on the log scale."""
_MIN_ERRORS = 30
"""Fewest errors of one step ahead for intervals of its own; below, all steps share theirs."""
_SETTINGS = {
    "learning_rate": 0.08,
    "max_iter": 120,
    "max_leaf_nodes": 31,
    "max_features": 0.5,
    "l2_regularization": 1.0,
    "early_stopping": False,
    "random_state": 0,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """Histories laid end to end, with what is known of each step in advance."""

    y: Float[np.ndarray, " time"]
    """Values, without NaN."""
    indptr: Int[np.ndarray, " boundary"]
    """First step of each series, then the number of all steps."""
    known: Float[np.ndarray, "time covariate"]
    """Covariates and calendar features of each step, NaN where missing."""
    ahead: Float[np.ndarray, "series horizon covariate"]
    """Covariates and calendar features of the steps to forecast."""

    @property
    def lengths(self) -> Int[np.ndarray, " series"]:
        """Number of steps of each series."""
        return np.diff(self.indptr)


def forecast_boosted(
    steps: Steps, *, season_length: int, levels: Sequence[float | int] = ()
) -> Float[np.ndarray, "series horizon output"] | None:
    """
    Learn from all histories and forecast the steps after each.

    Positive data are learned on the log scale, others in units of the series. Up to 5 % of zeros
    are allowed on the log scale and count as half the smallest positive value of their series. The
    point forecast is the median (absolute error); for data without negative values but with more
    zeros it is the mean (squared error), as their median would mostly be 0.

    Intervals are quantiles of held-out errors, by step ahead and in units of the mean absolute
    change of the series. The errors are those of a second model that has not seen the last fifth
    of each series. Quantile losses would take a model for each end, and would judge the width on
    the data that the trees were fitted to.

    Args:
        steps: Histories and covariates.
        season_length: Steps in a season, 1 for none.
        levels: Central intervals in percent.

    Returns:
        The point forecast, then `lo` and `hi` of each level, in the unit of `y`; None if no series
        has two steps.

    >>> y = np.tile([10.0, 20.0, 30.0, 40.0], 25)
    >>> known, ahead = np.empty((100, 0)), np.empty((1, 4, 0))
    >>> steps = Steps(y=y, indptr=np.array([0, 100]), known=known, ahead=ahead)
    >>> outputs = forecast_boosted(steps, season_length=4, levels=[80])
    >>> outputs.shape, outputs[0, :, 0].round().tolist()
    ((1, 4, 3), [10.0, 20.0, 30.0, 40.0])
    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    horizon = steps.ahead.shape[1]
    history = _History.scale(steps, season_length)
    begins = steps.indptr[:-1]
    rows = _draw_rows(steps.lengths, begins, horizon, MAX_ROWS)
    if not len(rows[0]):
        return None
    with threadpool_limits(1):
        last = np.repeat(steps.indptr[1:] - 1, horizon)
        h = np.tile(np.arange(1, horizon + 1), len(begins))
        ahead = steps.ahead.reshape(len(h), steps.ahead.shape[2])
        relative = _fit(history, steps.known, rows).predict(history.features(last, h, ahead))
        outputs = [relative]
        if levels:
            errors = _held_out_errors(history, steps, horizon)
            spread = history.spread[last]
            for lo, hi in _interval_offsets(errors, horizon, levels):
                outputs += [relative + spread * lo[h - 1], relative + spread * hi[h - 1]]
    y = history.to_y(np.stack(outputs, axis=1), last)
    return y.reshape(len(begins), horizon, -1)


def _draw_rows(
    lengths: Int[np.ndarray, " series"], begins: Int[np.ndarray, " series"], horizon: int, most: int
) -> tuple[Int[np.ndarray, " row"], Int[np.ndarray, " row"]]:
    """
    Draw at most `most` rows evenly: origins, as positions in `y`, and steps ahead.

    Targets lie within the first `lengths` steps from `begins` of each series.
    """
    steps_after = np.concatenate([np.arange(n - 1, -1, -1) for n in lengths])
    origin = np.concatenate(
        [np.arange(begin, begin + n) for begin, n in zip(begins, lengths, strict=True)]
    )
    targets = np.minimum(steps_after, horizon)
    ends = np.cumsum(targets)
    total = int(ends[-1]) if len(ends) else 0
    rows = np.arange(total)
    if total > most:
        rows = np.unique(np.random.default_rng(0).integers(0, total, most))
    i = np.searchsorted(ends, rows, side="right")
    return origin[i], rows - (ends[i] - targets[i]) + 1


@dataclass(frozen=True, slots=True)
class _History:
    """The series on the scale that is learned, with running statistics of each step."""

    z: Float[np.ndarray, " time"]
    """Values, or their logarithms."""
    begin: Int[np.ndarray, " time"]
    """First step of the series that each step belongs to."""
    level: Float[np.ndarray, " time"]
    """Running mean of a season."""
    unit: Float[np.ndarray, " time"]
    """Length that distances from the level are measured in; 1 on the log scale."""
    spread: Float[np.ndarray, " time"]
    """Mean absolute change of one step, in units."""
    means: Float[np.ndarray, "time window"]
    """Running means over windows of several lengths."""
    season_length: int
    log: bool
    """True if `z` holds logarithms."""
    signed: bool
    """True if some value is negative."""

    @classmethod
    def scale(cls, steps: Steps, season_length: int) -> "_History":
        """
        Choose the scale and compute the statistics of all series at once.

        Running statistics look back only. The value of a zero on the log scale, the lower bounds
        of the spread and the unit of counts are constants of whole series.
        """
        y, lengths = steps.y, steps.lengths
        begin = np.repeat(steps.indptr[:-1], lengths)
        signed = bool((y < 0).any())
        log = not signed and bool((y == 0).mean() <= FEW_ZEROS) and bool((y > 0).any())
        z = y
        if log:
            series = np.repeat(np.arange(len(lengths)), lengths)
            smallest = np.full(len(lengths), np.inf)
            np.minimum.at(smallest, series, np.where(y > 0, y, np.inf))
            floor = np.where(np.isfinite(smallest), smallest, y[y > 0].min())[series]
            z = np.log(np.maximum(y, floor / 2))
        span = max(season_length, 4)
        change = np.abs(np.diff(z, prepend=z[:1]))
        change[steps.indptr[:-1][lengths > 0]] = 0.0
        level = _running_mean(z, begin, span)
        mean_change = _running_mean(change, begin, 4 * span)
        mean_change = np.maximum(mean_change, 0.2 * _series_mean(change, lengths))
        size = _series_mean(np.abs(z), lengths)
        size[size == 0] = 1.0
        if log:
            unit = np.ones_like(z)
        elif signed:
            unit = np.maximum(mean_change, 0.01 * size)
        else:
            unit = size
        spread = mean_change / unit
        spread = np.maximum(spread, max(0.1 * float(spread.mean()), 1e-3))
        windows = sorted({3, 7, span, 4 * span})
        means = np.stack([_running_mean(z, begin, window) for window in windows], axis=1)
        return cls(z, begin, level, unit, spread, means, season_length, log, signed)

    def features(
        self,
        origin: Int[np.ndarray, " row"],
        h: Int[np.ndarray, " row"],
        known: Float[np.ndarray, "row covariate"],
    ) -> Float[np.ndarray, "row feature"]:
        """Return the features of each row: NaN, which the trees accept, before the first value."""
        m, level, unit = self.season_length, self.level[origin], self.unit[origin]

        def value(step: Int[np.ndarray, " row"]) -> Float[np.ndarray, " row"]:
            exists = step >= self.begin[origin]
            return np.where(exists, (self.z[np.maximum(step, 0)] - level) / unit, np.nan)

        columns = [h, self.spread[origin]]
        columns += [value(origin - lag) for lag in range(LAGS)]
        if m > 1:
            same_phase = origin + h - m * -(-h // m)
            columns += [value(same_phase), value(same_phase - m), value(same_phase - 2 * m)]
            columns.append(value(same_phase - 1))
            columns.append(value(origin - m))
        columns += list(((self.means[origin] - level[:, None]) / unit[:, None]).T)
        return np.column_stack([*columns, known]).astype(np.float32)

    def targets(
        self, origin: Int[np.ndarray, " row"], h: Int[np.ndarray, " row"]
    ) -> Float[np.ndarray, " row"]:
        """Return the distance of each target from the level at its origin, in units."""
        return np.asarray((self.z[origin + h] - self.level[origin]) / self.unit[origin])

    def to_y(
        self, relative: Float[np.ndarray, "row output"], origin: Int[np.ndarray, " row"]
    ) -> Float[np.ndarray, "row output"]:
        """
        Return outputs in the unit of `y`; never below 0 if no value is negative.

        On the log scale no output exceeds ten times the highest value of its series, where the
        exponential of a wide interval would be absurd.
        """
        z = self.level[origin, None] + self.unit[origin, None] * relative
        if not self.log:
            return np.asarray(z if self.signed else np.maximum(z, 0.0))
        begins, series = np.unique(self.begin, return_inverse=True)
        highest = np.maximum.reduceat(self.z, begins)[series[origin]] + np.log(10)
        return np.asarray(np.exp(np.minimum(z, highest[:, None])))


def _running_mean(
    values: Float[np.ndarray, " time"], begin: Int[np.ndarray, " time"], window: int
) -> Float[np.ndarray, " time"]:
    """Return the mean of the last `window` values of a series, or of all if it has fewer."""
    total = np.r_[0.0, np.cumsum(values)]
    end = np.arange(len(values)) + 1
    first = np.maximum(begin, end - window)
    return np.asarray((total[end] - total[first]) / (end - first))


def _series_mean(
    values: Float[np.ndarray, " time"], lengths: Int[np.ndarray, " series"]
) -> Float[np.ndarray, " time"]:
    """Return the mean of the whole series at each of its steps."""
    series = np.repeat(np.arange(len(lengths)), lengths)
    means = np.bincount(series, values, len(lengths)) / np.maximum(lengths, 1)
    return np.asarray(means[series])


def _fit(
    history: _History,
    known: Float[np.ndarray, "time covariate"],
    rows: tuple[Int[np.ndarray, " row"], Int[np.ndarray, " row"]],
) -> "HistGradientBoostingRegressor":
    from sklearn.ensemble import HistGradientBoostingRegressor

    origin, h = rows
    model = HistGradientBoostingRegressor(
        loss="absolute_error" if history.log or history.signed else "squared_error",
        min_samples_leaf=int(np.clip(len(origin) // 500, 5, 100)),
        **_SETTINGS,
    )
    features = history.features(origin, h, known[origin + h])
    features[:, np.isnan(features).all(axis=0)] = 0.0  # a lag longer than every series
    return model.fit(features, history.targets(origin, h))


def _held_out_errors(
    history: _History, steps: Steps, horizon: int
) -> tuple[Int[np.ndarray, " row"], Float[np.ndarray, " row"]]:
    """
    Fit a model without the last fifth of each series and measure it there.

    Returns:
        Steps ahead and errors, in spreads; both empty if there is too little to fit or to measure.
    """
    begins, lengths = steps.indptr[:-1], steps.lengths
    seen = lengths - np.ceil(HELD_OUT * lengths).astype(np.int64)
    rows = _draw_rows(seen, begins, horizon, MAX_ROWS)
    last_seen = np.maximum(seen - 1, 0)
    origin, h = _draw_rows(lengths - last_seen, begins + last_seen, horizon, MAX_HELD_OUT)
    if not len(rows[0]) or not len(origin):
        return np.empty(0, np.int64), np.empty(0)
    relative = _fit(history, steps.known, rows).predict(
        history.features(origin, h, steps.known[origin + h])
    )
    return h, (history.targets(origin, h) - relative) / history.spread[origin]


def _interval_offsets(
    errors: tuple[Int[np.ndarray, " row"], Float[np.ndarray, " row"]],
    horizon: int,
    levels: Sequence[float | int],
) -> list[tuple[Float[np.ndarray, " horizon"], Float[np.ndarray, " horizon"]]]:
    """Return the lower offset (at most 0) and the upper one (at least 0) of each level and step."""
    h, values = errors
    if not len(values):
        return [(np.zeros(horizon), np.zeros(horizon)) for _ in levels]
    pairs = []
    for level in levels:
        tails = [50 - level / 2, 50 + level / 2]
        offsets = np.empty((horizon, 2))
        for step in range(1, horizon + 1):
            own = values[h == step]
            offsets[step - 1] = np.percentile(own if len(own) >= _MIN_ERRORS else values, tails)
        pairs.append((np.minimum(offsets[:, 0], 0.0), np.maximum(offsets[:, 1], 0.0)))
    return pairs

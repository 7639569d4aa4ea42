"""
Gradient-boosted trees on lags: one model of all series and all steps ahead, to beat.

Each row is an origin and a step ahead; the step is a feature ("direct, global"). Values enter as
their distance from the running level of the series, so that a tree may split a large and a small
series alike. The features are the usual ones of retail competitions: last
values, the same phase of the last two seasons, running means, calendar, known-future covariates.

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
"""Most rows (origin, step ahead) to learn from, drawn evenly; more were no better, and slower."""
MAX_HELD_OUT = 30_000
"""Most rows whose errors give the intervals."""
HELD_OUT = 0.2
"""Share of each series, at its end, that the intervals are measured on."""
LAGS = 6
"""Last values that are features, beside those of the seasons."""
FEW_ZEROS = 0.05
"""Share of zeros up to which data without negative values are learned on the log scale."""
_MIN_ERRORS = 30
"""Fewest errors of one step ahead that give it intervals of its own; below, all steps share."""
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
    """Histories laid end to end, and what is known of each step beforehand."""

    y: Float[np.ndarray, " time"]
    """No NaN."""
    indptr: Int[np.ndarray, " boundary"]
    """Where each series begins; one more than there are series."""
    known: Float[np.ndarray, "time covariate"]
    """Covariates of each step, NaN where missing; absolute and calendar alike."""
    ahead: Float[np.ndarray, "series horizon covariate"]
    """The same of the steps to forecast."""

    @property
    def lengths(self) -> Int[np.ndarray, " series"]:
        """Steps of each series."""
        return np.diff(self.indptr)


def forecast_boosted(
    steps: Steps, *, season_length: int, levels: Sequence[float | int] = ()
) -> Float[np.ndarray, "series horizon output"] | None:
    """
    Learn from all histories and forecast the steps after each.

    Positive data are learned on the log scale (zeros up to 5 % count as half the smallest value
    of their series), others in units of the series. The point is the median (absolute error),
    but with more zeros than that the mean (squared error): the median would mostly be 0.

    Intervals are quantiles of held-out errors, by step ahead and in units of the mean absolute
    change of the series: a second model that has not seen the last fifth of each series makes
    those errors. Quantile losses would cost a model for each end, and leave trees that fit their
    own training data to judge how wide they should be.

    Args:
        steps: Histories and covariates.
        season_length: Steps in a season, 1 for none.
        levels: Central intervals in percent.

    Returns:
        Point, then `lo` and `hi` of each level, in the unit of `y`; None when no series has two
        steps to learn from.

    >>> y = np.tile([10.0, 20.0, 30.0, 40.0], 25)
    >>> none = np.empty((100, 0)), np.empty((1, 4, 0))
    >>> steps = Steps(y=y, indptr=np.array([0, 100]), known=none[0], ahead=none[1])
    >>> made = forecast_boosted(steps, season_length=4, levels=[80])
    >>> made.shape, made[0, :, 0].round().tolist()
    ((1, 4, 3), [10.0, 20.0, 30.0, 40.0])
    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    horizon = steps.ahead.shape[1]
    history = _History.of(steps, season_length)
    begins = steps.indptr[:-1]
    rows = _draw(steps.lengths, begins, horizon, MAX_ROWS)
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
            for lo, hi in _ends(errors, horizon, levels):
                outputs += [relative + spread * lo[h - 1], relative + spread * hi[h - 1]]
    y = history.to_y(np.stack(outputs, axis=1), last)
    return y.reshape(len(begins), horizon, -1)


def _draw(
    lengths: Int[np.ndarray, " series"], begins: Int[np.ndarray, " series"], horizon: int, most: int
) -> tuple[Int[np.ndarray, " row"], Int[np.ndarray, " row"]]:
    """Origins (flat) and steps ahead whose targets lie inside the first `lengths` of a series."""
    left = np.concatenate([np.arange(n - 1, -1, -1) for n in lengths])
    origin = np.concatenate(
        [np.arange(begin, begin + n) for begin, n in zip(begins, lengths, strict=True)]
    )
    ends = np.cumsum(np.minimum(left, horizon))
    total = int(ends[-1]) if len(ends) else 0
    pick = np.arange(total)
    if total > most:
        pick = np.unique(np.random.default_rng(0).integers(0, total, most))
    at = np.searchsorted(ends, pick, side="right")
    return origin[at], pick - (ends[at] - np.minimum(left[at], horizon)) + 1


@dataclass(frozen=True, slots=True)
class _History:
    """The series on the scale that is learned, with what runs along: level, unit, spread."""

    z: Float[np.ndarray, " time"]
    begin: Int[np.ndarray, " time"]
    """First step of the series that each step belongs to."""
    level: Float[np.ndarray, " time"]
    unit: Float[np.ndarray, " time"]
    """What a distance of 1 is: 1 on the log scale."""
    spread: Float[np.ndarray, " time"]
    """Mean absolute change of one step, in units."""
    means: Float[np.ndarray, "time window"]
    season_length: int
    log: bool
    signed: bool

    @classmethod
    def of(cls, steps: Steps, season_length: int) -> "_History":
        """Run along all series at once; nothing looks ahead but the floor of zeros."""
        y, lengths = steps.y, steps.lengths
        begin = np.repeat(steps.indptr[:-1], lengths)
        signed = bool((y < 0).any())
        log = not signed and bool((y == 0).mean() <= FEW_ZEROS) and bool((y > 0).any())
        z = y
        if log:
            series = np.repeat(np.arange(len(lengths)), lengths)
            least = np.full(len(lengths), np.inf)
            np.minimum.at(least, series, np.where(y > 0, y, np.inf))
            floor = np.where(np.isfinite(least), least, y[y > 0].min())[series]
            z = np.log(np.maximum(y, floor / 2))
        span = max(season_length, 4)
        change = np.abs(np.diff(z, prepend=z[:1]))
        change[steps.indptr[:-1][lengths > 0]] = 0.0
        level, moves = (_running_mean(v, begin, n) for v, n in ((z, span), (change, 4 * span)))
        moves = np.maximum(moves, 0.2 * _series_mean(change, lengths))
        size = _series_mean(np.abs(z), lengths)
        size[size == 0] = 1.0
        unit = np.ones_like(z) if log else np.maximum(moves, 0.01 * size) if signed else size
        spread = moves / unit
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
        """What the trees see; a value before the series' first is NaN, which they take as is."""
        m, level, unit = self.season_length, self.level[origin], self.unit[origin]

        def value(at: Int[np.ndarray, " row"]) -> Float[np.ndarray, " row"]:
            there = at >= self.begin[origin]
            return np.where(there, (self.z[np.maximum(at, 0)] - level) / unit, np.nan)

        columns = [h, self.spread[origin]]
        columns += [value(origin - lag) for lag in range(LAGS)]
        if m > 1:
            phase = origin + h - m * -(-h // m)
            columns += [value(phase), value(phase - m), value(phase - 2 * m), value(phase - 1)]
            columns.append(value(origin - m))
        columns += list(((self.means[origin] - level[:, None]) / unit[:, None]).T)
        return np.column_stack([*columns, known]).astype(np.float32)

    def targets(
        self, origin: Int[np.ndarray, " row"], h: Int[np.ndarray, " row"]
    ) -> Float[np.ndarray, " row"]:
        """The distance of each target from the level at its origin."""
        return np.asarray((self.z[origin + h] - self.level[origin]) / self.unit[origin])

    def to_y(
        self, relative: Float[np.ndarray, "row output"], origin: Int[np.ndarray, " row"]
    ) -> Float[np.ndarray, "row output"]:
        """
        Back to the unit of `y`: never negative where no value was.

        On the log scale nothing exceeds ten times the highest value of its series: a spread that
        is plausible around a small value would be absurd.
        """
        z = self.level[origin, None] + self.unit[origin, None] * relative
        if not self.log:
            return np.asarray(z if self.signed else np.maximum(z, 0.0))
        begins, series = np.unique(self.begin, return_inverse=True)
        most = np.maximum.reduceat(self.z, begins)[series[origin]] + np.log(10)
        return np.asarray(np.exp(np.minimum(z, most[:, None])))


def _running_mean(
    values: Float[np.ndarray, " time"], begin: Int[np.ndarray, " time"], window: int
) -> Float[np.ndarray, " time"]:
    """Mean of the last `window` values of the same series, fewer where it is young."""
    total = np.r_[0.0, np.cumsum(values)]
    at = np.arange(len(values))
    first = np.maximum(begin, at + 1 - window)
    return np.asarray((total[at + 1] - total[first]) / (at + 1 - first))


def _series_mean(
    values: Float[np.ndarray, " time"], lengths: Int[np.ndarray, " series"]
) -> Float[np.ndarray, " time"]:
    """Mean of the whole series, at each of its steps."""
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
    features[:, np.isnan(features).all(axis=0)] = 0.0  # a lag that no series is old enough for
    return model.fit(features, history.targets(origin, h))


def _held_out_errors(
    history: _History, steps: Steps, horizon: int
) -> tuple[Int[np.ndarray, " row"], Float[np.ndarray, " row"]]:
    """Steps ahead and errors, in spreads, of a model on the last fifth that it has not seen."""
    begins, lengths = steps.indptr[:-1], steps.lengths
    learned = lengths - np.ceil(HELD_OUT * lengths).astype(np.int64)
    seen = _draw(learned, begins, horizon, MAX_ROWS)
    late = np.maximum(learned - 1, 0)
    origin, h = _draw(lengths - late, begins + late, horizon, MAX_HELD_OUT)
    if not len(seen[0]) or not len(origin):
        return np.empty(0, np.int64), np.empty(0)
    made = _fit(history, steps.known, seen).predict(
        history.features(origin, h, steps.known[origin + h])
    )
    return h, (history.targets(origin, h) - made) / history.spread[origin]


def _ends(
    errors: tuple[Int[np.ndarray, " row"], Float[np.ndarray, " row"]],
    horizon: int,
    levels: Sequence[float | int],
) -> list[tuple[Float[np.ndarray, " horizon"], Float[np.ndarray, " horizon"]]]:
    """Lower and upper offset of each level by step ahead: below and above 0, nested."""
    h, values = errors
    if not len(values):
        return [(np.zeros(horizon), np.zeros(horizon)) for _ in levels]
    found = []
    for level in levels:
        tails = [50 - level / 2, 50 + level / 2]
        offsets = np.empty((horizon, 2))
        for step in range(1, horizon + 1):
            own = values[h == step]
            offsets[step - 1] = np.percentile(own if len(own) >= _MIN_ERRORS else values, tails)
        found.append((np.minimum(offsets[:, 0], 0.0), np.maximum(offsets[:, 1], 0.0)))
    return found

"""The filters of a model: which there are, and the layout of what they store and return."""

from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

from forecast.features import smoothing

Space = Literal["log", "linear", "ratio"]
"""Model space: `log(y)`; `y`; or `y` forecast as a multiple of its running mean, for counts."""
Trend = tuple[float, float, float]
"""Level gain, trend gain, damping. A trend gain of 0 makes it a running mean."""
DAMPED: tuple[Trend, ...] = ((0.8, 0.2, 0.9), (0.5, 0.1, 0.97))
"""A fast and a slow damped trend."""
MEANS: tuple[Trend, ...] = ((0.2, 0.0, 0.0), (0.05, 0.0, 0.0), (0.02, 0.0, 0.0))
"""Running means of counts, over about one, five and fourteen weeks of days."""
HETEROGENEOUS: tuple[Trend, ...] = (
    (0.33, 0.0, 0.0), (0.087, 0.0, 0.0), (0.03, 0.0, 0.0), (0.01, 0.0, 0.0),
)  # fmt: skip
"""Running means over a week, a month, a quarter and a year of trading days."""
SLOW = 1
"""Index of the running mean that is the level of a count."""


class Scalar(IntEnum):
    """
    Fixed columns of `FilterState.scalars`, in their stored order.

    After them follow two for each trend (level and slope), those of the smoothers, and the running
    mean of each covariate; `FilterSpec` has their positions.
    """

    WINDOW_SUM = 0
    """Sum of the last `FilterSpec.window` values."""
    LEVEL = 1
    """Mean of the last `FilterSpec.window` values."""
    LAST = 2
    """Last value."""
    SCALE = 3
    """Slow running mean of absolute changes."""
    FAST_SCALE = 4
    """Fast running mean of absolute changes."""
    SMOOTH = 5
    """Exponentially smoothed value."""
    SIZE = 6
    """Running size of values that are not zero: of counts, or the logarithm of amounts."""
    GAP = 7
    """For counts, steps since the last value above 0; for amounts, steps before the first one."""
    PEAK = 8
    """Largest observed value."""


FIRST_TREND = len(Scalar)
"""First column of the trends in `FilterState.scalars`."""


class Column(IntEnum):
    """
    Fixed columns of `FilterOutput.columns`, from which the skip forecasts are made.

    After them follow two for each trend (level and slope), two for the pooled smoothers if there
    are any, and the profile of each season at the phase of the step.
    """

    VALUE = 0
    """Value in model space."""
    CENTRE = 1
    """Origin of relative values."""
    UNIT = 2
    """Unit of relative values."""
    SMOOTH = 3
    """Exponentially smoothed value."""


FIRST_TREND_COLUMN = len(Column)
"""First column of the trends in `FilterOutput.columns`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterSpec:
    """The filters of a model; fixed when it is trained."""

    space: Space
    seasons: tuple[int, ...]
    """Steps in each season, shortest first."""
    trends: tuple[Trend, ...] = DAMPED
    smoothers: bool = False
    """Whether there are smoothers, on values without the longest season, which must exist."""
    zeros: bool = False
    """Whether values of 0 are possible in the log space."""
    unit: float | None = 0.1
    """Unit in model space; None takes the running size of a step of each series."""
    num_known: int = 0
    """Number of known-future covariates of the user, without calendar features."""
    num_past: int = 0
    """Number of past-only covariates."""
    raw: tuple[int, ...] = ()
    """Covariates that are features by their value; known-future ones count first."""
    amounts: tuple[int, ...] = ()
    """Covariates that are features by the distance from their running mean, such as prices."""

    @property
    def waits(self) -> bool:
        """Whether a series begins with its first value above 0, because a zero has no scale."""
        return self.space == "log" and self.zeros

    @property
    def window(self) -> int:
        """Steps over which the running level is averaged."""
        if not self.seasons:
            return 3
        season = self.seasons[-1]
        if len(self.seasons) > 1:
            return min(season, 672)
        return 2 * season if 5 <= season <= 7 else season if season <= 24 else season // 4

    @property
    def ring_length(self) -> int:
        """Number of past values that are stored."""
        return max(self.window, *self.seasons, 1)

    @property
    def num_covariates(self) -> int:
        """Number of known-future and past-only covariates."""
        return self.num_known + self.num_past

    @property
    def num_scalars(self) -> int:
        """Width of `FilterState.scalars`."""
        return self.first_covariate + self.num_covariates

    @property
    def first_smoother(self) -> int:
        """First column of the smoothers in `FilterState.scalars`."""
        return FIRST_TREND + 2 * len(self.trends)

    @property
    def first_covariate(self) -> int:
        """First column of the running means of covariates in `FilterState.scalars`."""
        return self.first_smoother + smoothing.WIDTH * self.smoothers

    @property
    def num_rings(self) -> int:
        """Width of `FilterState.rings`: past values, then a profile for each season."""
        return self.ring_length + sum(self.seasons)

    @property
    def num_columns(self) -> int:
        """Width of `FilterOutput.columns`."""
        return FIRST_TREND_COLUMN + 2 * (len(self.trends) + self.smoothers) + len(self.seasons)

    @property
    def num_skips(self) -> int:
        """Number of skip forecasts: naive, smoothed, trends, smoothers, two for each season."""
        return self.first_seasonal + 2 * len(self.seasons)

    @property
    def first_seasonal(self) -> int:
        """Index of the first seasonal skip forecast."""
        return 2 + len(self.trends) + self.smoothers

    @property
    def num_features(self) -> int:
        """Width of the features of a step, before calendar and static features."""
        short = sum(season < 60 for season in self.seasons)
        damped = sum(slope > 0 for _, slope, _ in self.trends)
        width = 7 + len(self.trends) + damped + len(self.seasons) + short
        if self.space == "ratio":
            width += 4 + len(self.seasons)
        return width + len(self.raw) + len(self.amounts)

    @property
    def known_amounts(self) -> tuple[int, ...]:
        """Indices of the amounts that are known-future covariates."""
        return tuple(i for i in self.amounts if i < self.num_known)

"""What the filters of a model keep, and where."""

from dataclasses import dataclass
from typing import Literal

from forecast.features import smoothing

Space = Literal["log", "linear", "ratio"]
"""Model space: `log(y)`; `y`; or `y` forecast as a multiple of its running mean, for counts."""
Trend = tuple[float, float, float]
"""Level gain, trend gain, damping; a trend gain of 0 makes it a running mean."""
DAMPED: tuple[Trend, ...] = ((0.8, 0.2, 0.9), (0.5, 0.1, 0.97))
"""A quick damped trend and a slow one."""
MEANS: tuple[Trend, ...] = ((0.2, 0.0, 0.0), (0.05, 0.0, 0.0), (0.02, 0.0, 0.0))
"""Running means of counts: of about one, five and fourteen weeks of days."""
HETEROGENEOUS: tuple[Trend, ...] = (
    (0.33, 0.0, 0.0), (0.087, 0.0, 0.0), (0.03, 0.0, 0.0), (0.01, 0.0, 0.0),
)  # fmt: skip
"""Running means as long as a week, a month, a quarter and a year of trading days."""
SLOW = 1
"""Which of the running means is the level of a count."""
SUM, LEVEL, LAST, SCALE, FAST, SMOOTH, SIZE, GAP, PEAK, TREND = range(10)
"""
Places in `FilterState.scalars`; trends take two each, then smoothers and covariates follow. Size
and gap are of counts; for amounts the running size of what is not zero, and the steps before it.
"""
VALUE, CENTRE, UNIT, FIRST_TREND = 0, 1, 2, 4
"""Places in the columns: value, centre, unit, smooth, two a trend, smoothers, one a season."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterSpec:
    """What the filters of a model remember; fixed when it is trained."""

    space: Space
    seasons: tuple[int, ...]
    """Steps in each season, shortest first."""
    trends: tuple[Trend, ...] = DAMPED
    smoothers: bool = False
    """Whether those of `smoothers` run, on what the longest season leaves: there has to be one."""
    zeros: bool = False
    """Whether the log space has to make room for values of 0."""
    unit: float | None = 0.1
    """Unit in model space; None takes the running size of a step of each series."""
    num_known: int = 0
    """Known-future covariates given by the user, without calendar features."""
    num_past: int = 0
    raw: tuple[int, ...] = ()
    """Covariates whose values the network reads step by step; known-future ones count first."""
    amounts: tuple[int, ...] = ()
    """Covariates of which it reads the distance from their running mean: prices, past-only ones."""

    @property
    def waits(self) -> bool:
        """Whether a series begins with its first value above 0: a zero alone has no scale."""
        return self.space == "log" and self.zeros

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
        return self.first_covariate + self.num_covariates

    @property
    def first_smoother(self) -> int:
        """Their place in `FilterState.scalars`."""
        return TREND + 2 * len(self.trends)

    @property
    def first_covariate(self) -> int:
        """The place of the running means of covariates."""
        return self.first_smoother + smoothing.WIDTH * self.smoothers

    @property
    def num_rings(self) -> int:
        """Width of `FilterState.rings`: past values, then one profile a season."""
        return self.ring_length + sum(self.seasons)

    @property
    def num_columns(self) -> int:
        """Width of the columns that the skip forecasts are made from."""
        return FIRST_TREND + 2 * (len(self.trends) + self.smoothers) + len(self.seasons)

    @property
    def num_skips(self) -> int:
        """How many simple forecasts there are: naive, smoothed, trends, smoothers, two a season."""
        return self.first_seasonal + 2 * len(self.seasons)

    @property
    def first_seasonal(self) -> int:
        """The place of the seasonal ones among them."""
        return 2 + len(self.trends) + self.smoothers

    @property
    def num_features(self) -> int:
        """Width of what the network reads at each step, before calendar and static features."""
        short = sum(season < 60 for season in self.seasons)
        damped = sum(slope > 0 for _, slope, _ in self.trends)
        width = 7 + len(self.trends) + damped + len(self.seasons) + short
        if self.space == "ratio":
            width += 4 + len(self.seasons)
        return width + len(self.raw) + len(self.amounts)

    @property
    def known_amounts(self) -> tuple[int, ...]:
        """Those of the amounts that are known beforehand."""
        return tuple(i for i in self.amounts if i < self.num_known)

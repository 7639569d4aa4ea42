"""The state of the filters as a value, and named views into its arrays."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from forecast.features.filter_spec import FIRST_TREND, SLOW, FilterSpec, Scalar


@dataclass(frozen=True, slots=True)
class FilterState:
    """Memory of the filters for each series. It is a value: `advance` returns a new one."""

    count: Int[np.ndarray, " series"]
    """Steps seen."""
    scalars: Float[np.ndarray, "series scalar"]
    """Columns as `Scalar` names them, then trends, smoothers and covariates."""
    rings: Float[np.ndarray, "series ring"]
    """Last values and seasonal profiles, each stored at its step modulo the length of its ring."""

    @classmethod
    def initial(cls, spec: FilterSpec, num_series: int) -> "FilterState":
        """Return the state of series that have seen nothing."""
        return cls(
            np.zeros(num_series, np.int64),
            np.zeros((num_series, spec.num_scalars)),
            np.full((num_series, spec.num_rings), np.nan, np.float32),
        )

    def take(self, rows: Int[np.ndarray, " row"]) -> "FilterState":
        """Return a copy of the states of some series."""
        return type(self)(self.count[rows], self.scalars[rows], self.rings[rows])


class ScalarViews(NamedTuple):
    """Views of the columns of `FilterState.scalars`, by name; writing to one changes the state."""

    window_sum: Float[np.ndarray, " n"]
    level: Float[np.ndarray, " n"]
    last: Float[np.ndarray, " n"]
    scale: Float[np.ndarray, " n"]
    fast_scale: Float[np.ndarray, " n"]
    smooth: Float[np.ndarray, " n"]
    size: Float[np.ndarray, " n"]
    gap: Float[np.ndarray, " n"]
    peak: Float[np.ndarray, " n"]
    trends: Float[np.ndarray, "n two_per_trend"]
    """Level and slope of each trend, side by side."""
    smoothers: Float[np.ndarray, "n smoother"]
    covariates: Float[np.ndarray, "n covariate"]
    """Running means."""

    @classmethod
    def of(cls, spec: FilterSpec, scalars: Float[np.ndarray, "n scalar"]) -> "ScalarViews":
        """Return the views into an array with the layout of `Scalar` and `FilterSpec`."""
        first_smoother, first_covariate = spec.first_smoother, spec.first_covariate
        return cls(
            scalars[:, Scalar.WINDOW_SUM],
            scalars[:, Scalar.LEVEL],
            scalars[:, Scalar.LAST],
            scalars[:, Scalar.SCALE],
            scalars[:, Scalar.FAST_SCALE],
            scalars[:, Scalar.SMOOTH],
            scalars[:, Scalar.SIZE],
            scalars[:, Scalar.GAP],
            scalars[:, Scalar.PEAK],
            scalars[:, FIRST_TREND:first_smoother],
            scalars[:, first_smoother:first_covariate],
            scalars[:, first_covariate:],
        )

    def count_level(self) -> Float[np.ndarray, " n"]:
        """Return the running mean that is the level of counts."""
        return self.trends[:, 2 * SLOW]


def past_values(
    spec: FilterSpec, rings: Float[np.ndarray, "n ring"]
) -> Float[np.ndarray, "n past"]:
    """Return a view of the last values, each at its step modulo `spec.ring_length`."""
    return rings[:, : spec.ring_length]


def profiles_of(
    spec: FilterSpec, rings: Float[np.ndarray, "n ring"]
) -> Iterator[Float[np.ndarray, "n season"]]:
    """Yield a view of each season's profile, indexed by step modulo the season."""
    end = spec.ring_length
    for season in spec.seasons:
        end += season
        yield rings[:, end - season : end]


def steps_since_begin(
    spec: FilterSpec, count: Int[np.ndarray, " n"], gap: Float[np.ndarray, " n"]
) -> Int[np.ndarray, " n"]:
    """Return the steps since a series began; see `FilterSpec.waits`."""
    return count - gap.astype(np.int64) if spec.waits else count


def centre_and_unit(
    spec: FilterSpec, scalars: ScalarViews
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Return the origin and the unit of relative values, in model space."""
    level = scalars.level
    if spec.space == "ratio":
        size = np.where(scalars.size > 0, scalars.size, 1.0)
        return np.zeros_like(level), scalars.count_level() + 0.05 * size
    if spec.unit is not None:
        return level, np.full_like(level, spec.unit)
    tiny = 1e-4 if spec.space == "log" else 1e-6 * np.abs(level) + 1e-12
    return level, np.maximum(scalars.scale, tiny)


def covariate_means(spec: FilterSpec, state: FilterState) -> Float[np.ndarray, "series covariate"]:
    """Return the running mean of each covariate."""
    return state.scalars[:, spec.first_covariate :]

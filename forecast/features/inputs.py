"""The inputs of the network: filters, covariates, calendar and static columns, in one place."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int

from forecast.calendars.calendar import Calendar
from forecast.data.panel import Panel
from forecast.features import filters
from forecast.features.calendar import CHANGE, features
from forecast.features.filter_spec import DAMPED, HETEROGENEOUS, MEANS, FilterSpec, Space
from forecast.features.filter_state import FilterState, covariate_means
from forecast.features.filters import FilterOutput
from forecast.features.static import StaticSpec
from forecast.resolved_config import ResolvedConfig

MANY_SERIES = 32
"""Number of series from which a network could memorise the dates of a panel."""


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """Everything that determines the inputs of a network; fixed when it is trained."""

    filters: FilterSpec
    calendar: Calendar
    use_calendar: bool
    annual: bool
    """Whether there are features of the year; with less than two years they reveal the date."""
    holidays: str | None
    static: StaticSpec
    changes: bool = False
    """Whether working days of a target month are compared with those of a year before."""
    floors: tuple[float, ...] = ()
    """
    For each covariate, known-future ones first: 0, or the smallest value of one read as a
    logarithm.
    """

    @cached_property
    def num_features(self) -> int:
        """Width of the features of a step."""
        return self.filters.num_features + int(self._calendar(np.zeros(1, np.int64)).shape[1])

    @cached_property
    def num_dates(self) -> int:
        """Width of what is known of a future step: covariates and calendar."""
        calendar = self._calendar(np.zeros(1, np.int64), ahead=True)
        return self.filters.num_known + int(calendar.shape[1])

    def _calendar(
        self, stamps: Int[np.ndarray, "*stamp"], *, ahead: bool = False
    ) -> Float[np.ndarray, "*stamp calendar"]:
        """Return calendar features of stamps, of targets if `ahead`; width 0 for integer stamps."""
        if not self.use_calendar or self.calendar.is_integer:
            return np.zeros((*stamps.shape, 0), np.float32)
        unique, back = np.unique(stamps, return_inverse=True)
        values, names = features(unique, self.calendar.freq, self.holidays)
        hidden: tuple[str, ...] = () if self.annual else ("month_", "day_")
        hidden += () if self.changes and ahead else (CHANGE,)
        values = values[:, [not name.startswith(hidden) for name in names]]
        return values[back.reshape(stamps.shape)]

    def known(self, values: Float[np.ndarray, "*step known"]) -> Float[np.ndarray, "*step known"]:
        """Return known-future covariates as the network reads them."""
        return _read(values, self.floors[: self.filters.num_known])

    def past(self, values: Float[np.ndarray, "*step past"]) -> Float[np.ndarray, "*step past"]:
        """Return past-only covariates as the network reads them."""
        return _read(values, self.floors[self.filters.num_known :])

    def usual_past(self, state: FilterState) -> Float[np.ndarray, "series past"]:
        """Return the running mean of each past-only covariate, in the unit of the user."""
        means = covariate_means(self.filters, state)[:, self.filters.num_known :]
        logs = np.array(self.floors[self.filters.num_known :], np.float64) > 0
        return np.where(logs, np.exp(np.where(logs, means, 0.0)), means) if len(logs) else means

    def read(self, state: FilterState, panel: Panel) -> tuple[FilterState, FilterOutput]:
        """Advance the filters over the panel and return all features of each step."""
        if any(self.floors):
            panel = replace(
                panel,
                known_future=self.known(panel.known_future),
                past_only=self.past(panel.past_only),
            )
        return filters.advance(self.filters, state, panel, self._calendar(panel.ds))

    def dates(
        self, known: Float[np.ndarray, "*step known"], stamps: Int[np.ndarray, "*step"]
    ) -> Float[np.ndarray, "*step date"]:
        """Return what is known of future steps: covariates as they are read, and calendar."""
        return np.concatenate(
            [self.known(known), self._calendar(stamps, ahead=True)], axis=-1, dtype=np.float32
        )


def shared_covariates(
    values: Float[np.ndarray, "step covariate"], ds: Int[np.ndarray, " step"], num_series: int
) -> tuple[bool, ...]:
    """
    Find the known-future covariates that are the same for all series on each date of a large panel.

    Such covariates belong to the date, and the heads read them there. Read at each step, they would
    let a network identify the dates of the past and memorise what all series did on them.

    >>> both = np.array([[1.0, 1.0], [1.0, 2.0]], np.float32).repeat(20, axis=0)
    >>> shared_covariates(both, np.ones(40, np.int64), num_series=40)
    (True, False)
    """
    if num_series < MANY_SERIES:
        return tuple(False for _ in values.T)
    order = np.argsort(ds, kind="stable")
    begins = np.flatnonzero(np.r_[True, np.diff(ds[order]) > 0])
    most, least = (f.reduceat(values[order], begins) for f in (np.maximum, np.minimum))
    same: tuple[bool, ...] = tuple((most == least).all(axis=0).tolist())
    return same


def log_floors(values: Float[np.ndarray, "step covariate"]) -> tuple[float, ...]:
    """
    Return the smallest value of each covariate that is read as a logarithm; 0 for the others.

    Prices and other positive amounts matter by ratio, flags and indices by difference. A column is
    read as its logarithm if all values are above 0 and there are more than twenty different ones.

    >>> prices = np.linspace(2.0, 4.0, 30, dtype=np.float32)
    >>> log_floors(np.stack([prices, prices > 3], axis=1).astype(np.float32))
    (2.0, 0.0)
    """
    floors = []
    for column in values.T:
        least = float(column.min(initial=np.inf))
        many = 0 < least < np.inf and len(np.unique(column[:100_000])) > 20
        floors.append(least if many else 0.0)
    return tuple(floors)


def _read(
    values: Float[np.ndarray, "*step covariate"], floors: tuple[float, ...]
) -> Float[np.ndarray, "*step covariate"]:
    if not any(floors):
        return values
    out = values.astype(np.float32, copy=True)
    for i, floor in enumerate(floors):
        if floor:
            out[..., i] = np.log(np.maximum(out[..., i], floor))
    return out


def make_spec(
    config: ResolvedConfig,
    calendar: Calendar,
    static: StaticSpec,
    *,
    space: Space,
    annual: bool,
    floors: tuple[float, ...],
    common: tuple[bool, ...],
    smoothers: bool,
    changes: bool,
) -> InputSpec:
    """
    Return the inputs of a model.

    Args:
        config: Resolved configuration.
        calendar: Calendar of the series.
        static: Static columns as learned from the training series.
        space: Model space.
        annual: Whether the training series are long enough for features of the year.
        floors: Result of `log_floors` for all covariates.
        common: Result of `shared_covariates` for the known-future covariates.
        smoothers: Whether there are smoothers; models of earlier releases have none.
        changes: Whether months are compared with those of a year before; models of earlier
            releases do not.
    """
    data = config.data
    trends, unit = {
        "positive": (DAMPED, 0.1),
        "real": (DAMPED, None),
        "count": (MEANS, None),
        "price": ((), None),
        "volatility": (HETEROGENEOUS, 0.5),
    }[data.kind]
    return InputSpec(
        filters=FilterSpec(
            space=space,
            seasons=data.season_lengths,
            trends=trends,
            smoothers=smoothers,
            zeros=data.kind == "positive",
            unit=unit if space == "log" else None,
            num_known=len(data.known_future),
            num_past=len(data.past_only),
            raw=tuple(i for i in range(len(floors)) if i >= len(common) or not common[i]),
            amounts=tuple(i for i, floor in enumerate(floors) if floor or i >= len(common)),
        ),
        calendar=calendar,
        use_calendar=data.calendar,
        annual=annual,
        holidays=data.holidays,
        static=static,
        changes=changes,
        floors=floors,
    )

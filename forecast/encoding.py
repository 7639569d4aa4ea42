"""What the network reads: filters, covariates, calendar and static, put together once."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from forecast import filters
from forecast.calendars import Calendar, features
from forecast.filters import Encoded, FilterSpec, FilterState
from forecast.panel import Panel
from forecast.statics import StaticSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class InputSpec:
    """Everything that fixes the meaning of the network's inputs."""

    filters: FilterSpec
    calendar: Calendar
    use_calendar: bool
    holidays: str | None
    static: StaticSpec

    @property
    def num_calendar(self) -> int:
        """Calendar features of one stamp."""
        return int(self.calendar_features(np.zeros(1, np.int64)).shape[1])

    @property
    def num_features(self) -> int:
        """Width of the inputs of one step."""
        return self.filters.num_features + self.num_calendar + self.static.width

    @property
    def num_future(self) -> int:
        """Width of what is known of a target step: distance from the running mean, value, date."""
        return 2 * self.filters.num_known + self.num_calendar

    def calendar_features(
        self, stamps: Int[np.ndarray, "*stamp"]
    ) -> Float[np.ndarray, "*stamp calendar"]:
        """Calendar features of each stamp; width 0 for integer stamps."""
        if not self.use_calendar or self.calendar.is_integer:
            return np.zeros((*stamps.shape, 0), np.float32)
        unique, back = np.unique(stamps, return_inverse=True)
        values, _ = features(unique, self.calendar.freq, self.holidays)
        return values[back.reshape(stamps.shape)]

    def read(
        self, state: FilterState, panel: Panel, static: Float[np.ndarray, "series static"]
    ) -> tuple[FilterState, Encoded]:
        """Advance the filters over the panel and lay the features of each step side by side."""
        state, seen = filters.advance(self.filters, state, panel)
        parts = [seen.features, self.calendar_features(panel.ds)]
        if self.static.width:
            parts.append(np.repeat(static, panel.lengths, axis=0))
        return state, Encoded(np.hstack(parts), seen.columns)

    def future(
        self,
        means: Float[np.ndarray, "origin known"],
        known: Float[np.ndarray, "origin horizon known"],
        stamps: Int[np.ndarray, "origin horizon"],
    ) -> Float[np.ndarray, "origin horizon future"]:
        """What the head sees of each target step from each origin."""
        calendar = self.calendar_features(stamps)
        return np.concatenate([known - means[:, None], known, calendar], axis=-1, dtype=np.float32)

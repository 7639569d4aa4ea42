"""Which cutoffs of which series decide."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from forecast.calendars.calendar import Calendar
from forecast.data.panel import Panel
from forecast.data.splits import cutoff_lengths
from forecast.errors import TooShort
from forecast.evaluation import baselines

MAX_SLOW = 300
"""Series times windows beyond which the baselines that search a model for each are left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Which cutoffs of which series are forecast, decided once for all models."""

    horizon: int
    windows: int
    step_size: int
    rows: tuple[int, ...]
    """Series of the panel that are long enough."""
    baselines: tuple[str, ...]
    season_length: int

    def part(self, panel: Panel) -> Panel:
        """The series that take part."""
        return panel if len(self.rows) == panel.num_series else panel.take(self.rows)

    def split(self, panel: Panel) -> Panel:
        """What may be learned from before the first cutoff, of the series that take part."""
        part = self.part(panel)
        return part.head(self._known(part)[0])

    def stamps(self, panel: Panel) -> Int[np.ndarray, "window series"]:
        """The last stamp known at each cutoff, first cutoff first, of the series that take part."""
        part = self.part(panel)
        found: np.ndarray = part.ds[part.indptr[:-1] + self._known(part) - 1]
        return found

    def first_cutoff(self, panel: Panel) -> int:
        """The earliest stamp at which a series is cut."""
        return int(self.stamps(panel)[0].min())

    def _known(self, part: Panel) -> np.ndarray:
        return cutoff_lengths(
            part, horizon=self.horizon, n_windows=self.windows, step_size=self.step_size
        )


def not_after(cutoff: object, stamp: str) -> bool:
    """
    Whether a cutoff, as a bundle notes it, is known and no later than a stamp.

    >>> not_after("986", "1000"), not_after("2024-02-01", "2024-01-01"), not_after(None, "7")
    (True, False, False)
    """
    if cutoff is None:
        return False
    if str(cutoff).lstrip("-").isdigit() and stamp.lstrip("-").isdigit():
        return int(str(cutoff)) <= int(stamp)
    return str(cutoff) <= stamp


def plan(
    panel: Panel,
    calendar: Calendar,
    *,
    horizon: int,
    windows: int,
    step_size: int | None = None,
    seasons: Sequence[int] | None = None,
    chosen: Sequence[str] | None = None,
    kind: str = "positive",
) -> Plan:
    """
    Choose series and baselines.

    A series takes part when a season (or 3 steps) is left before its first cutoff. Beside it
    forecast the seasonal naive, AutoETS, AutoTheta (for the kind "count" Croston and TSB instead)
    and one boosted model of all series. Those that search a model for every series at every
    cutoff, AutoETS and AutoTheta, are left out when there are many.

    Raises:
        TooShort: No series is long enough.
    """
    step = step_size or horizon
    back = horizon + step * (windows - 1)
    natural = calendar.season_lengths if seasons is None else tuple(seasons)
    typical = float(np.quantile(panel.lengths, 0.75)) - back
    season = next((s for s in natural if typical >= 2 * s), 1)
    needed = back + max(season + 1, 3)
    rows = np.flatnonzero(panel.lengths >= needed)
    if not len(rows):
        best = int(panel.lengths.argmax())
        raise TooShort(
            f"no series is long enough to be scored: {windows} windows of {horizon} steps, "
            f"{step} apart, and {needed - back} steps before them need {needed} steps",
            where=f"the longest, series {panel.ids[best]!r}: {int(panel.lengths[best])} steps",
            help="ask for fewer --windows, a shorter --h, or give longer histories",
        )
    usual = _usual(kind, few=len(rows) * windows <= MAX_SLOW)
    return Plan(
        horizon=horizon,
        windows=windows,
        step_size=step,
        rows=tuple(int(row) for row in rows),
        baselines=usual if chosen is None else tuple(chosen),
        season_length=season,
    )


def _usual(kind: str, *, few: bool) -> tuple[str, ...]:
    searching = ("AutoETS",) if kind == "count" else ("AutoETS", "AutoTheta")
    return (
        "SeasonalNaive",
        *(searching if few else ()),
        *(baselines.INTERMITTENT if kind == "count" else ()),
        baselines.BOOSTED,
    )


LEVELS = (80, 95)

"""The backtest plan: the cutoffs and series on which models are compared."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from forecast.calendars.calendar import Calendar
from forecast.data.panel import Panel
from forecast.data.splits import cutoff_lengths
from forecast.errors import TooShort
from forecast.evaluation import baselines

LEVELS = (80, 95)
"""Central intervals that are scored, in percent."""
MAX_SLOW = 300
"""Most series times windows for which AutoETS and AutoTheta, which search a model each, are run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Cutoffs, series and baselines of a comparison; the same for all models."""

    horizon: int
    """Steps forecast from each cutoff."""
    windows: int
    """Number of cutoffs."""
    step_size: int
    """Steps from one cutoff to the next."""
    rows: tuple[int, ...]
    """Rows of the panel whose series are long enough."""
    baselines: tuple[str, ...]
    """Names of the baselines, as `forecast.evaluation.baselines.MODELS` has them."""
    season_length: int
    """Season of the seasonal naive and of MASE, in steps."""

    def part(self, panel: Panel) -> Panel:
        """Return the series that are scored."""
        return panel if len(self.rows) == panel.num_series else panel.take(self.rows)

    def split(self, panel: Panel) -> Panel:
        """Return the steps up to the first cutoff of the scored series, for training."""
        part = self.part(panel)
        return part.head(self._known_lengths(part)[0])

    def stamps(self, panel: Panel) -> Int[np.ndarray, "window series"]:
        """Return the last known stamp of each scored series at each cutoff, earliest first."""
        part = self.part(panel)
        last: np.ndarray = part.ds[part.indptr[:-1] + self._known_lengths(part) - 1]
        return last

    def first_cutoff(self, panel: Panel) -> int:
        """Return the earliest stamp at which any series is cut."""
        return int(self.stamps(panel)[0].min())

    def _known_lengths(self, part: Panel) -> np.ndarray:
        return cutoff_lengths(
            part, horizon=self.horizon, n_windows=self.windows, step_size=self.step_size
        )


def not_after(cutoff: object, stamp: str) -> bool:
    """
    Whether a cutoff recorded in a bundle is known and not later than a stamp.

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
    Choose the series and baselines of a comparison.

    A series is scored if at least a season (or 3 steps) precedes its first cutoff. The baselines
    are the seasonal naive, AutoETS, AutoTheta (for the kind "count" Croston and TSB instead of
    AutoTheta) and one boosted model of all series. AutoETS and AutoTheta search a model for every
    series and cutoff and are left out if there are more than `MAX_SLOW` of these.

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
            help="use fewer --windows or a shorter --h, or give longer histories",
        )
    default = _default_baselines(kind, few=len(rows) * windows <= MAX_SLOW)
    return Plan(
        horizon=horizon,
        windows=windows,
        step_size=step,
        rows=tuple(int(row) for row in rows),
        baselines=default if chosen is None else tuple(chosen),
        season_length=season,
    )


def _default_baselines(kind: str, *, few: bool) -> tuple[str, ...]:
    slow = ("AutoETS",) if kind == "count" else ("AutoETS", "AutoTheta")
    return (
        "SeasonalNaive",
        *(slow if few else ()),
        *(baselines.INTERMITTENT if kind == "count" else ()),
        baselines.BOOSTED,
    )

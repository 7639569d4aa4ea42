"""
From `freq` to stamps and back: what comes after, how far apart, which season, which features.

Inside Statecast a stamp is an int64: nanoseconds since the epoch (naive UTC), or the integer step
itself. Stamps of one series share a *phase* (time of day, position inside a step of several
units), so that daily data stamped at 06:00 stay at 06:00.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int64

from forecast.calendars.grid import DAY, Flags, Grid, Ints, canonical
from forecast.errors import WrongFrequency

_PHASE = 1 << 50  # more nanoseconds than a week has
_HORIZONS = ((300, 6), (80, 8), (28, 12), (6, 13), (1.2, 10), (1, 14), (1 / 24, 48))
"""Length of a step in days, at least, and how many steps ahead people usually forecast."""


@dataclass(frozen=True, slots=True)
class Calendar:
    """
    The steps of a frequency: what comes after a stamp, and how far apart two stamps are.

    Args:
        freq: A pandas offset (`"MS"`, `"W-MON"`, `"h"`, `"15min"`), a step between integers, or an
            exchange whose sessions are the steps (`"XNYS"`). Kept in its canonical spelling.

    Raises:
        ConfigError: `freq` is none of these.

    >>> Calendar("60min").freq, Calendar("M").freq
    ('h', 'ME')
    >>> january = np.array(["2024-01-31"], "datetime64[ns]").astype(np.int64)
    >>> Calendar("ME").after(january, 2).astype("datetime64[ns]").astype("datetime64[D]")
    array([['2024-02-29', '2024-03-31']], dtype='datetime64[D]')
    """

    freq: str | int

    def __post_init__(self) -> None:
        object.__setattr__(self, "freq", canonical(self.freq)[0])

    @property
    def is_integer(self) -> bool:
        """Whether stamps are plain integers instead of dates."""
        return isinstance(self.freq, int)

    @property
    def grid(self) -> Grid:
        return canonical(self.freq)[1]

    def locate(self, stamps: Ints) -> tuple[Ints, Ints, Flags]:
        """
        Number of the step, phase, and whether the stamp can be one of this frequency.

        Two stamps lie on one grid when both are `on` and their phases are equal.
        """
        grid = self.grid
        unit, rest, on = grid.split(stamps)
        if grid.units == 1:
            return unit, rest, on
        step, inner = np.divmod(unit, grid.units)
        return step, rest + inner * _PHASE, on

    def stamp_at(self, step: Ints, phase: Ints) -> Ints:
        """The stamp of each step: inverse of `locate`; shapes broadcast."""
        grid = self.grid
        if grid.units == 1:
            return grid.join(step, phase)
        inner, rest = np.divmod(phase, _PHASE)
        return grid.join(step * grid.units + inner, rest)

    def on_grid(self, stamps: Int64[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
        """Whether each stamp can be one of this frequency: day 1 for `"MS"`, a session."""
        return self.grid.split(stamps)[2]

    def after(
        self, last: Int64[np.ndarray, " series"], steps: int
    ) -> Int64[np.ndarray, "series step"]:
        """
        The `steps` stamps that follow each of `last`.

        Raises:
            WrongFrequency: One of `last` is not a stamp of this frequency.
        """
        step, phase, on = self.locate(last)
        if not on.all():
            self._refuse(last[~on][0])
        return self.stamp_at(step[:, None] + np.arange(1, steps + 1), phase[:, None])

    def steps_between(
        self, first: Int64[np.ndarray, " n"], last: Int64[np.ndarray, " n"]
    ) -> Int64[np.ndarray, " n"]:
        """
        Signed number of steps from `first` to `last`, pair by pair.

        Raises:
            WrongFrequency: A stamp is off the grid, or a pair is not whole steps apart.
        """
        step_a, phase_a, on_a = self.locate(first)
        step_b, phase_b, on_b = self.locate(last)
        for stamps, on in ((first, on_a), (last, on_b)):
            if not on.all():
                self._refuse(stamps[~on][0])
        if (phase_a != phase_b).any():
            i = int(np.argmax(phase_a != phase_b))
            raise WrongFrequency(
                f"{self.text(last[i])} is not a whole number of steps of freq={self.freq!r} away "
                f"from {self.text(first[i])}",
                help="send stamps that continue the series",
            )
        steps: Ints = step_b - step_a
        return steps

    def text(self, stamp: int | np.integer) -> str:
        """
        A stamp as people write it.

        >>> Calendar("h").text(3_600_000_000_000), Calendar("D").text(0), Calendar(1).text(7)
        ('1970-01-01 01:00:00', '1970-01-01', '7')
        """
        if self.is_integer:
            return str(int(stamp))
        return stamp_text(stamp)

    @property
    def season_lengths(self) -> tuple[int, ...]:
        """
        Steps in each natural season, shortest first; empty when the frequency has none.

        >>> [Calendar(f).season_lengths for f in ("15min", "h", "D", "B", "W-MON", "MS", "YS", 1)]
        [(96, 672), (24, 168), (7,), (5,), (52,), (12,), (), ()]
        """
        grid = self.grid
        days = grid.days * grid.units
        if days == 0:
            return ()
        if days < 1:
            per_day = 1 / days
            seasons = (round(per_day), round(7 * per_day))
            return seasons if _whole(per_day) and 1 < per_day <= 1440 else ()
        if days < 2:  # daily, business days, sessions
            per_week = 7 if days < 1.2 else 5
            return (per_week,) if grid.units == 1 else ()
        per_year = (364 if _whole(days / 7) else 365.25) / days
        whole = abs(per_year - round(per_year)) < 0.1 and per_year > 1.5
        return (round(per_year),) if whole else ()

    @property
    def default_horizon(self) -> int:
        """Steps that people usually forecast: 48 hours, 14 days, 13 weeks, 12 months, ..."""
        days = self.grid.days * self.grid.units
        if days == 0:
            return 12
        for shortest, horizon in _HORIZONS:
            if days > shortest - 1e-9:
                return horizon
        return 96

    def _refuse(self, stamp: int | np.integer) -> None:
        raise WrongFrequency(
            f"{self.text(stamp)} is not a stamp of freq={self.freq!r}{self.neighbours(stamp)}",
            help="send stamps that continue the series",
        )

    def neighbours(self, stamp: int | np.integer) -> str:
        """
        The stamps of this frequency on either side, as the end of a message.

        >>> Calendar("MS").neighbours(pd.Timestamp("2024-01-05").value)
        ': the nearest are 2024-01-01 and 2024-02-01'
        """
        step, phase, _ = self.locate(np.array([stamp], np.int64))
        phase = phase % DAY
        around = [self.stamp_at(step + i, phase)[0] for i in (-1, 0, 1)]
        before = max((s for s in around if s < stamp), default=None)
        after = min((s for s in around if s > stamp), default=None)
        if before is None or after is None:
            return ""
        return f": the nearest are {self.text(before)} and {self.text(after)}"


def stamp_text(stamp: int | np.integer) -> str:
    """Nanoseconds since the epoch as ISO 8601, without a time of day that is midnight."""
    moment = pd.Timestamp(int(stamp))
    return str(moment.date()) if int(stamp) % DAY == 0 else str(moment)


def _whole(number: float) -> bool:
    return abs(number - round(number)) < 1e-9

"""
Stamps and steps of a frequency: stamps that follow, steps between stamps, seasons and horizons.

A stamp is an int64: nanoseconds since the epoch (naive UTC), or the integer step itself. The stamps
of a series share a *phase* (time of day, and position inside a step of several units), so that
daily data stamped at 06:00 stay at 06:00.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Int64

from forecast.calendars.grid import DAY, Flags, Grid, Ints, canonical
from forecast.errors import WrongFrequency

_PHASE = 1 << 50  # more than the nanoseconds of a week, the largest rest of a unit
_HORIZONS = ((300, 6), (80, 8), (28, 12), (6, 13), (1.2, 10), (1, 14), (1 / 24, 48))
"""Shortest length of a step in days, with the number of steps usually forecast."""


@dataclass(frozen=True, slots=True)
class Calendar:
    """
    The steps of a frequency, with conversion between stamps and numbers of steps.

    Args:
        freq: A pandas offset (`"MS"`, `"W-MON"`, `"h"`, `"15min"`), a step between integers, or an
            exchange whose sessions are the steps (`"XNYS"`). The canonical spelling is stored.

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
        """True if stamps are integers instead of dates."""
        return isinstance(self.freq, int)

    @property
    def grid(self) -> Grid:
        """Arithmetic of the units that the steps consist of."""
        return canonical(self.freq)[1]

    def locate(self, stamps: Ints) -> tuple[Ints, Ints, Flags]:
        """
        Return the number of the step, the phase, and whether the stamp fits the frequency.

        Two stamps are whole steps apart if both fit and their phases are equal.
        """
        grid = self.grid
        unit, rest, valid = grid.split(stamps)
        if grid.units == 1:
            return unit, rest, valid
        step, inner = np.divmod(unit, grid.units)
        return step, rest + inner * _PHASE, valid

    def stamp_at(self, step: Ints, phase: Ints) -> Ints:
        """Return the stamp of each step and phase, as the inverse of `locate`; shapes broadcast."""
        grid = self.grid
        if grid.units == 1:
            return grid.join(step, phase)
        inner, rest = np.divmod(phase, _PHASE)
        return grid.join(step * grid.units + inner, rest)

    def after(
        self, last: Int64[np.ndarray, " series"], steps: int
    ) -> Int64[np.ndarray, "series step"]:
        """
        Return the `steps` stamps that follow each of `last`.

        Raises:
            WrongFrequency: One of `last` is not a stamp of this frequency.
        """
        step, phase, valid = self.locate(last)
        if not valid.all():
            raise self._not_a_stamp(last[~valid][0])
        return self.stamp_at(step[:, None] + np.arange(1, steps + 1), phase[:, None])

    def steps_between(
        self, first: Int64[np.ndarray, " n"], last: Int64[np.ndarray, " n"]
    ) -> Int64[np.ndarray, " n"]:
        """
        Return the signed number of steps from `first` to `last`, pair by pair.

        Raises:
            WrongFrequency: A stamp does not fit the frequency, or a pair is not whole steps apart.
        """
        first_step, first_phase, first_valid = self.locate(first)
        last_step, last_phase, last_valid = self.locate(last)
        for stamps, valid in ((first, first_valid), (last, last_valid)):
            if not valid.all():
                raise self._not_a_stamp(stamps[~valid][0])
        if (first_phase != last_phase).any():
            i = int(np.argmax(first_phase != last_phase))
            raise WrongFrequency(
                f"{self.text(last[i])} is not a whole number of steps of freq={self.freq!r} away "
                f"from {self.text(first[i])}",
                help="send stamps that continue the series",
            )
        steps: Ints = last_step - first_step
        return steps

    def text(self, stamp: int | np.integer) -> str:
        """
        Return a stamp as text.

        >>> Calendar("h").text(3_600_000_000_000), Calendar("D").text(0), Calendar(1).text(7)
        ('1970-01-01 01:00:00', '1970-01-01', '7')
        """
        if self.is_integer:
            return str(int(stamp))
        return stamp_text(stamp)

    @property
    def season_lengths(self) -> tuple[int, ...]:
        """
        Steps in each natural season, shortest first; empty if the frequency has none.

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
        """Usual number of steps to forecast: 48 hours, 14 days, 13 weeks, 12 months, ..."""
        days = self.grid.days * self.grid.units
        if days == 0:
            return 12
        for shortest, horizon in _HORIZONS:
            if days > shortest - 1e-9:
                return horizon
        return 96

    def _not_a_stamp(self, stamp: int | np.integer) -> WrongFrequency:
        return WrongFrequency(
            f"{self.text(stamp)} is not a stamp of freq={self.freq!r}{self.neighbours(stamp)}",
            help="send stamps that continue the series",
        )

    def neighbours(self, stamp: int | np.integer) -> str:
        """
        Return the stamps of this frequency on either side, as the end of a message.

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
    """Return nanoseconds since the epoch as a date, with the time of day unless it is midnight."""
    moment = pd.Timestamp(int(stamp))
    return str(moment.date()) if int(stamp) % DAY == 0 else str(moment)


def _whole(number: float) -> bool:
    return abs(number - round(number)) < 1e-9

"""
Vectorised arithmetic of frequencies.

A grid converts stamps (int64: nanoseconds since the epoch, or integer steps) to the number of their
unit and the rest, and back, without a Python loop.
"""

import re
import warnings
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int64
from pandas.tseries.frequencies import to_offset

from forecast.errors import ConfigError, WrongFrequency, nearest

DAY = 86_400_000_000_000
"""Nanoseconds in a day."""
WEEKDAYS = ("MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN")
MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_EPOCH_WEEKDAY = 3  # 1970-01-01 was a Thursday
_TABLE_YEARS = ("1960-01-01", "2049-12-31")
_COMMON_WORDS = {
    "minutely": "min",
    "hourly": "h",
    "daily": "D",
    "business": "B",
    "weekly": "W-MON",
    "monthly": "MS",
    "quarterly": "QS",
    "yearly": "YS",
    "annual": "YS",
    "month": "MS",
    "day": "D",
    "week": "W-MON",
    "hour": "h",
    "quarter": "QS",
    "year": "YS",
}
Ints = Int64[np.ndarray, "..."]
Flags = Bool[np.ndarray, "..."]


@runtime_checkable
class Grid(Protocol):
    """Numbered units of time; `rest` is the time from the start of its unit to a stamp."""

    @property
    def units(self) -> int:
        """Number of units in one step of the frequency: 2 for `2W-MON`."""

    @property
    def days(self) -> float:
        """Typical length of one unit in days; 0 for integers."""

    def split(self, stamps: Ints) -> tuple[Ints, Ints, Flags]:
        """Return the number of the unit, the rest, and whether the stamp fits the frequency."""

    def join(self, unit: Ints, rest: Ints) -> Ints:
        """Return the stamp of each unit and rest, as the inverse of `split`."""


@dataclass(frozen=True, slots=True)
class _Ticks:
    """Units of a fixed length; every stamp fits, with whatever rest it has."""

    length: int
    days: float
    units: int = 1

    def split(self, stamps: Ints) -> tuple[Ints, Ints, Flags]:
        unit, rest = np.divmod(stamps, self.length)
        return unit, rest, np.ones(stamps.shape, bool)

    def join(self, unit: Ints, rest: Ints) -> Ints:
        stamps: Ints = unit * self.length + rest
        return stamps


@dataclass(frozen=True, slots=True)
class _Weeks:
    """Weeks that are stamped on one weekday."""

    weekday: int
    units: int
    days: float = 7.0

    def split(self, stamps: Ints) -> tuple[Ints, Ints, Flags]:
        unit, rest = np.divmod(stamps + (_EPOCH_WEEKDAY - self.weekday) * DAY, 7 * DAY)
        return unit, rest, rest < DAY

    def join(self, unit: Ints, rest: Ints) -> Ints:
        stamps: Ints = unit * (7 * DAY) - (_EPOCH_WEEKDAY - self.weekday) * DAY + rest
        return stamps


@dataclass(frozen=True, slots=True)
class _Weekdays:
    """Monday to Friday, five units per week."""

    units: int
    days: float = 1.4

    def split(self, stamps: Ints) -> tuple[Ints, Ints, Flags]:
        day, rest = np.divmod(stamps, DAY)
        week, weekday = np.divmod(day + _EPOCH_WEEKDAY, 7)
        return week * 5 + np.minimum(weekday, 4), rest, weekday < 5

    def join(self, unit: Ints, rest: Ints) -> Ints:
        week, weekday = np.divmod(unit, 5)
        stamps: Ints = (week * 7 + weekday - _EPOCH_WEEKDAY) * DAY + rest
        return stamps


@dataclass(frozen=True, slots=True)
class _Months:
    """Months, quarters or years that are stamped on their first or last day."""

    span: int
    """Months in one unit: 1, 3 (quarters) or 12 (years)."""
    anchor: int
    """A month with a stamp, counted from 0 for January."""
    at_end: bool
    units: int

    @property
    def days(self) -> float:
        return 30.44 * self.span

    def split(self, stamps: Ints) -> tuple[Ints, Ints, Flags]:
        day, rest = np.divmod(stamps, DAY)
        month = month_of(day)
        unit, month_in_unit = np.divmod(month - self.anchor, self.span)
        stamp_day = day_of(month + 1) - 1 if self.at_end else day_of(month)
        return unit, rest, (month_in_unit == 0) & (day == stamp_day)

    def join(self, unit: Ints, rest: Ints) -> Ints:
        month = unit * self.span + self.anchor
        day = day_of(month + 1) - 1 if self.at_end else day_of(month)
        stamps: Ints = day * DAY + rest
        return stamps


@dataclass(frozen=True, slots=True, eq=False)
class _Table:
    """Units listed in a table: sessions of an exchange, or offsets without a formula."""

    name: str
    values: Int64[np.ndarray, " step"]
    """Starts of the units, increasing, in multiples of `scale`."""
    scale: int
    """Nanoseconds: a day, or 1 if units begin at other times than midnight."""
    units: int = 1

    @property
    def days(self) -> float:
        span = float(self.values[-1] - self.values[0]) * self.scale / DAY
        return span / (len(self.values) - 1)

    def split(self, stamps: Ints) -> tuple[Ints, Ints, Flags]:
        whole, rest = np.divmod(stamps, self.scale)
        unit = np.maximum(np.searchsorted(self.values, whole, side="right") - 1, 0)
        return unit, rest, self.values[unit] == whole

    def join(self, unit: Ints, rest: Ints) -> Ints:
        if unit.size and (unit.max() >= len(self.values) or unit.min() < 0):
            ends = np.array([self.values[0], self.values[-1]]) * self.scale
            first, last = ends.astype("datetime64[ns]").astype("datetime64[D]")
            raise WrongFrequency(
                f"freq={self.name!r} is known from {first} to {last}, but a step outside was "
                "requested",
                help="ask for a shorter horizon",
            )
        stamps: Ints = self.values[unit] * self.scale + rest
        return stamps


def month_of(day: Ints) -> Ints:
    """Return months since January 1970 from days since the epoch."""
    months: Ints = day.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64)
    return months


def day_of(month: Ints) -> Ints:
    """Return the day since the epoch on which a month begins."""
    days: Ints = month.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
    return days


def weekday_of(day: Ints) -> Ints:
    """Return 0 for Monday to 6 for Sunday from days since the epoch."""
    weekdays: Ints = (day + _EPOCH_WEEKDAY) % 7
    return weekdays


def tick_name(nanoseconds: int) -> str:
    """
    Return the shortest spelling of a fixed step.

    >>> tick_name(3_600_000_000_000), tick_name(900_000_000_000)
    ('h', '15min')
    """
    span: Any = pd.Timedelta(nanoseconds)
    return str(to_offset(span).freqstr)


@lru_cache(maxsize=256)
def canonical(freq: str | int) -> tuple[str | int, Grid]:
    """
    Return the canonical spelling of a frequency and its grid.

    Raises:
        ConfigError: `freq` is not a pandas offset, an integer or an exchange.
    """
    if isinstance(freq, bool) or not isinstance(freq, str | int):
        raise ConfigError(f"freq={freq!r} must be a pandas offset, an integer or an exchange")
    if isinstance(freq, str) and freq.strip().isdigit():
        freq = int(freq)
    if isinstance(freq, int):
        if freq < 1:
            raise ConfigError(f"freq={freq} must be at least 1 for integer stamps")
        return freq, _Ticks(freq, 0.0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pandas warns of "M" and "H", which we translate
            offset = to_offset(freq.strip())
    except ValueError:
        return _exchange(freq.strip())
    if offset.n < 1:
        raise ConfigError(f"freq={freq!r} must step forward")
    if isinstance(offset, pd.offsets.Tick):
        return tick_name(offset.nanos), _Ticks(offset.nanos, offset.nanos / DAY)
    return str(offset.freqstr), _anchored(offset)


def _anchored(offset: Any) -> Grid:
    """Return the grid of a pandas offset without a fixed length."""
    units, name = offset.n, str(offset.freqstr)
    kind = re.sub(r"^\d+", "", name)
    head, _, anchor = kind.partition("-")
    if head == "W":
        return _Weeks(WEEKDAYS.index(anchor or "SUN"), units)
    if kind == "B":
        return _Weekdays(units)
    if head in {"MS", "ME", "QS", "QE", "YS", "YE"}:
        span = {"M": 1, "Q": 3, "Y": 12}[head[0]]
        month = MONTHS.index(anchor) if anchor else 0
        return _Months(span, month % span, head[1] == "E", units)
    stamps = pd.date_range(*_TABLE_YEARS, freq=to_offset(kind)).to_numpy().astype(np.int64)
    scale = DAY if (stamps % DAY == 0).all() else 1
    return _Table(name, stamps // scale, scale, units)


def _exchange(name: str) -> tuple[str, Grid]:
    """Return the canonical name of an exchange and the grid of its sessions."""
    import exchange_calendars  # takes 0.1 s, so it is imported for exchanges only

    known = exchange_calendars.get_calendar_names(include_aliases=True)
    alias = {key.upper(): key for key in known}.get(name.upper())
    if alias is None:
        hint = _COMMON_WORDS.get(name.lower()) or nearest(name.upper(), sorted(known))
        raise ConfigError(
            f"freq={name!r} is neither a pandas offset nor an exchange",
            help=(f"did you mean {hint!r}? " if hint else "")
            + 'common ones: "h", "D", "B", "W-MON", "MS", "ME", "QS", "YS", 1, "XNYS"',
        )
    exchange = exchange_calendars.resolve_alias(alias)
    return exchange, _sessions(exchange)


@lru_cache(maxsize=16)
def _sessions(name: str) -> Grid:
    """Return the sessions of an exchange from 1960, or its first known one, to 2049."""
    import exchange_calendars

    factory = type(exchange_calendars.get_calendar(name))
    start, end = (pd.Timestamp(t) for t in _TABLE_YEARS)
    low, high = factory.bound_min(), factory.bound_max()
    sessions = factory(
        start=start if low is None else max(start, low),
        end=end if high is None else min(end, high),
    ).sessions
    return _Table(name, sessions.asi8 // DAY, DAY)

"""Calendar and holiday features of stamps."""

import re
from functools import lru_cache

import numpy as np
from jaxtyping import Float, Float32, Int64

from forecast.calendars.calendar import Calendar
from forecast.calendars.grid import DAY, WEEKDAYS, Ints, day_of, month_of, weekday_of
from forecast.errors import ConfigError

CHANGE = "working_days_change"
"""Feature: change of the working days of a month since a year before."""


def features(
    stamps: Int64[np.ndarray, " n"], freq: str | int, holidays: str | None = None
) -> tuple[Float32[np.ndarray, "n feature"], tuple[str, ...]]:
    """
    Return features of what recurs: hour, weekday, month, working days, public holidays.

    Each is within [-1, 1]. `working_days_change` tells how many more working days a month has than
    the same month a year before, whose value a seasonal forecast repeats.

    No feature tells one year from another, because a network would memorise the shocks of dates
    that it can identify. Integer stamps have no features.

    Args:
        stamps: Nanoseconds since the epoch, or integers.
        freq: Decides which features can vary: no weekday in monthly data.
        holidays: ISO code of a country whose public holidays are used, such as `"US"`.

    Raises:
        ConfigError: The holidays of the country are not known.

    >>> features(np.zeros(1, np.int64), "MS")[1]
    ('month_sin', 'month_cos', 'month_sin2', 'month_cos2', 'working_days', 'working_days_change')
    """
    calendar = Calendar(freq)
    days = calendar.grid.days * calendar.grid.units
    columns: dict[str, np.ndarray] = {}
    if not calendar.is_integer:
        day, time = np.divmod(stamps, DAY)
        month = month_of(day)
        if days < 1:
            columns |= _circle("hour", time / DAY)
        if days < 7:
            weekday = weekday_of(day)
            columns |= {f"weekday_{n.lower()}": weekday == i for i, n in enumerate(WEEKDAYS)}
        if days < 2:
            columns |= _circle("day", (day - day_of(month)) / 31)
        if days < 180:
            columns |= _circle("month", month % 12 / 12)
        off = _holidays(holidays) if holidays else np.empty(0, np.int64)
        if 28 <= days <= 31:
            working, before = _working_days(month, off), _working_days(month - 12, off)
            columns["working_days"] = (working - 21.5) / 2.5
            columns[CHANGE] = (working - before) / 2.5
        if holidays:
            columns |= _holiday_columns(day, month, off, days, ends=_dated_at_end(calendar))
    clipped = [np.clip(column, -1, 1).astype(np.float32) for column in columns.values()]
    table = np.stack(clipped, axis=1) if clipped else np.empty((len(stamps), 0), np.float32)
    return table, tuple(columns)


def _circle(name: str, turn: Float[np.ndarray, " n"]) -> dict[str, np.ndarray]:
    """Return two harmonics of the position in a cycle; `turn` is in [0, 1)."""
    angle = 2 * np.pi * turn
    return {
        f"{name}_sin": np.sin(angle),
        f"{name}_cos": np.cos(angle),
        f"{name}_sin2": np.sin(2 * angle),
        f"{name}_cos2": np.cos(2 * angle),
    }


def _working_days(month: Ints, off: Ints) -> Ints:
    start, stop = (day_of(m).astype("datetime64[D]") for m in (month, month + 1))
    return np.busday_count(start, stop, holidays=off.astype("datetime64[D]"))


def _dated_at_end(calendar: Calendar) -> bool:
    return not calendar.is_integer and re.match(r"\d*B?[MQY]E", str(calendar.freq)) is not None


def _holiday_columns(
    day: Ints, month: Ints, off: Ints, days: float, *, ends: bool
) -> dict[str, np.ndarray]:
    def count(start: Ints, stop: Ints) -> Ints:
        """Count the public holidays in [start, stop)."""
        return np.searchsorted(off, stop) - np.searchsorted(off, start)

    if days < 2:
        shifts = {"holiday": 0, "holiday_tomorrow": 1, "holiday_yesterday": -1}
        return {name: count(day + i, day + i + 1) for name, i in shifts.items()}
    if days < 28:  # A week may be dated by its first day or by its last.
        length = round(days)
        return {
            "holidays_before": count(day - length + 1, day + 1) / 3,
            "holidays_from": count(day, day + length) / 3,
        }
    span = round(days / 30.44)
    start = month - span + 1 if ends else month
    return {"holidays": count(day_of(start), day_of(start + span)) / (4 * span)}


@lru_cache(maxsize=32)
def _holidays(country: str) -> Int64[np.ndarray, " holiday"]:
    """Return the public holidays of a country from 1960 to 2049, in days since the epoch."""
    import holidays  # Only if a country is named.

    code = country.strip().upper()
    if code not in holidays.list_supported_countries():
        raise ConfigError(
            f"holidays={country!r} is not a country whose public holidays are known",
            help='give an ISO code of two letters, such as "US", "DE" or "AU"',
        )
    dates = sorted(holidays.country_holidays(code, years=range(1960, 2050)))
    return np.array(dates, "datetime64[D]").astype(np.int64)

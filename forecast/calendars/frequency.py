"""Which frequency stamps follow, by the vote of all series."""

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int64

from forecast.calendars.grid import (
    DAY,
    MONTHS,
    WEEKDAYS,
    canonical,
    day_of,
    month_of,
    tick_name,
    weekday_of,
)
from forecast.errors import WrongFrequency

_DECLARE = 'declare it: freq = "D", "W-MON", "MS", 1, "XNYS", ...'
_SAMPLE = 200_000
"""Rows that vote on the frequency."""


def infer_freq(
    stamps: Int64[np.ndarray, " row"], new_series: Bool[np.ndarray, " row"], *, integer: bool
) -> str | int:
    """
    The frequency that most steps of all series follow.

    Args:
        stamps: Rising inside each series, series end to end.
        new_series: True on the first row of each series.
        integer: Whether stamps are integers instead of nanoseconds.

    Raises:
        WrongFrequency: No frequency fits more than half of the steps.

    >>> months = pd.date_range("2024-01-31", periods=6, freq="ME").asi8
    >>> infer_freq(months, np.arange(6) == 0, integer=False)
    'ME'
    """
    jumps = _sample(np.diff(stamps)[~new_series[1:]])
    jumps = jumps[jumps > 0]
    if not jumps.size:
        raise WrongFrequency(
            "no series has two different stamps, so they do not tell the frequency", help=_DECLARE
        )
    usual = _most_common(jumps)
    guess: str | int | None
    if not integer and usual % DAY == 0:
        guess = _daily_or_longer(_sample(stamps) // DAY, jumps // DAY, usual // DAY)
    elif _is_step(jumps, usual):
        guess = usual if integer else tick_name(usual)
    else:
        guess = None
    if guess is None:
        text = f"{usual} apart" if integer else f"{pd.Timedelta(usual)} apart"
        raise WrongFrequency(
            f"the stamps follow no known frequency: the most common step is {text}, and too many "
            "do not fit it (weeks need one weekday, months their first or last day)",
            help=_DECLARE,
        )
    return canonical(guess)[0]


def _daily_or_longer(
    day: Int64[np.ndarray, " row"], jumps: Int64[np.ndarray, " step"], usual: int
) -> str | None:
    month = month_of(day)
    first, last = day == day_of(month), day == day_of(month + 1) - 1
    if usual >= 28 and max(first.mean(), last.mean()) > 0.9:
        return _monthly(month, round(usual / 30.44), at_end=bool(last.mean() > 0.9))
    if usual >= 28 and usual % 7:
        business = {"BMS": 1, "BME": 1} if usual < 35 else {}
        fits = [f for f in business if canonical(f)[1].split(day * DAY)[2].mean() > 0.9]
        return fits[0] if fits else None
    if not _is_step(jumps, usual):
        return None
    if usual % 7 == 0:
        weekday = _most_common(weekday_of(day))
        one = (weekday_of(day) == weekday).mean() > 0.9
        return f"{usual // 7}W-{WEEKDAYS[weekday]}" if one else f"{usual}D"
    weekends = (weekday_of(day) >= 5).mean()
    if usual == 1 and weekends < 0.02 and (jumps == 3).any():
        return "B"
    return f"{usual}D"


def _monthly(month: Int64[np.ndarray, " row"], span: int, *, at_end: bool) -> str | None:
    letter = "E" if at_end else "S"
    if span % 12 == 0:
        anchor = _most_common(month % 12)
        return f"{span // 12}Y{letter}-{MONTHS[anchor]}"
    if span == 3:
        anchor = _most_common(month % 3) + (9 if at_end else 0)
        return f"Q{letter}-{MONTHS[anchor]}"
    return f"{max(span, 1)}M{letter}"


def _is_step(jumps: Int64[np.ndarray, " step"], usual: int) -> bool:
    """Whether most jumps are whole multiples; of an odd step, most must be that step itself."""
    alone = 0.0 if usual == 1 else 0.4
    return bool((jumps % usual == 0).mean() > 0.5 and (jumps == usual).mean() > alone)


def _most_common(numbers: Int64[np.ndarray, " n"]) -> int:
    values, counts = np.unique(numbers, return_counts=True)
    return int(values[np.argmax(counts)])


def _sample(numbers: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " m"]:
    """At most about `_SAMPLE` of the numbers, evenly spread."""
    return numbers[:: max(1, len(numbers) // _SAMPLE)]

"""Inference of the frequency that the stamps of most series follow."""

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
"""Approximate number of rows from which the frequency is inferred."""


def infer_freq(
    stamps: Int64[np.ndarray, " row"], new_series: Bool[np.ndarray, " row"], *, integer: bool
) -> str | int:
    """
    Return the frequency that most steps of all series follow.

    Args:
        stamps: Stamps of all series end to end, increasing within each series.
        new_series: True on the first row of each series.
        integer: True if stamps are integer steps instead of nanoseconds.

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
            "no series has two different stamps, so the frequency cannot be inferred",
            help=_DECLARE,
        )
    usual = _most_common(jumps)
    freq: str | int | None
    if not integer and usual % DAY == 0:
        freq = _infer_days(_sample(stamps) // DAY, jumps // DAY, usual // DAY)
    elif _is_step(jumps, usual):
        freq = usual if integer else tick_name(usual)
    else:
        freq = None
    if freq is None:
        text = f"{usual} apart" if integer else f"{pd.Timedelta(usual)} apart"
        raise WrongFrequency(
            f"the stamps follow no known frequency: the most common step is {text}, and too many "
            "do not fit it (weeks need one weekday, months their first or last day)",
            help=_DECLARE,
        )
    return canonical(freq)[0]


def _infer_days(
    day: Int64[np.ndarray, " row"], jumps: Int64[np.ndarray, " step"], usual: int
) -> str | None:
    """Return the offset of stamps that are usually `usual` whole days apart, or None."""
    month = month_of(day)
    first, last = day == day_of(month), day == day_of(month + 1) - 1
    if usual >= 28 and max(first.mean(), last.mean()) > 0.9:
        return _month_offset(month, round(usual / 30.44), at_end=bool(last.mean() > 0.9))
    if usual >= 28 and usual % 7:
        business = {"BMS": 1, "BME": 1} if usual < 35 else {}
        fits = [f for f in business if canonical(f)[1].split(day * DAY)[2].mean() > 0.9]
        return fits[0] if fits else None
    if not _is_step(jumps, usual):
        return None
    if usual % 7 == 0:
        weekday = _most_common(weekday_of(day))
        same_weekday = (weekday_of(day) == weekday).mean() > 0.9
        return f"{usual // 7}W-{WEEKDAYS[weekday]}" if same_weekday else f"{usual}D"
    weekends = (weekday_of(day) >= 5).mean()
    if usual == 1 and weekends < 0.02 and (jumps == 3).any():
        return "B"
    return f"{usual}D"


def _month_offset(month: Int64[np.ndarray, " row"], span: int, *, at_end: bool) -> str:
    """Return the offset of `span` months that the stamps follow."""
    letter = "E" if at_end else "S"
    if span % 12 == 0:
        anchor = _most_common(month % 12)
        return f"{span // 12}Y{letter}-{MONTHS[anchor]}"
    if span == 3:
        anchor = _most_common(month % 3) + (9 if at_end else 0)
        return f"Q{letter}-{MONTHS[anchor]}"
    return f"{max(span, 1)}M{letter}"


def _is_step(jumps: Int64[np.ndarray, " step"], usual: int) -> bool:
    """Return True if most jumps are multiples of `usual` and, unless it is 1, many equal it."""
    least_share = 0.0 if usual == 1 else 0.4
    return bool((jumps % usual == 0).mean() > 0.5 and (jumps == usual).mean() > least_share)


def _most_common(numbers: Int64[np.ndarray, " n"]) -> int:
    values, counts = np.unique(numbers, return_counts=True)
    return int(values[np.argmax(counts)])


def _sample(numbers: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " m"]:
    """Return about `_SAMPLE` of the numbers at most, evenly spread."""
    return numbers[:: max(1, len(numbers) // _SAMPLE)]

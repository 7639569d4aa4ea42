"""Converts `ds` between the texts or integers of HTTP and the int64 stamps of the library."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
from jaxtyping import Int

from forecast.calendars.calendar import Calendar
from forecast.errors import BadStamps
from service.errors import Refused

_EPOCH = datetime(1970, 1, 1)
_MICROSECOND = timedelta(microseconds=1)
_DAY = 86_400_000_000_000
_YEARS = (1800, 2200)
_ISO = re.compile(
    r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?(Z|[+-]\d{2}:?\d{2})?)?", re.ASCII
)


def parse(
    stamps: Sequence[str | int], calendar: Calendar, pointers: Sequence[str]
) -> Int[np.ndarray, " row"]:
    """
    Convert stamps to int64: nanoseconds since the epoch in UTC, or the integer itself.

    Args:
        stamps: ISO 8601 text if the calendar has dates (an offset is converted to UTC), integers
            if it counts steps.
        calendar: The model's calendar.
        pointers: JSON pointer to each stamp, for the problem document.

    Raises:
        Refused: `BadStamps`, with the places of the first few.
    """
    read = _integer if calendar.is_integer else _moment
    values = [read(stamp) for stamp in stamps]
    bad = [row for row, value in enumerate(values) if value is None]
    if bad:
        expected = "an integer" if calendar.is_integer else "an ISO 8601 date or time in 1800-2199"
        raise Refused(
            BadStamps(
                f"{len(bad)} of {len(values)} stamps cannot be read: `ds` must be {expected}, "
                f"for freq={calendar.freq!r}",
                help='write ds as "2024-03-01" or "2024-03-01T12:00:00"'
                if not calendar.is_integer
                else "write ds as a number without quotes",
            ),
            [(pointers[row], f"`ds` must be {expected}") for row in bad[:10]],
        )
    return np.array(values, np.int64)


def parse_text(text: str, calendar: Calendar, pointer: str) -> int:
    """
    Convert one stamp of a query parameter or an option, where integers are text too.

    Raises:
        Refused: `BadStamps`, with the place.
    """
    counts = calendar.is_integer and re.fullmatch(r"-?\d{1,16}", text, re.ASCII)
    return int(parse([int(text) if counts else text], calendar, [pointer])[0])


def render(stamps: Int[np.ndarray, " row"], calendar: Calendar) -> list[str | int]:
    """
    Convert stamps for an answer; dates without a time if all are midnights of daily steps.

    >>> render(np.array([0, 86_400_000_000_000]), Calendar("D"))
    ['1970-01-01', '1970-01-02']
    >>> render(np.array([0]), Calendar("h"))
    ['1970-01-01T00:00:00']
    """
    if calendar.is_integer:
        return [int(stamp) for stamp in stamps]
    moments = stamps.astype("datetime64[ns]")
    if not np.any(stamps % _DAY) and calendar.grid.days * calendar.grid.units >= 1:
        return [str(text) for text in np.datetime_as_string(moments, unit="D")]
    fine = bool(np.any(stamps % 1_000_000_000))
    return [str(text) for text in np.datetime_as_string(moments, unit="ns" if fine else "s")]


def _integer(stamp: str | int) -> int | None:
    return stamp if isinstance(stamp, int) and abs(stamp) < 2**53 else None


def _moment(stamp: str | int) -> int | None:
    if isinstance(stamp, int) or not _ISO.fullmatch(stamp):
        return None
    head, _, fraction = stamp.partition(".")
    digits = re.match(r"\d*", fraction, re.ASCII)
    nanoseconds = int((digits[0] if digits else "").ljust(9, "0")[:9])
    try:
        moment = datetime.fromisoformat(head + fraction.lstrip("0123456789"))
        if moment.tzinfo is not None:
            moment = moment.astimezone(UTC).replace(tzinfo=None)
    except (ValueError, OverflowError):
        return None
    if not _YEARS[0] <= moment.year < _YEARS[1]:
        return None
    return ((moment - _EPOCH) // _MICROSECOND) * 1000 + nanoseconds

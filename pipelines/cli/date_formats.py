"""Find the format of the dates in a column that are not ISO 8601."""

import numpy as np
import pandas as pd

_DAYS = (
    "%d.%m.%Y",
    "%d/%m/%Y",
    "%m/%d/%Y",
    "%d-%m-%Y",
    "%m-%d-%Y",
    "%Y/%m/%d",
    "%d.%m.%y",
    "%d/%m/%y",
    "%m/%d/%y",
    "%d-%b-%Y",
    "%d-%b-%y",
    "%d %b %Y",
    "%b %d, %Y",
    "%d %B %Y",
    "%B %d, %Y",
)
_TIMES = ("", " %H:%M", " %H:%M:%S", " %I:%M %p", " %I:%M:%S %p")
_MONTHS = ("%m/%Y", "%m.%Y", "%b %Y", "%B %Y", "%b-%Y", "%b-%y", "%Y %b")
_DIGITS = {8: "%Y%m%d", 6: "%Y%m"}
_SAMPLE = 2_000


def find_date_formats(column: pd.Series) -> list[str]:
    """
    Return the formats that fit every timestamp of a column; empty if no format is needed or fits.

    If both the day and the month may come first, the format with the more evenly spaced timestamps
    wins. Both are returned if they are equally even.

    >>> find_date_formats(pd.Series(["30/11/2024", "01/12/2024", "02/12/2024"]))
    ['%d/%m/%Y']
    >>> find_date_formats(pd.Series(["01/02/2024", "01/03/2024"]))
    ['%d/%m/%Y', '%m/%d/%Y']
    >>> find_date_formats(pd.Series([202411, 202412, 202501]))
    ['%Y%m']
    """
    unique = pd.Series(column.dropna().unique()[:_SAMPLE])
    if unique.empty:
        return []
    if pd.api.types.is_integer_dtype(unique):
        return _find_digit_formats(unique)
    if not unique.map(lambda value: isinstance(value, str)).all():
        return []
    if _parse(unique, "ISO8601") is not None:
        return []
    unevenness = {}
    for date_format in (*(day + time for day in _DAYS for time in _TIMES), *_MONTHS):
        timestamps = _parse(unique, date_format)
        if timestamps is not None:
            unevenness[date_format] = _measure_unevenness(timestamps)
    lowest = min(unevenness.values(), default=1.0)
    return [date_format for date_format, value in unevenness.items() if value == lowest]


def has_dates(column: pd.Series) -> bool:
    """
    Return whether a column of text holds dates in a known format.

    >>> has_dates(pd.Series(["2024-01-31"])), has_dates(pd.Series(["31.1.2024"]))
    (True, True)
    >>> has_dates(pd.Series(["2024"])), has_dates(pd.Series([20240131]))
    (False, False)
    """
    if not pd.api.types.is_object_dtype(column) or column.dropna().empty:
        return False
    texts = column.dropna().head(_SAMPLE)
    if not texts.map(lambda value: isinstance(value, str) and len(value) >= 6).all():
        return False
    return _parse(texts, "ISO8601") is not None or bool(find_date_formats(column))


def _find_digit_formats(numbers: pd.Series) -> list[str]:
    """Read integers as days or months of the years 1900 to 2100; other integers are steps."""
    texts = numbers.astype(str)
    lengths = set(texts.str.len())
    date_format = _DIGITS.get(lengths.pop()) if len(lengths) == 1 else None
    if date_format is None:
        return []
    timestamps = _parse(texts, date_format)
    if timestamps is None or not timestamps.dt.year.between(1900, 2100).all():
        return []
    return [date_format]


def _parse(texts: pd.Series, date_format: str) -> pd.Series | None:
    """Return the timestamps in UTC, or None if one of them does not have this format."""
    try:
        return pd.to_datetime(texts, format=date_format, utc=True).dt.tz_localize(None)
    except ValueError:
        return None


def _measure_unevenness(timestamps: pd.Series) -> float:
    """Return the longest gap between timestamps in units of the median gap."""
    gaps = np.diff(np.unique(timestamps.to_numpy()).astype(np.int64))
    return float(gaps.max() / np.median(gaps)) if len(gaps) else 1.0

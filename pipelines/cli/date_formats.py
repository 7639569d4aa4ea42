"""How the dates of a column are written, where they are not ISO 8601."""

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
    The format that all stamps of a column are written in; nothing where none is needed.

    Where the day as well as the month may come first, it is what puts steps at the more even
    distances; both, where they are as even.

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
        return _of_digits(unique)
    if not unique.map(lambda value: isinstance(value, str)).all():
        return []
    if _read(unique, "ISO8601") is not None:
        return []
    fitting = {}
    for how in (*(day + time for day in _DAYS for time in _TIMES), *_MONTHS):
        stamps = _read(unique, how)
        if stamps is not None:
            fitting[how] = _unevenness(stamps)
    return [how for how, uneven in fitting.items() if uneven == min(fitting.values())]


def has_dates(column: pd.Series) -> bool:
    """
    Whether a column of text holds dates in any format that is known here.

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
    return _read(texts, "ISO8601") is not None or bool(find_date_formats(column))


def _of_digits(numbers: pd.Series) -> list[str]:
    """Days and months of 1900 to 2100; other numbers are steps."""
    texts = numbers.astype(str)
    lengths = set(texts.str.len())
    how = _DIGITS.get(lengths.pop(), "") if len(lengths) == 1 else ""
    stamps = _read(texts, how)
    return [how] if stamps is not None and stamps.dt.year.between(1900, 2100).all() else []


def _read(texts: pd.Series, how: str) -> pd.Series | None:
    try:
        return pd.to_datetime(texts, format=how, utc=True).dt.tz_localize(None)
    except ValueError:
        return None


def _unevenness(stamps: pd.Series) -> float:
    gaps = np.diff(np.unique(stamps.to_numpy()).astype(np.int64))
    return float(gaps.max() / np.median(gaps)) if len(gaps) else 1.0

"""
Convert columns to numbers, stamps and names of series.

An error names the series and row of the first value that cannot be converted, and what to write
instead.
"""

import re

import numpy as np
import pandas as pd
from jaxtyping import Float64, Int64

from forecast.data.io import series_name
from forecast.data.locator import Locator
from forecast.errors import BadStamps, MissingValues, WrongType

_ZONE = re.compile(r"\d{1,2}:\d{2}.*?(Z|[+-]\d{2}:?\d{2})$", re.IGNORECASE)
_ISO_HELP = "write ISO 8601 dates such as 2024-01-31 or 2024-01-31T13:00:00"
_ZONE_HELP = (
    "convert them to UTC first: pandas.to_datetime(df[{name!r}], utc=True).dt.tz_localize(None)"
)


def read_names(
    column: pd.Series, place: Locator
) -> tuple[Int64[np.ndarray, " row"], tuple[str, ...]]:
    """
    Return the index of each row's series, and the names of the series in alphabetical order.

    Raises:
        MissingValues: A row has no name.
    """
    codes, unique_values = pd.factorize(column)
    if (codes < 0).any():
        row = int(np.argmax(codes < 0))
        raise MissingValues(
            f"column {column.name!r} is empty in {int((codes < 0).sum()):,} of {len(codes):,} "
            "rows: expected the name of a series",
            where=place.where(row),
            help="fill in the names, or drop these rows",
        )
    names = np.array([series_name(value) for value in unique_values], object)
    # Two values may have the same name: 7 and "7".
    sorted_names, series = np.unique(names, return_inverse=True)
    return series.astype(np.int64)[codes], tuple(sorted_names.tolist())


def read_numbers(column: pd.Series, place: Locator, role: str) -> Float64[np.ndarray, " row"]:
    """
    Return the column as float64, with NaN for missing values.

    Text that spells a number is converted.

    Raises:
        WrongType: A value is not a number.
    """
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(column.cat.categories.dtype)
    dtype = column.dtype
    if pd.api.types.is_bool_dtype(dtype) or pd.api.types.is_numeric_dtype(dtype):
        if not pd.api.types.is_complex_dtype(dtype):
            return column.to_numpy(np.float64, na_value=np.nan)
    elif pd.api.types.is_object_dtype(dtype) or pd.api.types.is_string_dtype(dtype):
        values = pd.to_numeric(column, errors="coerce").to_numpy(np.float64, na_value=np.nan)
        bad = np.flatnonzero(np.isnan(values) & column.notna().to_numpy())
        if not bad.size:
            return values
        found = column.iat[int(bad[0])]
        comma = isinstance(found, str) and re.fullmatch(r"[\d.]+,\d+", found.strip())
        raise WrongType(
            f"{place.series(bad[0])} has {column.name}={found!r}: expected a number for the role "
            f"{role}, found text {place.extent(bad)}",
            where=place.where(bad[0]),
            help='decimal commas? pandas.read_csv(path, decimal=","); commas between thousands? '
            'pandas.read_csv(path, thousands=",")'
            if comma
            else "correct these rows; text can only be a static column",
        )
    raise WrongType(
        f"column {column.name!r} holds {dtype}: expected numbers for the role {role}",
        where=place.where(0),
        help="convert the column to numbers",
    )


def read_stamps(
    column: pd.Series, place: Locator, *, wants_integers: bool
) -> tuple[Int64[np.ndarray, " row"], bool]:
    """
    Return the stamps as int64, and whether they are integer steps.

    Dates become nanoseconds since the epoch in naive UTC.

    Args:
        column: Dates, ISO 8601 text, or integers; all with the same time zone or all without one.
        place: Names rows in messages.
        wants_integers: True if the frequency was declared as an integer; otherwise integers that
            look like dates are refused.

    Raises:
        BadStamps: A stamp cannot be read, or time zones are mixed.
    """
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(column.cat.categories.dtype)
    if isinstance(column.dtype, pd.ArrowDtype):
        column = column.array.__arrow_array__().to_pandas().rename(column.name)
    missing = np.flatnonzero(column.isna().to_numpy())
    if missing.size:
        raise BadStamps(
            f"{place.series(missing[0])} has no {column.name}: expected a stamp, found nothing "
            f"{place.extent(missing)}",
            where=place.where(missing[0]),
            help="fill in the stamps, or drop these rows",
        )
    dtype = column.dtype
    if isinstance(dtype, pd.PeriodDtype):
        column = column.dt.to_timestamp()
    if pd.api.types.is_bool_dtype(dtype):
        raise BadStamps(f"column {column.name!r} holds true and false: expected stamps")
    if pd.api.types.is_numeric_dtype(dtype):
        return _read_integers(column, place, wants_integers), True
    if isinstance(column.dtype, np.dtype) and column.dtype.kind == "M":
        return _to_nanoseconds(column, place), False
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        return _to_nanoseconds(column.dt.tz_convert("UTC").dt.tz_localize(None), place), False
    return _parse_objects(column, place), False


def _read_integers(
    column: pd.Series, place: Locator, wants_integers: bool
) -> Int64[np.ndarray, " row"]:
    values = column.to_numpy(np.float64)
    bad = np.flatnonzero((values != np.floor(values)) | (np.abs(values) > 2**53))
    if bad.size:
        raise BadStamps(
            f"{place.series(bad[0])} has {column.name}={values[bad[0]]:g}: expected whole numbers "
            f"or dates {place.extent(bad)}",
            where=place.where(bad[0]),
            help=_ISO_HELP,
        )
    stamps = column.to_numpy(np.int64)
    advice = "" if wants_integers or not stamps.size else _date_advice(stamps, str(column.name))
    if advice:
        raise BadStamps(
            f"{place.series(0)} has {column.name}={stamps[0]}, which looks like a date "
            "written as a number",
            where=place.where(0),
            help=f"{advice}, or declare an integer freq",
        )
    return stamps


def _date_advice(stamps: Int64[np.ndarray, " row"], name: str) -> str:
    """Say how to read integers that look like dates; return an empty text if they do not."""
    low, high = int(stamps.min()), int(stamps.max())
    last = stamps % 100
    if low > 19_000_000 and high < 21_001_232 and ((last - 1) < 31).all():
        return 'time_format = "%Y%m%d"'
    if low > 190_000 and high < 210_013 and ((last >= 1) & (last <= 12)).all():
        return 'time_format = "%Y%m"'
    unit = "s" if low > 5e8 and high < 5e9 else "ms" if low > 5e11 and high < 5e12 else ""
    return unit and f'pandas.to_datetime(df[{name!r}], unit="{unit}")'


def _to_nanoseconds(column: pd.Series, place: Locator) -> Int64[np.ndarray, " row"]:
    values = column.to_numpy()
    lowest, highest = (np.datetime64(t, "s") for t in ("1678-01-01", "2262-01-01"))
    bad = np.flatnonzero((values < lowest) | (values > highest))
    if bad.size:
        raise BadStamps(
            f"{place.series(bad[0])} has {column.name}={values[bad[0]]}: expected a date between "
            f"1678 and 2261 {place.extent(bad)}",
            where=place.where(bad[0]),
            help="correct these rows",
        )
    return values.astype("datetime64[ns]").astype(np.int64)


def _parse_objects(column: pd.Series, place: Locator) -> Int64[np.ndarray, " row"]:
    """Parse text, dates and Timestamps to nanoseconds; each distinct value is parsed once."""
    codes, unique = pd.factorize(column)
    zones = np.array([_zone(value) for value in unique], object)
    distinct_zones = sorted(set(zones.tolist()))
    if len(distinct_zones) > 1:
        other = int(np.argmax(zones != zones[0]))
        rows = np.flatnonzero(zones[codes] != zones[0])
        raise BadStamps(
            f"{place.series(rows[0])} has {column.name}={str(unique[other])!r}, while the first "
            f"stamp is {str(unique[0])!r}: expected one zone, found {_list_zones(distinct_zones)} "
            f"{place.extent(rows)}",
            where=place.where(rows[0]),
            help=_ZONE_HELP.format(name=str(column.name)),
        )
    parsed = pd.to_datetime(
        pd.Series(unique, dtype=object), format="ISO8601", errors="coerce", utc=True
    )
    failed = parsed.isna().to_numpy()
    if failed.any():
        rows = np.flatnonzero(failed[codes])
        text = str(column.iat[int(rows[0])])
        raise BadStamps(
            f"{place.series(rows[0])} has {column.name}={text!r}: expected an ISO 8601 date "
            f"{place.extent(rows)}",
            where=place.where(rows[0]),
            help=_format_advice(text, str(column.name)),
        )
    naive = parsed.dt.tz_localize(None).to_numpy("datetime64[ns]")
    stamps: Int64[np.ndarray, " unique"] = naive.astype(np.int64)
    return stamps[codes]


def _zone(value: object) -> str:
    """Return the UTC offset of a stamp, or an empty text if it has none."""
    if isinstance(value, str):
        match = _ZONE.search(value.strip())
        return match[1].upper().replace("Z", "+00:00") if match else ""
    offset = getattr(value, "utcoffset", lambda: None)()
    return "" if offset is None else str(offset)


def _list_zones(zones: list[str]) -> str:
    return " and ".join(zone or "no zone" for zone in zones[:3])


def _format_advice(text: str, name: str) -> str:
    """Say how to read a stamp that is not ISO 8601: a quarter, a week, or day and month first."""
    text = text.strip()
    if re.fullmatch(r"\d{4}-?Q[1-4]", text, re.IGNORECASE):
        return f"{_ISO_HELP}; quarters? pandas.PeriodIndex(df[{name!r}], freq='Q').to_timestamp()"
    if re.fullmatch(r"\d{4}-?W\d{1,2}", text, re.IGNORECASE):
        order = "%G-W%V" if "-" in text else "%GW%V"
        return (
            f"{_ISO_HELP}; weeks? "
            f"pandas.to_datetime(df[{name!r}] + '-1', format=\"{order}-%u\") is their Monday"
        )
    time_format = _guess_format(text)
    if not time_format:
        return _ISO_HELP
    return f'{_ISO_HELP}; day, month or year first? time_format = "{time_format}"'


def _guess_format(text: str) -> str:
    """
    Return the format of a date whose year comes last, or an empty text.

    The day comes first if the separator is a point or the first number is above 12.
    """
    match = re.fullmatch(r"(\d{1,2})([./-])(\d{1,2})\2(\d{4}|\d\d)( \d{1,2}:\d\d(:\d\d)?)?", text)
    if not match:
        return ""
    sep = match[2]
    first = f"%d{sep}%m" if sep == "." or int(match[1]) > 12 else f"%m{sep}%d"
    time = "" if not match[5] else " %H:%M:%S" if match[6] else " %H:%M"
    return f"{first}{sep}{'%Y' if len(match[4]) == 4 else '%y'}{time}"

"""
Validation of a long table: sorted, regular series of one frequency, or an error.

Every table that a model learns from or forecasts passes through `validate`. Later code assumes that
series are sorted, regular and finite.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int64

from forecast.calendars.calendar import Calendar
from forecast.calendars.frequency import infer_freq
from forecast.config import DataConfig, Kind
from forecast.data.checks import ABOVE_ZERO, problems, size_problems
from forecast.data.columns import need_columns
from forecast.data.gaps import carry_forward, fill_values, insert_steps, missing_before
from forecast.data.io import read_table
from forecast.data.locator import Locator, quote_some
from forecast.data.long_table import LongTable, read_long_table
from forecast.data.parsing import read_names
from forecast.errors import ConfigError, DataError, MissingSteps, MissingValues, WrongType

MANY_ZEROS = 0.05
"""Smallest share of zeros at which values without a declared kind are taken for counts."""


@dataclass(frozen=True, slots=True)
class CheckedSeries:
    """Sorted, regular series in a long frame, from which `Panel.from_frame` builds a panel."""

    frame: pd.DataFrame
    """`unique_id`, `ds`, `y`, then past-only and known-future covariates; sorted."""
    static: pd.DataFrame | None
    """One row per series, indexed by `unique_id`; columns of numbers or text."""
    calendar: Calendar
    kind: Kind
    data: DataConfig
    """The settings passed in, with `freq`, `kind` and `static` filled in."""
    rows: int
    filled: int
    """Number of values that the fill policy supplied."""
    digest: str
    """SHA-256 of the content; it does not depend on the order of the rows in the table."""


def validate(
    table: Any,
    data: DataConfig,
    *,
    static_df: Any = None,
    to_learn: bool = True,
    last: Mapping[str, float] | None = None,
) -> CheckedSeries:
    """
    Check a long table, sort it and fill its missing steps.

    Args:
        table: A table as `read_table` accepts it, with one row per series and stamp.
        data: Names and roles of the columns, frequency, kind and fill policy.
        static_df: One row per series with `id_col` and the static columns: those of `data.static`,
            or all others. Without it, static columns are taken from `table`.
        to_learn: True if a model will be trained: some series must have two values, and some
            value must change.
        last: Last known value of each series that continues a state. Every other series begins at
            its first value, unless missing values mean zero.

    Raises:
        DataError: The first fault found; the message says which series, where, what was expected,
            what was found and what to do.
        ConfigError: Settings contradict each other.

    >>> months = pd.date_range("2024-01-01", periods=3, freq="MS")
    >>> table = pd.DataFrame({"unique_id": "a", "ds": months, "y": [1.0, 3.0, 2.0]})
    >>> checked = validate(table, DataConfig())
    >>> checked.calendar.freq, checked.kind, checked.rows
    ('MS', 'positive', 3)
    """
    last = last or {}
    frame = read_table(table, data=data)
    _check_roles(data)
    rows = read_long_table(frame, data)
    calendar = _calendar(rows, data)
    for problem in problems(rows, data, calendar):
        raise problem
    static = _static_frame(frame, static_df, rows, data)
    rows, filled = _fill(rows, data, calendar, last)
    for problem in size_problems(rows, data, to_learn=to_learn, continued=last):
        raise problem
    kind = data.kind if data.kind != "auto" else detect_kind(rows.y)
    return CheckedSeries(
        frame=_to_frame(rows),
        static=static,
        calendar=calendar,
        kind=kind,
        data=replace(
            data,
            freq=calendar.freq,
            kind=kind,
            static=data.static if static is None else tuple(static.columns),
        ),
        rows=len(rows.y),
        filled=filled,
        digest=_digest(rows, calendar, static),
    )


def detect_kind(y: Float[np.ndarray, " row"]) -> Kind:
    """
    Detect the kind of values: `real` if one is negative, `count` if zeros are common.

    >>> [detect_kind(np.array(y)) for y in ([1.0, -2.0], [3.0, 0.0, 1.0], [3.0, 4.0])]
    ['real', 'count', 'positive']
    """
    known = y[np.isfinite(y)]
    if (known < 0).any():
        return "real"
    return "count" if len(known) and float((known == 0).mean()) >= MANY_ZEROS else "positive"


def report(table: Any, data: DataConfig) -> dict[str, Any]:
    """
    Summarise a table and list everything that is wrong with it, in plain values for JSON.

    Raises:
        DataError: The table cannot be read as series at all.

    >>> table = {"unique_id": ["a", "a"], "ds": [1, 3], "y": [0.0, 2.0]}
    >>> summary = report(table, DataConfig(freq=1))
    >>> summary["series"], summary["zero_share"], [p["code"] for p in summary["problems"]]
    (1, 0.5, ['data.gap'])
    """
    frame = read_table(table, data=data)
    _check_roles(data)
    rows = read_long_table(frame, data)
    used = {data.id_col, data.time_col, data.target_col, *data.static, *rows.covariates}
    lengths = np.bincount(rows.series, minlength=len(rows.names))
    ends = rows.stamps[np.r_[rows.starts[1:] - 1, len(rows.y) - 1]]
    errors: list[DataError] = []
    freq: str | int | None = data.freq
    first, last = int(np.argmin(rows.stamps)), int(np.argmax(rows.stamps))
    try:
        calendar = _calendar(rows, data)
        freq = calendar.freq
        errors += problems(rows, data, calendar)
        _static_frame(frame, None, rows, data)
    except DataError as error:
        errors.append(error)
    errors += size_problems(rows, data, to_learn=True)
    return {
        "series": len(rows.names),
        "rows": len(rows.y),
        "first": rows.text(first),
        "last": rows.text(last),
        "freq": freq,
        "kind": data.kind if data.kind != "auto" else detect_kind(rows.y),
        "fill": data.fill,
        "zero_share": round(float((rows.y == 0).mean()), 4),
        "shortest": {"unique_id": rows.names[int(lengths.argmin())], "rows": int(lengths.min())},
        "longest": {"unique_id": rows.names[int(lengths.argmax())], "rows": int(lengths.max())},
        "ended_before_last": int((ends < rows.stamps[last]).sum()),
        "unused_columns": [str(name) for name in frame.columns if name not in used],
        "problems": [
            {"code": e.code, "message": e.message, "where": e.where, "help": e.help} for e in errors
        ],
    }


def _check_roles(data: DataConfig) -> None:
    """Refuse a fill policy that the kind forbids, and covariates named like a reserved column."""
    if data.fill == "zero" and data.kind in ABOVE_ZERO:
        raise ConfigError(
            f"fill='zero' would add zeros, which kind={data.kind!r} does not allow",
            help='set fill = "mask" to leave missing steps out of learning, or fill = "forward" to '
            "repeat the last value",
        )
    reserved = {"unique_id": data.id_col, "ds": data.time_col, "y": data.target_col}
    for name in (*data.known_future, *data.past_only):
        if name in reserved:
            raise ConfigError(
                f"a covariate cannot be named {name!r}: the checked frame has {reserved[name]!r} "
                "under that name",
                help="rename the column",
            )


def _calendar(rows: LongTable, data: DataConfig) -> Calendar:
    if data.freq is not None:
        return Calendar(data.freq)
    return Calendar(infer_freq(rows.stamps, rows.new_series, integer=rows.integer))


def _fill(
    rows: LongTable, data: DataConfig, calendar: Calendar, last: Mapping[str, float]
) -> tuple[LongTable, int]:
    """
    Insert the missing steps and fill them by policy.

    Covariates of an inserted step are those of the row before it.

    Returns:
        The filled rows, and how many values the policy supplied.
    """
    if data.fill == "refuse":
        return rows, 0
    if data.fill in ("mask", "forward"):
        rows = _from_first_value(rows, last)
        if not len(rows.y):
            return rows, 0
    new_series = rows.new_series
    previous = np.where(new_series, rows.stamps, np.roll(rows.stamps, 1))
    missing = missing_before(calendar, previous, rows.stamps)
    total = len(missing) + int(missing.sum())
    if total > 20 * len(missing) + 10_000_000:
        raise MissingSteps(
            f"fill={data.fill!r} with freq={calendar.freq!r} would make {total:,} rows of "
            f"{len(missing):,}: expected a frequency near the true one",
            where=rows.where(int(np.argmax(missing))),
            help="declare the true frequency, or aggregate the series first",
        )
    filled = insert_steps(calendar, rows.stamps, missing)
    source = filled.source - filled.inserted  # the row before an inserted step
    y = np.where(filled.inserted, np.nan, rows.y[source])
    unknown = np.isnan(y)
    if data.fill == "forward":
        first = new_series[source] & ~filled.inserted
        # Only a series that continues a state may still begin without a value.
        for row in np.flatnonzero(first & unknown).tolist():
            y[row] = last[rows.names[rows.series[source[row]]]]
        y = carry_forward(y)
    if data.fill != "mask":  # NaN keeps its bytes, over which the digest is computed
        y[unknown] = fill_values(data.fill, y[unknown])
    return replace(
        rows,
        series=rows.series[source],
        stamps=filled.stamps,
        y=y,
        covariates={name: values[source] for name, values in rows.covariates.items()},
        origin=rows.origin[source],
    ), int(unknown.sum())


def _from_first_value(rows: LongTable, last: Mapping[str, float]) -> LongTable:
    """Drop the rows before the first value of each series that is not in `last`."""
    known = np.flatnonzero(~np.isnan(rows.y))
    begin = np.full(len(rows.names), len(rows.y))
    np.minimum.at(begin, rows.series[known], known)
    begin[[name in last for name in rows.names]] = 0
    return rows.take(np.flatnonzero(np.arange(len(rows.y)) >= begin[rows.series]))


def _static_frame(
    frame: pd.DataFrame, static_df: Any, rows: LongTable, data: DataConfig
) -> pd.DataFrame | None:
    """Return one row of static columns per series, from `static_df` or else from the table."""
    if static_df is None:
        if not data.static:
            return None
        need_columns(frame, data, ("static",))
        table, columns, place = frame, data.static, rows.place
        codes = np.empty(len(frame), np.int64)
        codes[rows.origin] = rows.series
    else:
        table = read_table(static_df, data=data)
        if data.id_col not in table.columns and table.index.name == data.id_col:
            table = table.reset_index()
        need_columns(table, data, ("id_col", "static"), label="static_df")
        columns = data.static or tuple(str(c) for c in table.columns if c != data.id_col)
        static_series, names = read_names(
            table[data.id_col], Locator(table, data.id_col, "static_df")
        )
        codes = pd.Index(rows.names).get_indexer(pd.Index(names))[static_series]
        missing = np.setdiff1d(np.arange(len(rows.names)), codes)
        if missing.size:
            raise MissingValues(
                f"series {rows.names[missing[0]]!r} has no row in static_df: expected one for each "
                f"series ({len(missing):,} of {len(rows.names):,} series: "
                f"{quote_some([rows.names[i] for i in missing])})",
                where="static_df",
                help="add these series, or leave them out of the table",
            )
        table, codes = table[codes >= 0], codes[codes >= 0]  # series that the table has
        place = Locator(table, data.id_col, "static_df")
    return pd.DataFrame(
        {name: _static_column(table[name], codes, len(rows.names), place) for name in columns},
        index=pd.Index(rows.names, name="unique_id"),
    )


def _static_column(
    column: pd.Series, codes: Int64[np.ndarray, " row"], count: int, place: Locator
) -> np.ndarray:
    """
    Return the value of a static column for each of `count` series.

    Raises:
        MissingValues: A row has no value.
        WrongType: A series has two values.
    """
    levels, values = pd.factorize(column)
    if (levels < 0).any():
        bad = np.flatnonzero(levels < 0)
        raise MissingValues(
            f"{place.series(bad[0])} has no {column.name} (static): expected one value per "
            f"series, found NaN {place.extent(bad)}",
            where=place.where(bad[0]),
            help='fill the column first; for text, use a word such as "unknown"',
        )
    chosen = np.zeros(count, np.int64)
    chosen[codes] = levels
    differs = np.flatnonzero(chosen[codes] != levels)
    if differs.size:
        row = int(differs[0])
        raise WrongType(
            f"{place.series(row)} has {column.name}={column.iat[row]!r} and "
            f"{values[chosen[codes[row]]]!r}: expected one value per series, since the column "
            f"is static {place.extent(differs)}",
            where=place.where(row),
            help="declare it known_future or past_only if it changes over time, or correct it",
        )
    numeric = pd.api.types.is_numeric_dtype(column.dtype) or column.dtype == bool
    by_series = np.asarray(values)[chosen]
    if numeric:
        return by_series.astype(np.float64)
    return np.array([str(value) for value in by_series], object)


def _to_frame(rows: LongTable) -> pd.DataFrame:
    stamps = rows.stamps if rows.integer else rows.stamps.view("datetime64[ns]")
    names = np.array(rows.names, object)[rows.series]
    columns = {"unique_id": names, "ds": stamps, "y": rows.y, **rows.covariates}
    return pd.DataFrame(columns, copy=False)


def _digest(rows: LongTable, calendar: Calendar, static: pd.DataFrame | None) -> str:
    """Hash the frequency, the names and the bytes of all arrays."""
    lengths = np.bincount(rows.series, minlength=len(rows.names))
    header: dict[str, object] = {
        "freq": calendar.freq,
        "ids": rows.names,
        "covariates": list(rows.covariates),
    }
    if static is not None:
        header["static"] = static.reset_index().to_dict("list")
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for values in (lengths, rows.stamps, rows.y, *rows.covariates.values()):
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()

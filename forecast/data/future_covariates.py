"""Known-future covariates: separation from the history, and a check that they cover the horizon."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float64, Int64

from forecast.calendars.calendar import Calendar
from forecast.config import DataConfig
from forecast.data.columns import need_columns
from forecast.data.io import read_table
from forecast.data.locator import Locator, quote_some
from forecast.data.parsing import read_names, read_numbers, read_stamps
from forecast.errors import DuplicateStamps, MissingFuture, TooShort


def read_history(
    source: Any, data: DataConfig, *, query: str | None = None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """
    Read a table and split it into the history and the rows after it, which have covariates only.

    Args:
        source: A table as `read_table` accepts it.
        data: Names of the columns. Without `known_future` all rows are history.
        query: SQL, if `source` is a database.
    """
    table = read_table(source, query=query, data=data)
    return split_future(table, data) if data.known_future else (table, table.iloc[:0])


def split_future(table: pd.DataFrame, data: DataConfig) -> tuple[pd.DataFrame, pd.DataFrame]:
    """
    Split a table into the rows up to each series' last known `y` and the rows after it.

    With `fill="zero"` a series may end in missing values that mean zero. The future then begins
    after the last known `y` of all series.

    Raises:
        TooShort: No row has a value.

    >>> table = pd.DataFrame({"unique_id": "a", "ds": [1, 2, 3], "y": [5.0, 6.0, np.nan]})
    >>> [part["ds"].tolist() for part in split_future(table, DataConfig())]
    [[1, 2], [3]]
    """
    columns = (data.id_col, data.time_col, data.target_col)
    if not set(columns) <= set(table.columns) or not table[data.target_col].isna().any():
        return table, table.iloc[:0]
    known = table[data.target_col].notna()
    if not known.any():
        raise TooShort(
            f"no row has a value in {data.target_col!r}",
            help="give the history of each series, not only its future",
        )
    ids, stamps = table[data.id_col], table[data.time_col]
    last = stamps[known].groupby(ids[known]).max()
    end = last.max() if data.fill == "zero" else ids.map(last)
    future = (stamps > end).to_numpy(dtype=bool)
    past = table[~future]
    past.attrs = dict(table.attrs)
    return past, table[future]


def check_future(
    futr_df: Any,
    *,
    ids: Sequence[str],
    last_ds: Int64[np.ndarray, " series"],
    horizon: int,
    calendar: Calendar,
    columns: tuple[str, ...],
    data: DataConfig,
) -> Float64[np.ndarray, "series horizon covariate"]:
    """
    Return the known-future covariates of the `horizon` steps after `last_ds`.

    Series are in the order of `ids`. Rows of other series and stamps are ignored. Without `columns`
    no table is needed.

    Raises:
        MissingFuture: A step of a series, or one of its values, is missing.
        MissingColumns, WrongType, BadStamps, DuplicateStamps: The table cannot be read.

    >>> futr = {"unique_id": ["a", "a"], "ds": [4, 5], "price": [2.0, 3.0]}
    >>> check_future(futr, ids=["a"], last_ds=np.array([3]), horizon=2, calendar=Calendar(1),
    ...              columns=("price",), data=DataConfig()).tolist()
    [[[2.0], [3.0]]]
    """
    values = np.full((len(ids), horizon, len(columns)), np.nan)
    if not columns:
        return values
    if futr_df is None:
        raise MissingFuture(
            f"no future covariates were given: expected {quote_some(columns)} for {horizon} steps "
            f"after the last stamp of each of {len(ids):,} series",
            help=f"give {data.id_col}, {data.time_col}, {', '.join(columns)} for those steps: "
            "futr_df in Python, --future FILE on the command line, futr over HTTP",
        )
    frame = read_table(futr_df, data=data)
    need_columns(
        frame,
        replace(data, known_future=columns),
        ("id_col", "time_col", "known_future"),
        label="futr_df",
    )
    present = np.zeros((len(ids), horizon), bool)
    off_grid = ""
    if len(frame):
        place = Locator(frame, data.id_col, "futr_df")
        codes, names = read_names(frame[data.id_col], place)
        stamps, integer = read_stamps(
            frame[data.time_col], place, wants_integers=calendar.is_integer
        )
        if integer != calendar.is_integer:
            raise MissingFuture(
                f"futr_df has {data.time_col}={frame[data.time_col].iloc[0]}: expected "
                f"{'integers' if calendar.is_integer else 'dates'}, as in training",
                where=place.where(0),
                help=f"convert the column {data.time_col!r}",
            )
        series = pd.Index(ids).get_indexer(pd.Index(names))[codes]
        step, phase, valid = calendar.locate(stamps)
        last_step, last_phase, _ = calendar.locate(np.asarray(last_ds, np.int64))
        known = series >= 0
        ahead = step - last_step[series]
        fits = known & valid & (phase == last_phase[series])
        if (known & ~fits).any():
            off_grid = calendar.text(stamps[known & ~fits][0])
        rows = np.flatnonzero(fits & (ahead >= 1) & (ahead <= horizon))
        cell = series[rows] * horizon + ahead[rows] - 1
        if len(np.unique(cell)) < len(cell):
            order = np.argsort(cell, kind="stable")
            row = rows[order[1:][np.diff(cell[order]) == 0][0]]
            raise DuplicateStamps(
                f"{place.series(row)} has {calendar.text(stamps[row])} twice in the future "
                "covariates: expected one row per stamp",
                where=place.where(row),
                help=f"df.drop_duplicates([{data.id_col!r}, {data.time_col!r}])",
            )
        present.flat[cell] = True
        for i, name in enumerate(columns):
            numbers = read_numbers(frame[name], place, "known_future")
            values[series[rows], ahead[rows] - 1, i] = numbers[rows]
    if not np.isfinite(values).all():
        raise _missing_future(values, present, ids, last_ds, calendar, columns, data, off_grid)
    return values


def _missing_future(
    values: Float64[np.ndarray, "series horizon covariate"],
    present: Bool[np.ndarray, "series horizon"],
    ids: Sequence[str],
    last_ds: Int64[np.ndarray, " series"],
    calendar: Calendar,
    columns: tuple[str, ...],
    data: DataConfig,
    off_grid: str,
) -> MissingFuture:
    """
    Return the error for steps with missing values, naming the first one.

    Args:
        values: The values found; NaN where there is none.
        present: True for each step that has a row.
        ids: Names of the series.
        last_ds: Last stamp of each series.
        calendar: Calendar of the stamps.
        columns: Names of the covariates.
        data: Names of the other columns.
        off_grid: A stamp that is not a step of its series; empty if there is none.
    """
    missing = ~np.isfinite(values).all(axis=2)
    i, j = np.argwhere(missing)[0].tolist()
    horizon = values.shape[1]
    stamp = calendar.text(calendar.after(np.asarray(last_ds[i : i + 1]), horizon)[0, j])
    absent = [columns[k] for k in np.flatnonzero(~np.isfinite(values[i, j]))]
    series = quote_some([str(ids[k]) for k in np.flatnonzero(missing.any(axis=1)).tolist()])
    reason = "found NaN" if present[i, j] else "found no row"
    if off_grid and not present[i, j]:
        reason += f" (but {off_grid}, which is not a step of freq={calendar.freq!r} after it)"
    count = int(missing.sum())
    return MissingFuture(
        f"series {str(ids[i])!r} has no future {quote_some(absent)} at {stamp}, step {j + 1} of "
        f"{horizon}: expected a number, {reason} ({count:,} step{'s' if count > 1 else ''} in "
        f"{missing.any(axis=1).sum():,} of {len(ids):,} series: {series})",
        where="futr_df",
        help=f"give {', '.join(columns)} for the {horizon} steps after "
        f"{calendar.text(last_ds[i])}, one row per {data.id_col} and {data.time_col}, or ask for "
        "a shorter horizon",
    )

"""
Backtest tables: checks, numbered windows, and the scales of their errors.

A backtest table has one row a forecast step: `unique_id`, `ds`, `y`, a column a model and columns
for its intervals, and `cutoff` if there is more than one. A *window* is one series at one cutoff.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Float

from forecast.errors import MissingColumns, MissingValues

Level = int | float
"""A central interval in percent: 80 lies between the quantiles 0.1 and 0.9."""


def number_windows(
    cv: pd.DataFrame, models: Sequence[str], levels: Sequence[Level] = ()
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """
    Number the windows of a backtest table.

    Returns:
        The observed rows, with the window's number as `unique_id`, the step ahead (from 1) as
        `horizon`, and without `cutoff`; and one row a window, in the order of first appearance,
        with `unique_id`, `cutoff` if there is one, and `start`, the stamp of the first step.

    Raises:
        MissingColumns: A key or the column of a model is missing.
        MissingValues: A forecast is NaN or infinite.
    """
    observed_rows(cv, models, levels)  # for its checks: windows without a value keep a number
    keys = ["unique_id", "cutoff"] if "cutoff" in cv.columns else ["unique_id"]
    groups = cv.groupby(keys, sort=False, observed=True)
    windows = groups["ds"].min().rename("start").reset_index()
    number = groups.ngroup()
    table = cv.drop(columns="cutoff", errors="ignore").assign(unique_id=number)
    table = table.iloc[np.lexsort((cv["ds"], number))]
    table = table.assign(horizon=table.groupby("unique_id").cumcount() + 1)
    return table[table["y"].notna()], windows


def seasonal_scales(
    windows: pd.DataFrame, history: pd.DataFrame, season_length: int
) -> Float[np.ndarray, " window"]:
    """
    Return the mean absolute seasonal difference of each window's history, in the unit of `y`.

    The history of a window ends at its cutoff or, without one, before its first step. Steps
    without a value are left out. The scale is NaN where it would be 0 or no difference is known.
    """
    check_columns(history, ("unique_id", "ds", "y"))
    codes, names = pd.factorize(history["unique_id"].astype(str))
    stamps, y = history["ds"].to_numpy(), history["y"].to_numpy(dtype=np.float64)
    order = np.lexsort((stamps, codes))
    stamps, y = stamps[order], y[order]
    begins = np.searchsorted(codes[order], np.arange(len(names) + 1))
    change = np.full(len(y), np.nan)
    change[season_length:] = np.abs(y[season_length:] - y[: max(len(y) - season_length, 0)])

    bounds = windows["cutoff" if "cutoff" in windows else "start"].to_numpy()
    side: Literal["left", "right"] = "right" if "cutoff" in windows else "left"
    series = pd.Index(names).get_indexer(windows["unique_id"].astype(str))
    scale = np.full(len(windows), np.nan)
    for window in np.flatnonzero(series >= 0):
        begin, end = begins[series[window]], begins[series[window] + 1]
        stop = begin + np.searchsorted(stamps[begin:end], bounds[window], side=side)
        steps = change[begin + season_length : stop]
        steps = steps[~np.isnan(steps)]
        if steps.any():
            scale[window] = steps.mean()
    return scale


def scale_table(table: pd.DataFrame, scale: Float[np.ndarray, " window"]) -> pd.DataFrame:
    """Divide values, forecasts and interval ends by the scale of their window."""
    keys = ["unique_id", "ds", "horizon"]
    numbers = table.select_dtypes("number").columns.difference(keys)
    divisor = scale[table["unique_id"].to_numpy()]
    return table.assign(**{name: table[name].to_numpy() / divisor for name in numbers})


def name_windows(scores: pd.DataFrame, windows: pd.DataFrame) -> pd.DataFrame:
    """Replace the numbers of the windows by the names of their series and by their cutoffs."""
    scores = scores.set_index("unique_id").reindex(windows.index)
    return pd.concat([windows.drop(columns="start"), scores], axis=1)


def interval_columns(model: str, level: Level) -> tuple[str, str]:
    """
    Return the names of the columns with the ends of an interval.

    >>> interval_columns("statecast", 80.0)
    ('statecast-lo-80', 'statecast-hi-80')
    """
    return f"{model}-lo-{level:g}", f"{model}-hi-{level:g}"


def check_columns(frame: pd.DataFrame, names: Sequence[str]) -> None:
    """Raise `MissingColumns` if a table lacks one of the columns."""
    missing = [name for name in names if name not in frame.columns]
    if missing:
        raise MissingColumns(
            f"column {missing[0]!r} is not in the table to score; it has "
            + ", ".join(repr(str(c)) for c in frame.columns),
            help="name the models and levels that were forecast, or forecast these too",
        )


def observed_rows(
    cv: pd.DataFrame, models: Sequence[str], levels: Sequence[Level] = ()
) -> pd.DataFrame:
    """
    Return the rows of a backtest table whose `y` is known.

    Raises:
        MissingColumns: A key or the column of a model is missing.
        MissingValues: A forecast, or the end of an interval that has columns, is NaN or infinite.
    """
    check_columns(cv, ("unique_id", "ds", "y", *models))
    ends = [name for m in models for level in levels for name in interval_columns(m, level)]
    for name in [*models, *(end for end in ends if end in cv.columns)]:
        bad = ~np.isfinite(cv[name].to_numpy(dtype=np.float64))
        if bad.any():
            row = cv.iloc[int(np.argmax(bad))]
            raise MissingValues(
                f"{int(bad.sum())} of {len(cv)} forecasts of {name!r} are NaN or infinite",
                where=f"series {row['unique_id']!r}, {row['ds']}",
                help="leaving them out would flatter the model; repair it or leave it out",
            )
    return cv[cv["y"].notna()]

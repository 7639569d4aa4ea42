"""
A data set cut at one cutoff, and how a set's table is read, laid out and cut.

Every model of a benchmark gets the same frames: missing steps are rows and covariates have no NaN.
The function that reads a set decides what a gap in it means.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.records import note


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A data set cut in two. The frames are sorted by `unique_id` and `ds`."""

    name: str
    train: pd.DataFrame
    """`unique_id`, `ds`, `y` and covariates: everything that may be known at the cutoff."""
    test: pd.DataFrame
    """`unique_id`, `ds`, `y` (for scoring only, NaN where unknown), known-future covariates."""
    freq: str | int
    """A pandas offset, or 1 if stamps are integers."""
    horizon: int
    """Number of steps of each series in `test`."""
    season_length: int
    """Season length of MASE and of the statistical baselines, in steps."""
    seasons: tuple[int, ...] | None = None
    """Season lengths to give to models if stamps are integers; None means those of `freq`."""
    known_future: tuple[str, ...] = ()
    """Names of covariates that have no NaN in `train` or `test`."""
    past_only: tuple[str, ...] = ()
    static: pd.DataFrame | None = None
    """`unique_id` and static covariates, one row per series."""
    fill: str = "refuse"
    """Meaning of a row of `train` without `y`, as in `DataConfig.fill`."""


def read(path: Path, columns: list[str]) -> pd.DataFrame:
    """Return a Parquet file sorted, with dates in nanoseconds and `y` in float64."""
    frame = pd.read_parquet(path, columns=columns)
    frame = frame.sort_values(["unique_id", "ds"], ignore_index=True)
    integer = pd.api.types.is_integer_dtype(frame["ds"])
    return frame.astype({"y": np.float64, "ds": np.int64 if integer else "datetime64[ns]"})


def select_rows(name: str, frame: pd.DataFrame, mask: "pd.Series[bool]") -> pd.DataFrame:
    """Return the rows where `mask` holds, and note how many series remain."""
    selected = frame[mask].reset_index(drop=True)
    before, after = frame["unique_id"].nunique(), selected["unique_id"].nunique()
    note(f"{name}: {after:,} of {before:,} series kept")
    return selected


def insert_missing_steps(frame: pd.DataFrame, step: np.timedelta64 | np.int64) -> pd.DataFrame:
    """Return a row for each step from a series' first to the last of the set; new ones are NaN."""
    first = frame.groupby("unique_id", sort=True)["ds"].min()
    lengths = (frame["ds"].to_numpy().max() - first.to_numpy()) // step + 1
    offset = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    rows = pd.DataFrame(
        {
            "unique_id": np.repeat(first.index.to_numpy(object), lengths),
            "ds": np.repeat(first.to_numpy(), lengths) + offset * step,
        }
    )
    return rows.merge(frame, how="left", on=["unique_id", "ds"], validate="1:1")


def make_case(
    name: str,
    frame: pd.DataFrame,
    *,
    freq: str | int,
    horizon: int,
    season_length: int,
    seasons: tuple[int, ...] | None = None,
    known_future: tuple[str, ...] = (),
    static: pd.DataFrame | None = None,
    fill: str = "refuse",
) -> Case:
    """Return a whole set as a case that is not cut yet: its `test` is empty."""
    columns = ["unique_id", "ds", "y", *known_future]
    frame = frame[columns].astype(dict.fromkeys(known_future, np.float32))
    return Case(
        name=name,
        train=frame,
        test=frame.iloc[:0],
        freq=freq,
        horizon=horizon,
        season_length=season_length,
        seasons=seasons,
        known_future=known_future,
        static=static,
        fill=fill,
    )


def cut(case: Case, *, val: bool) -> Case:
    """
    Hold out the last horizon, or with `val` the one before it.

    Series with less than a season before the cutoff are left out. If a missing step means that
    nothing was sold (`fill="zero"`), missing and negative values are 0 in the training part; the
    test keeps the values of the source.
    """
    frame, held_out = case.train, case.horizon * (1 + val)
    size = frame.groupby("unique_id", sort=False)["y"].transform("size")
    if (size <= held_out + case.season_length).any():
        frame = select_rows(case.name, frame, size > held_out + case.season_length)
    steps_left = frame.groupby("unique_id", sort=False).cumcount(ascending=False)
    in_test = (steps_left >= held_out - case.horizon) & (steps_left < held_out)
    test = frame[in_test].reset_index(drop=True)
    train = frame[steps_left >= held_out].reset_index(drop=True)
    if case.fill == "zero":
        train["y"] = train["y"].fillna(0.0).clip(lower=0.0)
    static = case.static
    if static is not None:
        static = static[static["unique_id"].isin(train["unique_id"].unique())]
        static = static.sort_values("unique_id", ignore_index=True)
    return replace(case, train=train, test=test, static=static)

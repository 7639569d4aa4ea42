"""The M5 competition as a case: unit sales with prices, events and food stamp days."""

from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.accuracy.cases import Case

EVENT_TYPES = ("Sporting", "Cultural", "National", "Religious")
STATES = ("CA", "TX", "WI")


def read_m5(folder: Path, *, val: bool) -> Case:
    """
    Read unit sales of 30,490 series (3,049 items in ten stores), cut at the official test.

    `train` has the last 447 days, `test` the 28 after them; with `val` the cutoff is 28 days
    earlier. Known ahead are the price, the food stamp (SNAP) days of the store's state, the four
    types of event, the days around a national event, and Christmas, when all stores are closed. The
    item is not a static covariate, because 3,049 categories say little about each.
    """
    static = pd.read_parquet(folder / "static.parquet").sort_values("unique_id")
    dates = _read_dates(pd.read_parquet(folder / "calendar.parquet"))
    path = folder / "train.parquet"
    cutoff = pd.Timestamp("2016-04-24" if val else "2016-05-22")
    train = _read_sales(path, [("ds", "<=", cutoff)], static, dates)
    test_path = path if val else folder / "test.parquet"
    test = _read_sales(test_path, [("ds", ">", cutoff)], static, dates)
    columns = ["unique_id", "dept_id", "store_id", "cat_id", "state_id"]
    return Case(
        name="m5",
        train=train,
        test=test,
        freq="D",
        horizon=28,
        season_length=7,
        known_future=tuple(train.columns[3:]),
        fill="zero",
        static=static[columns].reset_index(drop=True),
    )


def _read_dates(calendar: pd.DataFrame) -> pd.DataFrame:
    """Return the covariates of each date: events, the days around them, and SNAP by state."""
    types = calendar[["event_type_1", "event_type_2"]]
    dates = {f"event_{kind.lower()}": (types == kind).any(axis=1) for kind in EVENT_TYPES}
    national = dates["event_national"]
    dates["before_national"] = national.shift(-1, fill_value=False)
    dates["after_national"] = national.shift(1, fill_value=False)
    dates["closed"] = calendar["event_name_1"] == "Christmas"
    for state in STATES:
        dates[f"snap_{state}"] = calendar[f"snap_{state}"]
    return pd.DataFrame(dates).astype(np.float32).set_index(calendar["ds"])


def _read_sales(
    path: Path,
    filters: list[tuple[str, str, pd.Timestamp]],
    static: pd.DataFrame,
    dates: pd.DataFrame,
) -> pd.DataFrame:
    """Read sales with their covariates; the rows of a series share one string object as its id."""
    frame = pd.read_parquet(path, filters=filters)
    ids, ds = frame["unique_id"].to_numpy(), frame["ds"].to_numpy()
    starts = np.flatnonzero(np.r_[True, ids[1:] != ids[:-1]])
    lengths = np.diff(np.r_[starts, len(ids)])
    names = ids[starts].astype(str).astype(object)
    if not (names == static["unique_id"].to_numpy()).all():
        raise SystemExit(f"{path} is not in the order of static.parquet")
    date = dates.index.get_indexer(pd.Index(ds))
    columns = {
        "unique_id": np.repeat(names, lengths),
        "ds": ds.astype("datetime64[ns]"),
        "y": frame["y"].to_numpy(np.float32),
        "log_price": np.log(frame["sell_price"].to_numpy(np.float32)),
    }
    snap = [f"snap_{state}" for state in STATES]
    state = pd.Index(snap).get_indexer(pd.Index("snap_" + static["state_id"]))
    columns["snap"] = dates[snap].to_numpy()[date, np.repeat(state, lengths)]
    for name in dates.columns.difference(snap, sort=False):
        columns[name] = dates[name].to_numpy()[date]
    return pd.DataFrame(columns, copy=False)

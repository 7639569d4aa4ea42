"""
Sets of sales and demand, each read whole and not yet cut.

Prices and markdowns enter as logarithms (`log_price`); a column of 0 and 1 says that something
holds on that step.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from dateutil.easter import easter  # type: ignore[import-untyped]

from benchmarks.accuracy.cases import Case, insert_missing_steps, make_case, read, select_rows

MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sept", "Oct", "Nov", "Dec")


def _aus_retail(folder: Path) -> Case:
    """Read monthly retail turnover by state and industry; series end at different months."""
    frame = read(folder / "aus_retail.parquet", ["unique_id", "ds", "y"])
    return make_case("aus_retail", frame, freq="MS", horizon=18, season_length=12)


def _pbs(folder: Path) -> Case:
    """Read monthly prescriptions by concession, type and drug group; a tenth of them are 0."""
    frame = read(folder / "pbs.parquet", ["unique_id", "ds", "y"])
    return make_case("pbs", frame, freq="MS", horizon=12, season_length=12)


def _carparts(folder: Path) -> Case:
    """Read monthly sales of car parts, mostly 0; leave out parts without a value at the end."""
    frame = read(folder / "carparts.parquet", ["unique_id", "ds", "y"])
    last = frame.groupby("unique_id")["y"].transform("last", skipna=False)
    frame = select_rows("carparts", frame, last.notna())
    return make_case("carparts", frame, freq="MS", horizon=12, season_length=12, fill="mask")


def _hospital(folder: Path) -> Case:
    """Read monthly patients by product or department, complete and all of one length."""
    frame = read(folder / "hospital.parquet", ["unique_id", "ds", "y"])
    return make_case("hospital", frame, freq="MS", horizon=12, season_length=12)


def _walmart_weekly(folder: Path) -> Case:
    """
    Read weekly sales by store and department, with a horizon of 39 weeks.

    A week without a row sold nothing: it is 0 in training and not scored in the test. A week with
    more returns than sales counts as 0 in training (0.3 % of rows) and keeps its value in the test.
    Known ahead are the four holidays, Easter and the store's own markdowns (none before November
    2011). Weather, fuel prices, consumer prices and unemployment are not known ahead and are left
    out, as are series that end early.
    """
    markdowns = [f"markdown{i}" for i in range(1, 6)]
    frame = read(
        folder / "train.parquet",
        ["unique_id", "ds", "y", "is_holiday", "store_size", "store_type", *markdowns],
    )
    end = frame.groupby("unique_id")["ds"].transform("max")
    frame = select_rows("walmart_weekly", frame, end == frame["ds"].max())
    frame["store"] = frame["unique_id"].str.slice(0, 3)
    frame["dept"] = frame["unique_id"].str.slice(4)
    static = frame.groupby("unique_id", as_index=False)[
        ["store", "dept", "store_type", "store_size"]
    ].first()
    weeks = frame.groupby(["store", "ds"], as_index=False)[["is_holiday", *markdowns]].first()

    grid = insert_missing_steps(frame[["unique_id", "ds", "y"]], np.timedelta64(7, "D"))
    grid = grid.merge(static[["unique_id", "store"]]).merge(weeks, how="left", on=["store", "ds"])
    holidays = frame.loc[frame["is_holiday"], "ds"].unique()
    grid["is_holiday"] = grid["ds"].isin(holidays)
    for name, month in (("super_bowl", 2), ("thanksgiving", 11), ("christmas", 12)):
        grid[name] = grid["is_holiday"] & (grid["ds"].dt.month == month)
    years = range(frame["ds"].dt.year.min(), frame["ds"].dt.year.max() + 1)
    sundays = pd.to_datetime([easter(year) for year in years]).to_series()
    fridays = sundays + pd.offsets.Week(weekday=4)  # a week is named by the Friday on which it ends
    grid["easter_before"] = grid["ds"].isin(fridays - pd.Timedelta(weeks=1))
    grid["easter_after"] = grid["ds"].isin(fridays)
    for markdown in markdowns:
        grid[f"log_{markdown}"] = np.log1p(grid[markdown].fillna(0.0).clip(lower=0.0))
    known_future = (
        "is_holiday",
        "super_bowl",
        "thanksgiving",
        "christmas",
        "easter_before",
        "easter_after",
        *(f"log_{markdown}" for markdown in markdowns),
    )
    return make_case(
        "walmart_weekly",
        grid,
        freq="W-FRI",
        horizon=39,
        season_length=52,
        known_future=known_future,
        static=static,
        fill="zero",
    )


def _rossmann(folder: Path) -> Case:
    """
    Read daily sales by store up to the last day of the set, with a horizon of 48 days.

    The file has open days only: on a day without a row the store was closed and sold 0. Covariates
    of a closed day come from the stores open on it: `promo` is the same for all stores on a date,
    and `state_holiday` is 1 if any of them has one. Both are 0 if all stores are closed;
    `school_holiday` is 0 on any closed day. `promo2` is 1 in the months in which the store takes
    part in a round of the continuing promotion. `customers` is not known ahead and left out.
    """
    columns = ["unique_id", "ds", "y", "promo", "school_holiday", "state_holiday"]
    frame = read(folder / "rossmann.parquet", columns)
    frame["state_holiday"] = (frame["state_holiday"] != "0").astype(np.float32)
    dates = frame.groupby("ds")[["promo", "state_holiday"]].max()
    stores = pd.read_parquet(folder / "stores.parquet")

    grid = insert_missing_steps(frame, np.timedelta64(1, "D"))
    grid["open"] = grid["y"].notna()
    grid["y"] = grid["y"].fillna(0.0)  # in the test too, because a closed store sells nothing
    grid["promo"] = grid["ds"].map(dates["promo"])
    grid["state_holiday"] = grid["state_holiday"].fillna(grid["ds"].map(dates["state_holiday"]))
    flags = ["promo", "state_holiday", "school_holiday"]
    grid[flags] = grid[flags].fillna(0.0)
    grid["promo2"] = _promo2(grid, stores)

    distance = stores["competition_distance"]
    stores["log_competition_distance"] = np.log1p(distance.fillna(distance.max()))
    static = stores[["unique_id", "store_type", "assortment", "log_competition_distance"]]
    return make_case(
        "rossmann",
        grid,
        freq="D",
        horizon=48,
        season_length=7,
        fill="zero",
        known_future=("open", "promo", "school_holiday", "state_holiday", "promo2"),
        static=static,
    )


def _promo2(grid: pd.DataFrame, stores: pd.DataFrame) -> np.ndarray:
    """Return where a store has joined the promotion and the month is one of its rounds."""
    members = stores[stores["promo2"] == 1]
    year = members["promo2_since_year"].astype(int).astype(str)
    week = members["promo2_since_week"].astype(int).astype(str)
    first_day = pd.to_datetime(year + "-" + week + "-1", format="%G-%V-%u")
    months = np.array(
        [[month in text.split(",") for month in MONTHS] for text in members["promo_interval"]]
    )
    row = pd.Index(members["unique_id"]).get_indexer(grid["unique_id"])
    joined = grid["ds"].to_numpy() >= first_day.to_numpy()[row]
    return np.asarray((row >= 0) & joined & months[row, grid["ds"].dt.month.to_numpy() - 1])


def _orange_juice(folder: Path) -> Case:
    """
    Read weekly units of eleven brands in 83 stores, by week number, with a horizon of 8 weeks.

    A missing week is unobserved, not 0. It has the prices of the week before, and neither a deal
    nor a feature. Profit is not known ahead and left out.
    """
    prices = ["price", "price_min_other", "price_mean_other"]
    frame = read(
        folder / "orange_juice.parquet",
        ["unique_id", "ds", "y", *prices, "deal", "feat", "store", "brand"],
    )
    static = frame.groupby("unique_id", as_index=False)[["store", "brand"]].first()
    static = static.astype({"store": str, "brand": str})
    grid = insert_missing_steps(
        frame[["unique_id", "ds", "y", *prices, "deal", "feat"]], np.int64(1)
    )
    filled = grid.groupby("unique_id", sort=False)[prices].ffill()
    for price in prices:
        grid[f"log_{price}"] = np.log(filled[price])
    grid[["deal", "feat"]] = grid[["deal", "feat"]].fillna(0.0)
    return make_case(
        "orange_juice",
        grid,
        freq=1,
        horizon=8,
        season_length=52,
        seasons=(52,),
        known_future=(*(f"log_{price}" for price in prices), "deal", "feat"),
        static=static,
        fill="mask",
    )


SETS: dict[str, Callable[[Path], Case]] = {
    "aus_retail": _aus_retail,
    "pbs": _pbs,
    "carparts": _carparts,
    "hospital": _hospital,
    "walmart_weekly": _walmart_weekly,
    "rossmann": _rossmann,
    "orange_juice": _orange_juice,
}
"""A function for each set, which reads it from its folder."""

"""
The data sets of the benchmarks, each cut at one cutoff: what may be known, and what came after.

    case = load("rossmann", Path("DATA"))

Every model of a benchmark gets the same frames: missing steps are rows, covariates have no NaN, and
what a gap means is decided here, by set, in the function that reads it. `val=True` cuts the last
horizon of the training part off and tests on that: for choices. The test is for the final number.

Prices and markdowns enter as logarithms (`log_price`); a column of 0 and 1 says that something
holds on that step.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from dateutil.easter import easter  # type: ignore[import-untyped]

from benchmarks.accuracy import m4
from benchmarks.records import find, note

EVENT_TYPES = ("Sporting", "Cultural", "National", "Religious")
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sept", "Oct", "Nov", "Dec")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One set, cut in two; the frames are sorted by `unique_id` and `ds`."""

    name: str
    train: pd.DataFrame
    """`unique_id`, `ds`, `y` and covariates: all that may be known at the cutoff."""
    test: pd.DataFrame
    """`unique_id`, `ds`, `y` (for scoring only, NaN where unknown), known-future covariates."""
    freq: str | int
    """pandas offset, or 1 where stamps are integers."""
    horizon: int
    """Steps of `test` in every series."""
    season_length: int
    """Steps in the season of MASE and of the statistical baselines."""
    seasons: tuple[int, ...] | None = None
    """Told to models where stamps are integers; None: those of `freq`."""
    known_future: tuple[str, ...] = ()
    """Covariates without NaN in `train` and `test`."""
    past_only: tuple[str, ...] = ()
    static: pd.DataFrame | None = None
    """`unique_id` and what never changes, a row a series."""
    fill: str = "refuse"
    """What a row of `train` without `y` means, as in `DataConfig.fill`."""


def load(name: str, data: Path, *, val: bool = False) -> Case:
    """
    Read one set and cut it at its cutoff, or one horizon earlier for `val`.

    Args:
        name: Any of `NAMES`.
        data: Folder that holds the sets' folders.
        val: Leave the test out altogether and hold out the horizon before it.

    Raises:
        SystemExit: No such set, or no such folder.
    """
    if name not in NAMES:
        raise SystemExit(f"no case {name!r}; there are: {', '.join(NAMES)}")
    if name.startswith("m4_"):
        return _m4(name, data, val=val)
    if name == "m5":
        return _m5(find(data, name), val=val)
    return cut(SETS[name](find(data, name)), val=val)


def _m4(name: str, data: Path, *, val: bool) -> Case:
    case = m4.CASES[name.removeprefix("m4_")]
    train, test = m4.load(find(data, "m4"), case, val=val)
    return Case(
        name=name,
        train=train[["unique_id", "ds", "y"]],
        test=test[["unique_id", "ds", "y"]],
        freq=1,
        horizon=case.horizon,
        season_length=case.season_length,
        seasons=case.seasons,
    )


def _aus_retail(folder: Path) -> Case:
    """Retail turnover by state and industry; each series ends where it ends."""
    frame = read(folder / "aus_retail.parquet", ["unique_id", "ds", "y"])
    return whole("aus_retail", frame, freq="MS", horizon=18, season_length=12)


def _pbs(folder: Path) -> Case:
    """Prescriptions by concession, type and drug group: complete, a tenth of the months are 0."""
    frame = read(folder / "pbs.parquet", ["unique_id", "ds", "y"])
    return whole("pbs", frame, freq="MS", horizon=12, season_length=12)


def _carparts(folder: Path) -> Case:
    """Sales of car parts, mostly 0. Parts whose record stops before the test are left out."""
    frame = read(folder / "carparts.parquet", ["unique_id", "ds", "y"])
    last = frame.groupby("unique_id")["y"].transform("last", skipna=False)
    frame = keep("carparts", frame, last.notna())
    return whole("carparts", frame, freq="MS", horizon=12, season_length=12, fill="mask")


def _hospital(folder: Path) -> Case:
    """Patients by product or department: complete, all of one length."""
    frame = read(folder / "hospital.parquet", ["unique_id", "ds", "y"])
    return whole("hospital", frame, freq="MS", horizon=12, season_length=12)


def _walmart_weekly(folder: Path) -> Case:
    """
    Sales by store and department, the last 39 weeks held out.

    A week without a row sold nothing: 0 in training, not scored in the test. A week in which
    more came back than was sold counts as 0 in training (0.3 % of rows); the test is as it was.
    Known ahead: the four holidays, Easter, and what the store itself marks down (nothing before
    November 2011). Weather, fuel, prices and unemployment are not, and are left out. Series that
    end early are left out.
    """
    marks = [f"markdown{i}" for i in range(1, 6)]
    frame = read(
        folder / "train.parquet",
        ["unique_id", "ds", "y", "is_holiday", "store_size", "store_type", *marks],
    )
    end = frame.groupby("unique_id")["ds"].transform("max")
    frame = keep("walmart_weekly", frame, end == frame["ds"].max())
    frame["store"] = frame["unique_id"].str.slice(0, 3)
    frame["dept"] = frame["unique_id"].str.slice(4)
    static = frame.groupby("unique_id", as_index=False)[
        ["store", "dept", "store_type", "store_size"]
    ].first()
    shop = frame.groupby(["store", "ds"], as_index=False)[["is_holiday", *marks]].first()

    grid = every_step(frame[["unique_id", "ds", "y"]], np.timedelta64(7, "D"))
    grid = grid.merge(static[["unique_id", "store"]]).merge(shop, how="left", on=["store", "ds"])
    holidays = frame.loc[frame["is_holiday"], "ds"].unique()
    grid["is_holiday"] = grid["ds"].isin(holidays)
    for name, month in (("super_bowl", 2), ("thanksgiving", 11), ("christmas", 12)):
        grid[name] = grid["is_holiday"] & (grid["ds"].dt.month == month)
    years = range(frame["ds"].dt.year.min(), frame["ds"].dt.year.max() + 1)
    sundays = pd.to_datetime([easter(year) for year in years]).to_series()
    fridays = sundays + pd.offsets.Week(weekday=4)  # weeks are named by the Friday they end on
    grid["easter_before"] = grid["ds"].isin(fridays - pd.Timedelta(weeks=1))
    grid["easter_after"] = grid["ds"].isin(fridays)
    for mark in marks:
        grid[f"log_{mark}"] = np.log1p(grid[mark].fillna(0.0).clip(lower=0.0))
    known_future = (
        "is_holiday",
        "super_bowl",
        "thanksgiving",
        "christmas",
        "easter_before",
        "easter_after",
        *(f"log_{mark}" for mark in marks),
    )
    return whole(
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
    Daily sales of stores, from each one's first day to the last day of all, 48 days held out.

    The file has open days only: a day without a row is closed and sold 0. What a closed day lacks
    comes from the stores open on it: `promo` is common to all on every date; `state_holiday` is 1
    if any of them has one. Both are 0 when all are closed, `school_holiday` on any closed day.
    `promo2` is 1 in the months in which the store takes part in the round of the continuing
    promotion. `customers` is not known ahead and left out.
    """
    columns = ["unique_id", "ds", "y", "promo", "school_holiday", "state_holiday"]
    frame = read(folder / "rossmann.parquet", columns)
    frame["state_holiday"] = (frame["state_holiday"] != "0").astype(np.float32)
    dates = frame.groupby("ds")[["promo", "state_holiday"]].max()
    stores = pd.read_parquet(folder / "stores.parquet")

    grid = every_step(frame, np.timedelta64(1, "D"))
    grid["open"] = grid["y"].notna()
    grid["y"] = grid["y"].fillna(0.0)  # in the test too: it is known that nothing was sold
    grid["promo"] = grid["ds"].map(dates["promo"])
    grid["state_holiday"] = grid["state_holiday"].fillna(grid["ds"].map(dates["state_holiday"]))
    flags = ["promo", "state_holiday", "school_holiday"]
    grid[flags] = grid[flags].fillna(0.0)
    grid["promo2"] = _promo2(grid, stores)

    distance = stores["competition_distance"]
    stores["log_competition_distance"] = np.log1p(distance.fillna(distance.max()))
    static = stores[["unique_id", "store_type", "assortment", "log_competition_distance"]]
    return whole(
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
    """Whether the store takes part, has begun to, and the date is in a month of its rounds."""
    taking = stores[stores["promo2"] == 1]
    week = taking["promo2_since_week"].astype(int).astype(str)
    since = pd.to_datetime(
        taking["promo2_since_year"].astype(int).astype(str) + "-" + week + "-1", format="%G-%V-%u"
    )
    months = np.array(
        [[month in text.split(",") for month in MONTHS] for text in taking["promo_interval"]]
    )
    row = pd.Index(taking["unique_id"]).get_indexer(grid["unique_id"])
    has_begun = grid["ds"].to_numpy() >= since.to_numpy()[row]
    return np.asarray((row >= 0) & has_begun & months[row, grid["ds"].dt.month.to_numpy() - 1])


def _orange_juice(folder: Path) -> Case:
    """
    Weekly units of eleven brands in 83 stores, weeks numbered, 8 weeks held out.

    A missing week is not observed, not 0. It keeps the prices of the week before, without deal or
    feature. Profit is not known ahead and left out.
    """
    prices = ["price", "price_min_other", "price_mean_other"]
    frame = read(
        folder / "orange_juice.parquet",
        ["unique_id", "ds", "y", *prices, "deal", "feat", "store", "brand"],
    )
    static = frame.groupby("unique_id", as_index=False)[["store", "brand"]].first()
    static = static.astype({"store": str, "brand": str})
    grid = every_step(frame[["unique_id", "ds", "y", *prices, "deal", "feat"]], np.int64(1))
    filled = grid.groupby("unique_id", sort=False)[prices].ffill()
    for price in prices:
        grid[f"log_{price}"] = np.log(filled[price])
    grid[["deal", "feat"]] = grid[["deal", "feat"]].fillna(0.0)
    return whole(
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


def _m5(folder: Path, *, val: bool) -> Case:
    """
    Unit sales of 30,490 items in ten stores, the official test of 28 days held out.

    `train` has the last 447 days. Known ahead: the price, the food stamp days of the store's own
    state, the four types of event, the days around a national one, and Christmas, when all stores
    are closed. The item itself is no static covariate: 3,049 categories tell little.
    """
    static = pd.read_parquet(folder / "static.parquet").sort_values("unique_id")
    dates = _m5_dates(pd.read_parquet(folder / "calendar.parquet"))
    path = folder / "train.parquet"
    cutoff = pd.Timestamp("2016-04-24" if val else "2016-05-22")
    train = _m5_part(path, [("ds", "<=", cutoff)], static, dates)
    later = path if val else folder / "test.parquet"
    test = _m5_part(later, [("ds", ">", cutoff)], static, dates)
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


def _m5_dates(calendar: pd.DataFrame) -> pd.DataFrame:
    """What is known of every date: events, the days around them, and the three SNAP flags."""
    types = calendar[["event_type_1", "event_type_2"]]
    dates = {f"event_{kind.lower()}": (types == kind).any(axis=1) for kind in EVENT_TYPES}
    national = dates["event_national"]
    dates["before_national"] = national.shift(-1, fill_value=False)
    dates["after_national"] = national.shift(1, fill_value=False)
    dates["closed"] = calendar["event_name_1"] == "Christmas"
    for state in ("CA", "TX", "WI"):
        dates[f"snap_{state}"] = calendar[f"snap_{state}"]
    return pd.DataFrame(dates).astype(np.float32).set_index(calendar["ds"])


def _m5_part(
    path: Path,
    rows: list[tuple[str, str, pd.Timestamp]],
    static: pd.DataFrame,
    dates: pd.DataFrame,
) -> pd.DataFrame:
    """Rows of a file with their covariates; a series' name is one object, shared by its rows."""
    frame = pd.read_parquet(path, filters=rows)
    ids, ds = frame["unique_id"].to_numpy(), frame["ds"].to_numpy()
    begins = np.flatnonzero(np.r_[True, ids[1:] != ids[:-1]])
    lengths = np.diff(np.r_[begins, len(ids)])
    names = ids[begins].astype(str).astype(object)
    if not (names == static["unique_id"].to_numpy()).all():
        raise SystemExit(f"{path} is not sorted as static.parquet")
    date = dates.index.get_indexer(pd.Index(ds))
    columns = {
        "unique_id": np.repeat(names, lengths),
        "ds": ds.astype("datetime64[ns]"),
        "y": frame["y"].to_numpy(np.float32),
        "log_price": np.log(frame["sell_price"].to_numpy(np.float32)),
    }
    snap = [f"snap_{state}" for state in ("CA", "TX", "WI")]
    state = pd.Index(snap).get_indexer(pd.Index("snap_" + static["state_id"]))
    columns["snap"] = dates[snap].to_numpy()[date, np.repeat(state, lengths)]
    for name in dates.columns.difference(snap, sort=False):
        columns[name] = dates[name].to_numpy()[date]
    return pd.DataFrame(columns, copy=False)


SETS: dict[str, Callable[[Path], Case]] = {
    "aus_retail": _aus_retail,
    "pbs": _pbs,
    "carparts": _carparts,
    "hospital": _hospital,
    "walmart_weekly": _walmart_weekly,
    "rossmann": _rossmann,
    "orange_juice": _orange_juice,
}
NAMES: tuple[str, ...] = (*(f"m4_{name}" for name in m4.CASES), *SETS, "m5")


def read(path: Path, columns: list[str]) -> pd.DataFrame:
    """A file, sorted, dates in nanoseconds, values as doubles."""
    frame = pd.read_parquet(path, columns=columns)
    frame = frame.sort_values(["unique_id", "ds"], ignore_index=True)
    integer = pd.api.types.is_integer_dtype(frame["ds"])
    return frame.astype({"y": np.float64, "ds": np.int64 if integer else "datetime64[ns]"})


def keep(name: str, frame: pd.DataFrame, rows: "pd.Series[bool]") -> pd.DataFrame:
    """The chosen rows; says how many series that leaves."""
    chosen = frame[rows].reset_index(drop=True)
    note(
        f"{name}: {chosen['unique_id'].nunique():,} of {frame['unique_id'].nunique():,} series kept"
    )
    return chosen


def every_step(frame: pd.DataFrame, step: np.timedelta64 | np.int64) -> pd.DataFrame:
    """A row for every step of each series from its first to the last of all; new ones hold NaN."""
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


def whole(
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
    """All of a set, not cut yet: `test` is empty."""
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
    Hold the last horizon out, or the one before; series with too little before it are left out.

    Where a missing step sold nothing (`fill="zero"`), training has it as 0, and as 0 what came
    back on top of what was sold. The test has what there was.
    """
    frame, back = case.train, case.horizon * (1 + val)
    size = frame.groupby("unique_id", sort=False)["y"].transform("size")
    if (size <= back + case.season_length).any():
        frame = keep(case.name, frame, size > back + case.season_length)
    left = frame.groupby("unique_id", sort=False).cumcount(ascending=False)
    test = frame[(left >= back - case.horizon) & (left < back)].reset_index(drop=True)
    train = frame[left >= back].reset_index(drop=True)
    if case.fill == "zero":
        train["y"] = train["y"].fillna(0.0).clip(lower=0.0)
    static = case.static
    if static is not None:
        static = static[static["unique_id"].isin(train["unique_id"].unique())]
        static = static.sort_values("unique_id", ignore_index=True)
    return replace(case, train=train, test=test, static=static)

"""The sets of the benchmarks: their cutoffs, covariates and gaps."""

import numpy as np
import pandas as pd
import pytest

from benchmarks.accuracy.sets import NAMES, load


def write_set(folder, name, **files):
    """Write the Parquet files of a set."""
    (folder / name).mkdir()
    for stem, frame in files.items():
        frame.to_parquet(folder / name / f"{stem}.parquet")


def months(number, *, first="2000-01-01"):
    """Return consecutive month starts."""
    return pd.date_range(first, periods=number, freq="MS")


def check(case):
    """Assert what holds for every case."""
    steps = case.test.groupby("unique_id").size()
    assert (steps == case.horizon).all()
    assert set(case.train["unique_id"]) == set(steps.index)
    starts = case.test.groupby("unique_id")["ds"].min()
    ends = case.train.groupby("unique_id")["ds"].max()
    assert (ends < starts).all()
    columns = list(case.known_future)
    for frame in (case.train, case.test):
        assert list(frame.columns) == ["unique_id", "ds", "y", *columns]
        assert np.isfinite(frame[columns].to_numpy()).all()
        assert frame.sort_values(["unique_id", "ds"]).index.is_monotonic_increasing
    if case.static is not None:
        assert list(case.static["unique_id"]) == list(steps.index)


@pytest.fixture
def turnover(tmp_path):
    """Write two series with different ends, and one too short for a season before its cutoff."""
    parts = [("a", 60), ("b", 46), ("short", 30)]
    frames = [
        pd.DataFrame({"unique_id": name, "ds": months(size), "y": np.arange(size) + 1.0})
        for name, size in parts
    ]
    write_set(tmp_path, "aus_retail", aus_retail=pd.concat(frames))
    return tmp_path


def test_each_series_is_cut_one_horizon_before_its_end(turnover):
    """A series without a season before its cutoff is left out."""
    case = load("aus_retail", turnover)

    check(case)
    assert case.train.groupby("unique_id").size().to_dict() == {"a": 42, "b": 28}


def test_validation_cut_ends_where_the_test_starts(turnover):
    """With `val` no value of the test is read."""
    case, val = load("aus_retail", turnover), load("aus_retail", turnover, val=True)

    check(val)
    assert val.train.groupby("unique_id").size().to_dict() == {"a": 24}
    expected = case.train[case.train["unique_id"] == "a"]
    pd.testing.assert_frame_equal(pd.concat([val.train, val.test], ignore_index=True), expected)


def test_unknown_case_is_refused_with_the_known_names(tmp_path):
    """The message lists them."""
    with pytest.raises(SystemExit, match="carparts"):
        load("m6", tmp_path)
    assert {"m4_hourly", "m5", "rossmann"} <= set(NAMES)


def test_carparts_without_values_at_the_end_are_left_out(tmp_path):
    """A part whose last months are missing cannot be scored."""
    y = np.tile([0.0, 3.0], 20)
    cut_short = np.where(np.arange(40) < 15, y, np.nan)
    frame = pd.DataFrame(
        {
            "unique_id": np.repeat(["whole", "cut short"], 40),
            "ds": np.tile(months(40), 2),
            "y": np.r_[y, cut_short],
        }
    )
    write_set(tmp_path, "carparts", carparts=frame)

    case = load("carparts", tmp_path)

    check(case)
    assert set(case.train["unique_id"]) == {"whole"}


@pytest.fixture
def walmart(tmp_path):
    """Write two departments; the second has missing weeks and returns in train and test."""
    weeks = pd.date_range("2010-02-05", "2012-10-26", freq="W-FRI")
    holidays = pd.to_datetime(["2010-11-26", "2011-11-25", "2011-12-30"])
    row = np.arange(len(weeks))
    both = pd.DataFrame(
        {
            "unique_id": np.repeat(["s01_d01", "s01_d02"], len(weeks)),
            "ds": np.tile(weeks, 2),
            "y": np.tile(100.0 + row, 2),
            "is_holiday": np.tile(weeks.isin(holidays), 2),
            "store_size": 5.0,
            "store_type": "A",
            **{
                f"markdown{i}": np.tile(np.where(row < 92, np.nan, 10.0 * i), 2)
                for i in range(1, 6)
            },
        }
    )
    both.loc[len(weeks) + 3, "y"] = -7.0
    both.loc[2 * len(weeks) - 2, "y"] = -9.0
    both = both.drop(index=[len(weeks) + 10, 2 * len(weeks) - 4])
    write_set(tmp_path, "walmart_weekly", train=both)
    return tmp_path


def test_walmart_training_has_zeros_where_the_test_keeps_gaps_and_returns(walmart):
    """Missing weeks and net returns are 0 in training; the test has NaN and the return itself."""
    case = load("walmart_weekly", walmart)

    check(case)
    train, test = (f[f["unique_id"] == "s01_d02"]["y"].to_numpy() for f in (case.train, case.test))
    assert (train[3], train[10], train[11]) == (0.0, 0.0, 111.0)
    assert np.isnan(test[-4])
    assert (test[-2], test[-1]) == (-9.0, 242.0)


def test_walmart_has_holidays_and_markdowns_in_weeks_without_a_row(walmart):
    """There is no markdown before November 2011."""
    case = load("walmart_weekly", walmart)

    both = pd.concat([case.train, case.test])
    thanksgivings = both[both["thanksgiving"] == 1]["ds"].unique()
    assert list(thanksgivings) == list(pd.to_datetime(["2010-11-26", "2011-11-25"]))
    marked_down = both[both["log_markdown2"] > 0]
    assert marked_down["ds"].min() == pd.Timestamp("2011-11-11")
    assert marked_down["log_markdown2"].to_numpy() == pytest.approx(np.log1p(20.0), rel=1e-6)
    assert both.loc[both["easter_before"] == 1, "ds"].min() == pd.Timestamp("2010-04-02")


@pytest.fixture
def rossmann(tmp_path):
    """Write two stores closed on Sundays, the second also on a holiday and with a promo2."""
    days = pd.date_range("2014-01-01", "2014-06-29", freq="D")
    holiday = pd.Timestamp("2014-05-01")
    frames = []
    for name in ("rossmann_0001", "rossmann_0002"):
        frame = pd.DataFrame(
            {
                "unique_id": name,
                "ds": days,
                "y": 10.0,
                "customers": 5.0,
                "promo": (days.isocalendar().week % 2).to_numpy(),
                "school_holiday": 1,
                "state_holiday": np.where(days == holiday, "a", "0"),
            }
        )
        closed = days.weekday == 6
        if name.endswith("2"):
            closed |= days == holiday
        frames.append(frame[~closed])
    frames[0] = pd.concat([frames[0], frames[0].tail(1).assign(ds=days[-1])])
    stores = pd.DataFrame(
        {
            "unique_id": ["rossmann_0001", "rossmann_0002"],
            "store_type": ["a", "b"],
            "assortment": "a",
            "competition_distance": [100.0, np.nan],
            "promo2": [0, 1],
            "promo2_since_week": [np.nan, 12],
            "promo2_since_year": [np.nan, 2014],
            "promo_interval": ["", "Mar,Jun,Sept,Dec"],
        }
    )
    write_set(tmp_path, "rossmann", rossmann=pd.concat(frames), stores=stores)
    return tmp_path


def test_rossmann_closed_days_have_zero_sales_and_covariates_of_open_stores(rossmann):
    """The promotion and the holiday are those of the store that is open."""
    case = load("rossmann", rossmann)

    check(case)
    both = pd.concat([case.train, case.test]).set_index(["unique_id", "ds"])
    closed = both.loc["rossmann_0002", pd.Timestamp("2014-05-01")]
    assert (closed["y"], closed["open"], closed["state_holiday"]) == (0.0, 0.0, 1.0)
    assert closed["promo"] == both.loc["rossmann_0001", pd.Timestamp("2014-05-01")]["promo"]
    assert both.loc["rossmann_0001", pd.Timestamp("2014-05-04")]["y"] == 0.0
    assert (both["open"] == (both["y"] > 0)).all()


def test_rossmann_promo2_is_active_in_its_months_from_its_first_week(rossmann):
    """Week 12 of 2014 starts on 17 March."""
    case = load("rossmann", rossmann)

    both = pd.concat([case.train, case.test])
    active = both[both["promo2"] == 1]
    assert set(active["unique_id"]) == {"rossmann_0002"}
    assert active["ds"].min() == pd.Timestamp("2014-03-17")
    assert set(active["ds"].dt.month) == {3, 6}


def test_orange_juice_missing_weeks_have_no_units_and_the_price_before(tmp_path):
    """The units are NaN, the price is that of the week before."""
    weeks = np.arange(40, 161)
    price = np.where(weeks < 100, 0.05, 0.04)
    frame = pd.DataFrame(
        {
            "unique_id": "oj_s002_b01",
            "ds": weeks,
            "y": weeks * 64.0,
            "price": price,
            "price_min_other": 0.03,
            "price_mean_other": 0.04,
            "deal": 1,
            "feat": 1.0,
            "profit": 30.0,
            "store": 2,
            "brand": 1,
        }
    )
    write_set(tmp_path, "orange_juice", orange_juice=frame.drop(index=[60, 119]))

    case = load("orange_juice", tmp_path)

    check(case)
    gap = case.train[case.train["ds"] == 100].iloc[0]
    assert np.isnan(gap["y"])
    assert (gap["deal"], gap["feat"]) == (0.0, 0.0)
    assert gap["log_price"] == pytest.approx(np.log(0.05), rel=1e-6)
    assert case.test["ds"].tolist() == list(range(153, 161))
    assert np.isnan(case.test["y"].iloc[6])


@pytest.mark.parametrize("val", [False, True])
def test_m5_series_have_the_snap_days_of_their_state(tmp_path, val):
    """The days before and after a national event are marked as well."""
    days = pd.date_range("2015-03-03", "2016-06-19", freq="D")
    calendar = pd.DataFrame({"ds": days, "snap_CA": days.day == 1, "snap_TX": days.day == 2})
    calendar["snap_WI"] = 0
    christmas = days == pd.Timestamp("2015-12-25")
    for column, value in (("event_name_1", "Christmas"), ("event_type_1", "National")):
        calendar[column] = np.where(christmas, value, None)
    calendar["event_type_2"] = None
    static = pd.DataFrame(
        {
            "unique_id": ["X_1_001_CA_1", "X_1_001_TX_1"],
            "item_id": "X_1_001",
            "dept_id": "X_1",
            "cat_id": "X",
            "store_id": ["CA_1", "TX_1"],
            "state_id": ["CA", "TX"],
        }
    )
    rows = pd.DataFrame(
        {
            "unique_id": np.repeat(static["unique_id"].to_numpy(), len(days)),
            "ds": np.tile(days, 2),
            "y": 1.0,
            "sell_price": 2.0,
        }
    )
    cutoff = pd.Timestamp("2016-05-22")
    write_set(
        tmp_path,
        "m5",
        calendar=calendar,
        static=static,
        train=rows[rows["ds"] <= cutoff],
        test=rows[rows["ds"] > cutoff],
    )

    case = load("m5", tmp_path, val=val)

    check(case)
    assert case.test["ds"].max() == (cutoff if val else days[-1])
    snap = (
        case.train[case.train["snap"] == 1].groupby("unique_id")["ds"].agg(lambda d: d.dt.day[:1])
    )
    assert snap.tolist() == [1, 2]
    national = case.train.groupby("ds")[["before_national", "closed", "after_national"]].first()
    assert [d.day for d in national.index[(national == 1).any(axis=1)]] == [24, 25, 26]
    assert "item_id" not in case.static

"""Checked frames: every fault of a table is told with series, place, expected, found, way out."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forecast.calendars import Calendar
from forecast.config import DataConfig
from forecast.errors import (
    BadStamps,
    ConfigError,
    ConstantSeries,
    DuplicateStamps,
    MissingColumns,
    MissingSteps,
    MissingValues,
    NegativeValues,
    TooShort,
    WrongFrequency,
    WrongType,
)
from forecast.frames import check, report

EXAMPLES = Path(__file__).parent.parent / "examples" / "data"
FREQS = ["D", "h", "W-FRI", "MS", "ME", "QS-JAN", "B", "15min"]


def sales(freq="D", steps=6, ids=("oil", "tea", "yeast")):
    """Three short series that rise, from Monday 2024-03-04 on."""
    ds = pd.date_range("2024-03-04", periods=steps, freq=freq)
    parts = [
        pd.DataFrame({"unique_id": name, "ds": ds, "y": np.arange(steps) + 1.0 + k})
        for k, name in enumerate(ids)
    ]
    return pd.concat(parts, ignore_index=True)


def refusal(error, table, *, static_df=None, min_length=2, **data):
    """The error that `check` raises on a table."""
    with pytest.raises(error) as caught:
        check(table, DataConfig(**data), static_df=static_df, min_length=min_length)
    return caught.value


def assert_tells(error, *parts):
    """The text names everything that ends the search, and always a way out."""
    assert error.help
    for part in parts:
        assert part in str(error)


def test_a_clean_table_comes_back_sorted_and_resolved():
    """Frequency and kind are filled in; ids are text, values float64, stamps nanoseconds."""
    table = sales(freq="MS").sample(frac=1, random_state=1)

    checked = check(table, DataConfig())

    assert checked.calendar == Calendar("MS")
    assert (checked.data.freq, checked.data.kind, checked.kind) == ("MS", "positive", "positive")
    assert (checked.rows, checked.filled) == (18, 0)
    pd.testing.assert_frame_equal(checked.frame, sales(freq="MS"))


@given(order=st.permutations(range(18)))
def test_the_order_of_rows_does_not_matter(order):
    """Any order of the rows gives the same frame and the same digest."""
    table = sales().assign(price=np.arange(18.0))
    data = DataConfig(known_future=("price",))

    shuffled = check(table.iloc[list(order)], data)

    assert shuffled.digest == check(table, data).digest
    pd.testing.assert_frame_equal(shuffled.frame, check(table, data).frame)


def test_centuries_are_sorted_too():
    """A span that nanoseconds barely hold is put in order like any other."""
    ds = pd.date_range("1700-01-01", "2200-01-01", freq="YS")
    table = pd.DataFrame({"unique_id": "a", "ds": ds, "y": np.arange(len(ds)) + 1.0})

    checked = check(table.sample(frac=1, random_state=0), DataConfig(freq="YS"))

    pd.testing.assert_frame_equal(checked.frame, table)


@given(row=st.integers(0, 17), column=st.sampled_from(["y", "price", "store"]))
def test_the_digest_tells_any_change_of_content(row, column):
    """Another value anywhere, covariates and static columns included, is another digest."""
    table = sales().assign(price=1.0, store="a")
    data = DataConfig(freq="D", known_future=("price",), static=("store",))
    changed = table.copy()
    if column == "store":
        changed.loc[changed["unique_id"] == table["unique_id"][row], "store"] = "b"
    else:
        changed.loc[row, column] += 1

    assert check(changed, data).digest != check(table, data).digest


def test_columns_by_another_name_are_used_when_named():
    """`id_col`, `time_col` and `target_col` bring other names to the usual ones."""
    table = sales().rename(columns={"unique_id": "item", "ds": "date", "y": "sold"})

    checked = check(table, DataConfig(id_col="item", time_col="date", target_col="sold"))

    assert list(checked.frame.columns) == ["unique_id", "ds", "y"]


def test_columns_without_a_role_are_left_alone():
    """Text, holes and all: what has no role is no fault, and `report` lists it."""
    table = sales().assign(note=["?", None, 3] * 6)

    assert "note" not in check(table, DataConfig()).frame
    assert report(table, DataConfig())["unused_columns"] == ["note"]


def test_missing_columns_name_the_likely_ones():
    """A `date` and a `sales` column lead to the two settings that name them."""
    error = refusal(MissingColumns, sales().rename(columns={"ds": "date", "y": "sales"}))

    assert_tells(error, "'ds' (time_col)", 'set time_col = "date"', 'set target_col = "sales"')


@pytest.mark.parametrize("role", ["known_future", "past_only", "static"])
def test_a_role_that_names_no_column_is_refused(role):
    """A misspelt covariate is told with the column that is there."""
    error = refusal(MissingColumns, sales().assign(price=1.0), **{role: ("prise",)})

    assert_tells(error, f"'prise' ({role})", f'set {role} = ["price"]')


def test_a_column_that_is_there_twice_is_refused():
    """Two columns of one name leave it open which is meant."""
    table = pd.concat([sales(), sales()["y"]], axis=1)

    assert_tells(refusal(MissingColumns, table), "'y' is there 2 times")


def test_text_in_a_number_column_is_told_with_series_and_row():
    """The first value that is no number is shown as it stands."""
    table = sales().astype({"y": object})
    table.loc[7, "y"] = "12,5"

    error = refusal(WrongType, table)

    assert_tells(error, "series 'tea' has y='12,5'", "row 7", "(1 row in 1 of 3", 'decimal=","')


def test_numbers_written_as_text_are_numbers():
    """Databases and CSV files give "3.0"; that is no fault."""
    assert check(sales().astype({"y": str}), DataConfig()).frame["y"].dtype == np.float64


@pytest.mark.parametrize(("stamp", "told"), [
    ("soon", "ds='soon'"), ("31.01.2024", 'format="%d.%m.%Y"'), ("01/31/2024", "%m/%d/%Y"),
    (None, "has no ds"), ("2024-03-08T00:00:00+02:00", "no zone and +02:00"),
])  # fmt: skip
def test_an_unreadable_stamp_is_told_with_series_and_row(stamp, told):
    """Whatever is no ISO date, or comes with another zone, is refused where it stands."""
    table = sales()
    table["ds"] = table["ds"].astype(str)
    table.loc[8, "ds"] = stamp

    assert_tells(refusal(BadStamps, table), "series 'tea'", "row 8", told)


def test_one_zone_becomes_naive_utc():
    """Stamps that all carry one zone are moments: they become UTC, as text or as a type."""
    hourly = sales(freq="h")
    typed = hourly.assign(ds=hourly["ds"].dt.tz_localize("Europe/Berlin"))
    text = hourly.assign(ds=hourly["ds"].dt.strftime("%Y-%m-%dT%H:%M:%S+01:00"))

    frames = [check(table, DataConfig()).frame for table in (typed, text)]

    assert str(frames[0]["ds"][0]) == "2024-03-03 23:00:00"
    pd.testing.assert_frame_equal(*frames)


@given(kind=st.sampled_from(["date", "Timestamp", "text", "period", "arrow", "seconds"]))
def test_dates_may_be_of_any_type(kind):
    """Python dates, Timestamps, text, periods and Arrow's types mean the same stamps."""
    table = sales()
    ds = table["ds"]
    convert = {
        "date": lambda: ds.dt.date,
        "Timestamp": lambda: ds.astype(object),
        "text": lambda: ds.dt.strftime("%Y-%m-%d"),
        "period": lambda: ds.dt.to_period("D"),
        "arrow": lambda: ds.astype("timestamp[us][pyarrow]"),
        "seconds": lambda: ds.astype("datetime64[s]"),
    }

    checked = check(table.assign(ds=convert[kind]()), DataConfig())

    pd.testing.assert_frame_equal(checked.frame, sales())


def test_integer_stamps_stay_integers():
    """Steps 1, 2, 3 have frequency 1."""
    checked = check(sales().assign(ds=list(range(1, 7)) * 3), DataConfig())

    assert (checked.calendar.freq, checked.frame["ds"].dtype) == (1, np.int64)


def test_dates_written_as_numbers_are_refused():
    """20240304 is a date, not step twenty million."""
    table = sales()
    table["ds"] = table["ds"].dt.strftime("%Y%m%d").astype(int)

    assert_tells(refusal(BadStamps, table), "ds=20240304", 'format="%Y%m%d"')


def test_repeated_rows_are_told_from_conflicting_ones():
    """Equal repeats may be dropped; different values need a decision."""
    table = sales()
    repeat = pd.concat([table, table.iloc[[4, 5]]])
    conflict = pd.concat([table, table.iloc[[4]].assign(y=99.0), table.iloc[[7]]])

    same, different = refusal(DuplicateStamps, repeat), refusal(DuplicateStamps, conflict)

    assert_tells(same, "2024-03-08 twice with equal values", "2 repeated rows", "drop_duplicates")
    assert_tells(different, "conflicting", "y=5 and 99", "1 conflicting row in 1 of 3", "groupby")


@given(lost=st.sets(st.tuples(st.integers(0, 9), st.integers(1, 38)), min_size=1, max_size=5),
       freq=st.sampled_from(FREQS))  # fmt: skip
def test_every_gap_of_every_series_is_counted(lost, freq):
    """Whatever rows inside ten series are taken out, the message counts all of them."""
    table = sales(freq, 40, ids=tuple("abcdefghij"))
    holed = table.drop([series * 40 + step for series, step in lost])
    series = sorted({"abcdefghij"[i] for i, _ in lost})

    error = refusal(MissingSteps, holed, freq=freq)

    rows = f"{len(lost)} missing step{'s' if len(lost) > 1 else ''}"
    assert_tells(error, f"series {series[0]!r} skips", f"{rows} in {len(series)} of 10 series")


@given(lost=st.sets(st.integers(1, 38), max_size=30), freq=st.sampled_from(FREQS),
       fill=st.sampled_from(["zero", "forward", "mask"]))  # fmt: skip
def test_a_fill_policy_restores_every_missing_step(lost, freq, fill):
    """Filled series are regular again, hold what the policy says, and count what was made up."""
    table = sales(freq, 40, ids=("a", "b")).assign(price=np.arange(80.0))
    kept = table["y"].where(~table.index.isin(lost))
    steps = pd.Series(table.index.where(~table.index.isin(lost))).ffill()
    expected = {"zero": kept.fillna(0.0), "forward": kept.ffill(), "mask": kept}[fill]

    checked = check(table.drop(lost), DataConfig(freq=freq, fill=fill, known_future=("price",)))

    assert (checked.filled, checked.rows) == (len(lost), 80)
    pd.testing.assert_series_equal(checked.frame["ds"], table["ds"])
    np.testing.assert_array_equal(checked.frame["y"], expected)
    np.testing.assert_array_equal(checked.frame["price"], table["price"][steps])


def test_a_masked_series_begins_at_its_first_value():
    """What precedes the first value is not kept as a long hole."""
    table = sales()
    table.loc[[0, 1, 3], "y"] = np.nan

    checked = check(table, DataConfig(fill="mask"))

    oil = checked.frame[checked.frame["unique_id"] == "oil"]
    assert str(oil["ds"].iloc[0].date()) == "2024-03-06"
    assert oil["y"].isna().tolist() == [False, True, False, False]
    assert checked.filled == 1


def test_a_fill_that_would_explode_is_refused():
    """Filling hourly between yearly stamps is a wrong frequency, not a hole."""
    ds = pd.to_datetime(["1700-01-01T00:00", "1700-01-01T00:01", "2200-01-01T00:00"])
    table = pd.DataFrame({"unique_id": "a", "ds": ds, "y": [1.0, 2.0, 3.0]})

    assert_tells(refusal(MissingSteps, table, freq="min", fill="mask"), "would make 262,")


@pytest.mark.parametrize(("declared", "true", "told"), [
    ("MS", "W-FRI", "no stamp of freq='MS'"), ("W", "W-FRI", "no stamp of freq='W-SUN'"),
    ("MS", "ME", "no stamp of freq='MS'"), ("D", "W-FRI", "does not advance by freq='D'"),
    ("h", "15min", "irregular steps for freq='h'"), ("h", "D", "does not advance"),
    ("MS", "QS-JAN", "does not advance by freq='MS'"),
])  # fmt: skip
def test_a_wrong_frequency_is_told_with_the_true_one(declared, true, told):
    """The message says what the stamps look like, and the help declares it."""
    error = refusal(WrongFrequency, sales(freq=true, steps=20), freq=declared)

    assert_tells(error, told, f"most stamps look like '{true}'", f'declare freq = "{true}"')


@pytest.mark.parametrize(("freq", "ds"), [(1, "2024-03-04"), ("D", 1)])
def test_dates_and_integers_are_not_taken_for_each_other(freq, ds):
    """A frequency of integers refuses dates, and the other way round."""
    table = pd.DataFrame({"unique_id": "a", "ds": [ds], "y": [1.0]})

    assert_tells(refusal(WrongFrequency, table, freq=freq), f"freq={freq!r} expects", str(ds))


def test_daily_rows_without_weekends_lead_to_business_days():
    """Declared daily, found Monday to Friday: the way out is said."""
    error = refusal(MissingSteps, sales(freq="B", steps=40), freq="D")

    assert 'freq = "B"' in error.help


def test_holidays_of_an_exchange_lead_to_its_calendar():
    """Real stock prices look like business days with holes; the message says XNYS."""
    stocks = pd.read_parquet(EXAMPLES / "daily_stocks.parquet")

    error = refusal(MissingSteps, stocks)

    assert_tells(error, "expected 2013-01-21, found 2013-01-22", 'declare freq = "XNYS"')
    assert check(stocks, DataConfig(freq="XNYS")).filled == 0


def test_a_stamp_that_is_no_session_is_refused():
    """Good Friday is a business day and no session."""
    error = refusal(WrongFrequency, sales(freq="B", steps=40), freq="XNYS")

    assert_tells(error, "2024-03-29, which is no stamp", "2024-03-28 and 2024-04-01")


def test_missing_values_are_counted_over_all_series():
    """NaN in a row that is there is as wrong as a row that is not."""
    table = sales()
    table.loc[[3, 9, 15], "y"] = np.nan

    error = refusal(MissingValues, table)

    assert_tells(
        error, "series 'oil' has y=NaN", "2024-03-07", "(3 rows in 3 of 3", 'fill = "mask"'
    )


@pytest.mark.parametrize("fill", ["refuse", "zero", "forward", "mask"])
def test_infinity_is_never_filled(fill):
    """No policy makes infinity a value."""
    table = sales()
    table.loc[3, "y"] = np.inf

    assert_tells(refusal(MissingValues, table, fill=fill), "y=inf")


@pytest.mark.parametrize("fill", ["refuse", "mask"])
def test_covariates_must_be_known_at_every_row(fill):
    """A hole in a covariate is refused under every policy, by the name of the column."""
    table = sales().assign(price=1.0)
    table.loc[3, "price"] = np.nan

    assert_tells(refusal(MissingValues, table, fill=fill, past_only=("price",)), "price=NaN")


def test_negative_values_are_refused_where_declared_positive():
    """Declared positive, one return is refused; undeclared, the kind becomes real."""
    table = sales().assign(y=lambda t: t["y"] - 3)

    assert_tells(refusal(NegativeValues, table, kind="positive"), "y=-2", "3 rows in 2 of 3")
    assert check(table, DataConfig()).kind == "real"


@pytest.mark.parametrize(
    ("kind", "least", "said"),
    [
        ("positive", 0.0, "expects 0 or more"),
        ("count", 0.0, "expects 0 or more"),
        ("price", 0.5, "expects values above 0"),
        ("volatility", 1e-8, "expects values above 0"),
    ],
)
def test_each_kind_says_what_it_can_be(kind, least, said):
    """The least value passes; one below, which for prices is 0, is refused with the kind."""
    table = sales()
    table.loc[3, "y"] = least
    assert check(table, DataConfig(kind=kind)).kind == kind

    table.loc[3, "y"] = -1.0 if least == 0 else 0.0
    assert_tells(refusal(NegativeValues, table, kind=kind), f"kind='{kind}'", said)


@pytest.mark.parametrize("kind", ["price", "volatility"])
def test_zeros_cannot_be_put_into_prices(kind):
    """The fill policy would make values that the kind forbids."""
    table = sales().drop(3)

    assert_tells(refusal(ConfigError, table, kind=kind, fill="zero"), "fill='zero'", kind)


def test_many_zeros_make_a_count():
    """From one zero in twenty on; the median of the rest would often be 0."""
    table = sales()
    table.loc[3, "y"] = 0.0

    assert check(table, DataConfig()).kind == "count"


def test_short_series_are_named():
    """Every series needs `min_length` values."""
    error = refusal(TooShort, sales().drop([1, 2, 3, 4, 5]), freq="D", min_length=3)

    assert_tells(error, "series 'oil' has 1 row", "at least 3", "1 of 3 series too short")


def test_a_table_without_rows_is_refused():
    """Nothing in, nothing to check."""
    assert_tells(refusal(TooShort, sales().iloc[:0]), "no rows")


def test_a_series_without_any_value_is_too_short():
    """A masked series of NaN alone has no first value to begin at."""
    table = sales().assign(y=lambda t: t["y"].where(t["unique_id"] != "tea"))

    assert_tells(refusal(TooShort, table, fill="mask"), "series 'tea' has 0 rows with a value")


def test_only_all_series_constant_is_refused():
    """One constant series among others is fine; nothing but constants teaches nothing."""
    table = sales()
    table.loc[table["unique_id"] == "oil", "y"] = 3.0

    assert check(table, DataConfig()).rows == 18
    assert_tells(refusal(ConstantSeries, table[:6]), "repeats y=3")


def test_static_columns_become_one_row_a_series():
    """From the table or from a table of their own, numbers and text, in the order of the ids."""
    stores = pd.DataFrame(
        {"unique_id": ["tea", "oil", "yeast"], "city": list("xyz"), "m2": [1, 2, 3]}
    )
    table = sales().merge(stores, on="unique_id")

    inside = check(table, DataConfig(static=("city", "m2")))
    beside = check(sales(), DataConfig(), static_df=stores)

    assert inside.static is not None
    assert inside.static.loc["oil"].tolist() == ["y", 2.0]
    assert beside.data.static == ("city", "m2")
    pd.testing.assert_frame_equal(inside.static, beside.static)


def test_static_columns_that_change_are_refused():
    """Two values of a static column within a series are told, both."""
    table = sales().assign(store=list("aaaaab") * 3)

    error = refusal(WrongType, table, static=("store",))

    assert_tells(error, "series 'oil' has store=", "'a'", "'b'", "static")


@pytest.mark.parametrize(("stores", "told"), [
    ({"unique_id": ["oil"], "store": ["x"]}, "series 'tea' has no row in static_df"),
    ({"unique_id": ["oil", "tea", "yeast"], "store": ["x", None, "y"]}, "has no store"),
])  # fmt: skip
def test_static_values_must_be_there_for_each_series(stores, told):
    """A series without its static row, or with a hole in it, is refused."""
    error = refusal(MissingValues, sales(), static_df=pd.DataFrame(stores))

    assert_tells(error, told, "static_df")


def test_nameless_rows_are_refused():
    """A row without an id belongs to no series."""
    table = sales()
    table.loc[4, "unique_id"] = None

    assert_tells(refusal(MissingValues, table), "column 'unique_id' is empty in 1 of 18", "row 4")


def test_a_covariate_cannot_take_the_name_of_the_target():
    """Two columns called `y` could not be told apart later."""
    table = sales().assign(sold=1.0)

    assert_tells(refusal(ConfigError, table, target_col="sold", past_only=("y",)), "'y'")


def test_a_report_lists_all_problems_and_does_not_raise():
    """One look tells span, size and everything wrong, with the codes of the errors."""
    table = pd.concat([sales(), sales().iloc[[4]]]).drop([1, 8])
    table.iloc[5, 2] = -1.0

    found = report(table, DataConfig(kind="positive"))

    assert (found["series"], found["rows"], found["freq"]) == (3, 17, "D")
    assert (found["first"], found["last"]) == ("2024-03-04", "2024-03-09")
    codes = [problem["code"] for problem in found["problems"]]
    assert codes == ["data.duplicate", "data.gap", "data.negative"]


def test_a_report_of_unreadable_frequency_says_so():
    """Without a frequency the report still tells what it can."""
    ds = pd.to_datetime(["2024-01-15", "2024-02-15", "2024-03-15"])
    table = pd.DataFrame({"unique_id": "a", "ds": ds, "y": [1.0, 2.0, 0.0]})

    found = report(table, DataConfig())

    assert (found["freq"], found["zero_share"]) == (None, 0.3333)
    assert [problem["code"] for problem in found["problems"]] == ["data.frequency"]


def test_the_callers_table_is_left_as_it_was():
    """Checking neither sorts nor fills nor renames in place."""
    table = sales().drop([2]).sample(frac=1, random_state=1)
    before = table.copy()

    check(table, DataConfig(fill="zero"))

    pd.testing.assert_frame_equal(table, before)


@pytest.mark.parametrize(("file", "data", "rows"), [
    ("monthly_retail", {"static": ("state", "industry")}, 26_460),
    ("weekly_sales", {"known_future": ("price", "deal", "feat"), "static": ("store", "brand")},
     6_464),
    ("daily_stocks", {"freq": "XNYS", "past_only": ("open", "high", "low", "volume")}, 12_625),
])  # fmt: skip
def test_bundled_data_pass_as_they_are(file, data, rows):
    """Every bundled file is clean under the roles its README gives."""
    checked = check(EXAMPLES / f"{file}.parquet", DataConfig(**data))

    assert (checked.rows, checked.filled, checked.kind) == (rows, 0, "positive")

"""Checked frames: every fault of a table is told with series, place, expected, found, way out."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forecast.calendars.calendar import Calendar
from forecast.config import DataConfig
from forecast.data.validation import report, validate
from forecast.errors import (
    ConfigError,
    ConstantSeries,
    DuplicateStamps,
    MissingColumns,
    MissingValues,
    NegativeValues,
    TooShort,
    WrongType,
)

EXAMPLES = Path(__file__).parents[3] / "examples" / "data"


def sales(freq="D", steps=6, ids=("oil", "tea", "yeast")):
    """Three short series that rise, from Monday 2024-03-04 on."""
    ds = pd.date_range("2024-03-04", periods=steps, freq=freq)
    parts = [
        pd.DataFrame({"unique_id": name, "ds": ds, "y": np.arange(steps) + 1.0 + k})
        for k, name in enumerate(ids)
    ]
    return pd.concat(parts, ignore_index=True)


def refusal(error, table, *, static_df=None, **data):
    """The error that `validate` raises on a table."""
    with pytest.raises(error) as caught:
        validate(table, DataConfig(**data), static_df=static_df)
    return caught.value


def assert_tells(error, *parts):
    """The text names everything that ends the search, and always a way out."""
    assert error.help
    for part in parts:
        assert part in str(error)


def test_a_clean_table_comes_back_sorted_and_resolved():
    """Frequency and kind are filled in; ids are text, values float64, stamps nanoseconds."""
    table = sales(freq="MS").sample(frac=1, random_state=1)

    checked = validate(table, DataConfig())

    assert checked.calendar == Calendar("MS")
    assert (checked.data.freq, checked.data.kind, checked.kind) == ("MS", "positive", "positive")
    assert (checked.rows, checked.filled) == (18, 0)
    pd.testing.assert_frame_equal(checked.frame, sales(freq="MS"))


@given(order=st.permutations(range(18)))
def test_the_order_of_rows_does_not_matter(order):
    """Any order of the rows gives the same frame and the same digest."""
    table = sales().assign(price=np.arange(18.0))
    data = DataConfig(known_future=("price",))

    shuffled = validate(table.iloc[list(order)], data)

    assert shuffled.digest == validate(table, data).digest
    pd.testing.assert_frame_equal(shuffled.frame, validate(table, data).frame)


def test_centuries_are_sorted_too():
    """A span that nanoseconds barely hold is put in order like any other."""
    ds = pd.date_range("1700-01-01", "2200-01-01", freq="YS")
    table = pd.DataFrame({"unique_id": "a", "ds": ds, "y": np.arange(len(ds)) + 1.0})

    checked = validate(table.sample(frac=1, random_state=0), DataConfig(freq="YS"))

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

    assert validate(changed, data).digest != validate(table, data).digest


def test_columns_by_another_name_are_used_when_named():
    """`id_col`, `time_col` and `target_col` bring other names to the usual ones."""
    table = sales().rename(columns={"unique_id": "item", "ds": "date", "y": "sold"})

    checked = validate(table, DataConfig(id_col="item", time_col="date", target_col="sold"))

    assert list(checked.frame.columns) == ["unique_id", "ds", "y"]


def test_columns_without_a_role_are_left_alone():
    """Text, holes and all: what has no role is no fault, and `report` lists it."""
    table = sales().assign(note=["?", None, 3] * 6)

    assert "note" not in validate(table, DataConfig()).frame
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
    assert validate(sales().astype({"y": str}), DataConfig()).frame["y"].dtype == np.float64


def test_repeated_rows_are_told_from_conflicting_ones():
    """Equal repeats may be dropped; different values need a decision."""
    table = sales()
    repeat = pd.concat([table, table.iloc[[4, 5]]])
    conflict = pd.concat([table, table.iloc[[4]].assign(y=99.0), table.iloc[[7]]])

    same, different = refusal(DuplicateStamps, repeat), refusal(DuplicateStamps, conflict)

    assert_tells(same, "2024-03-08 twice with equal values", "2 repeated rows", "drop_duplicates")
    assert_tells(different, "conflicting", "y=5 and 99", "1 conflicting row in 1 of 3", "groupby")


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


@pytest.mark.parametrize("fill", ["refuse", "zero", "forward", "mask"])
@pytest.mark.parametrize("placeholder", [1.7976931348623157e308, -3.4e38])
def test_what_stands_for_nothing_in_other_programs_is_no_value(fill, placeholder):
    """The largest double or float for a hole would reach every series through the loss."""
    table = sales()
    table.loc[3, "y"] = placeholder

    told = refusal(MissingValues, table, fill=fill)

    assert_tells(told, f"y={placeholder:g}", "at most 1e+18 in size", "(1 row in 1 of 3")


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
    assert validate(table, DataConfig()).kind == "real"


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
    assert validate(table, DataConfig(kind=kind)).kind == kind

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

    assert validate(table, DataConfig()).kind == "count"


def test_a_series_of_one_row_is_one_among_others():
    """A new product is no fault; a table of nothing else is."""
    table, data = sales().drop([1, 2, 3, 4, 5]), DataConfig(freq="D")
    firsts = table.groupby("unique_id").head(1)

    assert (validate(table, data).frame["unique_id"] == "oil").sum() == 1
    assert_tells(refusal(TooShort, firsts, freq="D"), "no series has two rows", "3 series of 1 row")
    assert validate(firsts, data, to_learn=False).rows == 3


def test_a_table_without_rows_is_refused():
    """Nothing in, nothing to check."""
    assert_tells(refusal(TooShort, sales().iloc[:0]), "no rows")


def test_a_series_without_any_value_is_too_short():
    """A masked series of NaN alone has no first value to begin at."""
    table = sales().assign(y=lambda t: t["y"].where(t["unique_id"] != "tea"))

    assert_tells(
        refusal(TooShort, table, fill="mask"), "series 'tea' has no row with a value", "1 of 3"
    )


def test_only_all_series_constant_is_refused():
    """One constant series among others is fine; nothing but constants teaches nothing."""
    table = sales()
    table.loc[table["unique_id"] == "oil", "y"] = 3.0

    assert validate(table, DataConfig()).rows == 18
    assert_tells(refusal(ConstantSeries, table[:6]), "repeats y=3")


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

    validate(table, DataConfig(fill="zero"))

    pd.testing.assert_frame_equal(table, before)


@pytest.mark.parametrize(
    ("file", "data", "rows"),
    [
        ("monthly_retail", {"static": ("state", "industry")}, 26_460),
        (
            "weekly_sales",
            {"known_future": ("price", "deal", "feat"), "static": ("store", "brand")},
            6_464,
        ),
        ("daily_stocks", {"freq": "XNYS", "past_only": ("open", "high", "low", "volume")}, 12_625),
    ],
)
def test_bundled_data_pass_as_they_are(file, data, rows):
    """Every bundled file is clean under the roles its README gives."""
    checked = validate(EXAMPLES / f"{file}.parquet", DataConfig(**data))

    assert (checked.rows, checked.filled, checked.kind) == (rows, 0, "positive")

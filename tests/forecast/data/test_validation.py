"""Validation: checked series, and errors that name series, place, expected, found and remedy."""

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
from tests.helpers.paths import EXAMPLES
from tests.helpers.tables import assert_message, refusal, sales


def test_a_clean_table_is_sorted_and_its_settings_resolved():
    """Frequency and kind are filled in; names are text, values float64, stamps nanoseconds."""
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


def test_stamps_over_centuries_are_sorted():
    """Rows are sorted even if their span is near the limit of 64-bit nanoseconds."""
    ds = pd.date_range("1700-01-01", "2200-01-01", freq="YS")
    table = pd.DataFrame({"unique_id": "a", "ds": ds, "y": np.arange(len(ds)) + 1.0})

    checked = validate(table.sample(frac=1, random_state=0), DataConfig(freq="YS"))

    pd.testing.assert_frame_equal(checked.frame, table)


@given(row=st.integers(0, 17), column=st.sampled_from(["y", "price", "store"]))
def test_the_digest_changes_with_any_value(row, column):
    """A different value of the target, a covariate or a static column gives a different digest."""
    table = sales().assign(price=1.0, store="a")
    data = DataConfig(freq="D", known_future=("price",), static=("store",))
    changed = table.copy()
    if column == "store":
        changed.loc[changed["unique_id"] == table["unique_id"][row], "store"] = "b"
    else:
        changed.loc[row, column] += 1

    assert validate(changed, data).digest != validate(table, data).digest


def test_columns_may_have_other_names():
    """Columns named by `id_col`, `time_col` and `target_col` get the usual names."""
    table = sales().rename(columns={"unique_id": "item", "ds": "date", "y": "sold"})

    checked = validate(table, DataConfig(id_col="item", time_col="date", target_col="sold"))

    assert list(checked.frame.columns) == ["unique_id", "ds", "y"]


def test_columns_without_a_role_are_ignored():
    """A column without a role may hold anything; `report` lists it as unused."""
    table = sales().assign(note=["?", None, 3] * 6)

    assert "note" not in validate(table, DataConfig()).frame
    assert report(table, DataConfig())["unused_columns"] == ["note"]


def test_an_error_for_missing_columns_suggests_the_likely_ones():
    """For columns `date` and `sales` the message gives the two settings that name them."""
    error = refusal(MissingColumns, sales().rename(columns={"ds": "date", "y": "sales"}))

    assert_message(error, "'ds' (time_col)", 'set time_col = "date"', 'set target_col = "sales"')


@pytest.mark.parametrize("role", ["known_future", "past_only", "static"])
def test_a_role_that_names_no_column_is_refused(role):
    """The message for a misspelled covariate suggests the existing column."""
    error = refusal(MissingColumns, sales().assign(price=1.0), **{role: ("prise",)})

    assert_message(error, f"'prise' ({role})", f'set {role} = ["price"]')


def test_two_columns_with_the_same_name_are_refused():
    """It would be ambiguous which of the two is meant."""
    table = pd.concat([sales(), sales()["y"]], axis=1)

    assert_message(refusal(MissingColumns, table), "2 columns named 'y'")


def test_text_in_a_column_of_numbers_is_reported_with_series_and_row():
    """The message quotes the first value that is not a number."""
    table = sales().astype({"y": object})
    table.loc[7, "y"] = "12,5"

    error = refusal(WrongType, table)

    assert_message(error, "series 'tea' has y='12,5'", "row 7", "(1 row in 1 of 3", 'decimal=","')


def test_numbers_written_as_text_are_numbers():
    """Text that spells a number, as databases may return it, is accepted."""
    assert validate(sales().astype({"y": str}), DataConfig()).frame["y"].dtype == np.float64


def test_repeated_rows_and_conflicting_rows_get_different_messages():
    """Equal repeats may be dropped; conflicting values need a decision by the user."""
    table = sales()
    repeat = pd.concat([table, table.iloc[[4, 5]]])
    conflict = pd.concat([table, table.iloc[[4]].assign(y=99.0), table.iloc[[7]]])

    same, different = refusal(DuplicateStamps, repeat), refusal(DuplicateStamps, conflict)

    assert_message(same, "2024-03-08 twice with equal values", "2 repeated rows", "drop_duplicates")
    assert_message(different, "conflicting", "y=5 and 99", "1 conflicting row in 1 of 3", "groupby")


def test_missing_values_are_counted_over_all_series():
    """The message counts the rows with NaN and the series that have them."""
    table = sales()
    table.loc[[3, 9, 15], "y"] = np.nan

    error = refusal(MissingValues, table)

    assert_message(
        error, "series 'oil' has y=NaN", "2024-03-07", "(3 rows in 3 of 3", 'fill = "mask"'
    )


@pytest.mark.parametrize("fill", ["refuse", "zero", "forward", "mask"])
def test_infinity_is_refused_under_every_fill_policy(fill):
    """A fill policy replaces missing values only."""
    table = sales()
    table.loc[3, "y"] = np.inf

    assert_message(refusal(MissingValues, table, fill=fill), "y=inf")


@pytest.mark.parametrize("fill", ["refuse", "zero", "forward", "mask"])
@pytest.mark.parametrize("placeholder", [1.7976931348623157e308, -3.4e38])
def test_huge_placeholders_of_missing_values_are_refused(fill, placeholder):
    """Some programs write the largest double or float for a missing value."""
    table = sales()
    table.loc[3, "y"] = placeholder

    error = refusal(MissingValues, table, fill=fill)

    assert_message(
        error, f"y={placeholder:g}", "at most 1e+18 in absolute value", "(1 row in 1 of 3"
    )


@pytest.mark.parametrize("fill", ["refuse", "mask"])
def test_covariates_must_have_a_value_in_every_row(fill):
    """A missing value of a covariate is refused under every policy, naming the column."""
    table = sales().assign(price=1.0)
    table.loc[3, "price"] = np.nan

    assert_message(refusal(MissingValues, table, fill=fill, past_only=("price",)), "price=NaN")


def test_negative_values_are_refused_for_a_positive_kind():
    """Without a declared kind, the same values are of kind `real`."""
    table = sales().assign(y=lambda t: t["y"] - 3)

    assert_message(refusal(NegativeValues, table, kind="positive"), "y=-2", "3 rows in 2 of 3")
    assert validate(table, DataConfig()).kind == "real"


@pytest.mark.parametrize(
    ("kind", "least", "message"),
    [
        ("positive", 0.0, "expects 0 or more"),
        ("count", 0.0, "expects 0 or more"),
        ("price", 0.5, "expects values above 0"),
        ("volatility", 1e-8, "expects values above 0"),
    ],
)
def test_each_kind_has_a_lower_bound(kind, least, message):
    """A value at the bound passes; one below it, which is 0 for prices, is refused."""
    table = sales()
    table.loc[3, "y"] = least
    assert validate(table, DataConfig(kind=kind)).kind == kind

    table.loc[3, "y"] = -1.0 if least == 0 else 0.0
    assert_message(refusal(NegativeValues, table, kind=kind), f"kind='{kind}'", message)


@pytest.mark.parametrize("kind", ["price", "volatility"])
def test_missing_prices_cannot_be_filled_with_zeros(kind):
    """The fill policy would add values that the kind does not allow."""
    table = sales().drop(3)

    assert_message(refusal(ConfigError, table, kind=kind, fill="zero"), "fill='zero'", kind)


def test_values_with_many_zeros_are_counts():
    """One zero in 18 rows is above the limit of 5 %."""
    table = sales()
    table.loc[3, "y"] = 0.0

    assert validate(table, DataConfig()).kind == "count"


def test_a_series_of_one_row_is_accepted_beside_longer_ones():
    """A table that holds only such series is too short to learn from."""
    table, data = sales().drop([1, 2, 3, 4, 5]), DataConfig(freq="D")
    firsts = table.groupby("unique_id").head(1)

    assert (validate(table, data).frame["unique_id"] == "oil").sum() == 1
    assert_message(
        refusal(TooShort, firsts, freq="D"), "no series has two rows", "3 series of 1 row"
    )
    assert validate(firsts, data, to_learn=False).rows == 3


def test_a_table_without_rows_is_refused():
    """An empty table is too short."""
    assert_message(refusal(TooShort, sales().iloc[:0]), "no rows")


def test_a_series_without_any_value_is_too_short():
    """Under `mask`, a series of NaN alone has no first value at which to begin."""
    table = sales().assign(y=lambda t: t["y"].where(t["unique_id"] != "tea"))

    assert_message(
        refusal(TooShort, table, fill="mask"), "series 'tea' has no row with a value", "1 of 3"
    )


def test_constant_series_are_refused_only_if_all_are_constant():
    """One constant series beside others is accepted."""
    table = sales()
    table.loc[table["unique_id"] == "oil", "y"] = 3.0

    assert validate(table, DataConfig()).rows == 18
    assert_message(refusal(ConstantSeries, table[:6]), "repeats y=3")


def test_rows_without_the_name_of_a_series_are_refused():
    """The message names the column and the first such row."""
    table = sales()
    table.loc[4, "unique_id"] = None

    assert_message(refusal(MissingValues, table), "column 'unique_id' is empty in 1 of 18", "row 4")


def test_a_covariate_cannot_take_the_name_of_the_target():
    """The checked frame could not have two columns named `y`."""
    table = sales().assign(sold=1.0)

    assert_message(refusal(ConfigError, table, target_col="sold", past_only=("y",)), "'y'")


def test_a_report_lists_all_problems_instead_of_raising():
    """The report has the span, the size and the code of every error."""
    table = pd.concat([sales(), sales().iloc[[4]]]).drop([1, 8])
    table.iloc[5, 2] = -1.0

    summary = report(table, DataConfig(kind="positive"))

    assert (summary["series"], summary["rows"], summary["freq"]) == (3, 17, "D")
    assert (summary["first"], summary["last"]) == ("2024-03-04", "2024-03-09")
    codes = [problem["code"] for problem in summary["problems"]]
    assert codes == ["data.duplicate", "data.gap", "data.negative"]


def test_a_report_does_not_need_a_frequency():
    """If the frequency cannot be inferred, the report lists that error and the other facts."""
    ds = pd.to_datetime(["2024-01-15", "2024-02-15", "2024-03-15"])
    table = pd.DataFrame({"unique_id": "a", "ds": ds, "y": [1.0, 2.0, 0.0]})

    summary = report(table, DataConfig())

    assert (summary["freq"], summary["zero_share"]) == (None, 0.3333)
    assert [problem["code"] for problem in summary["problems"]] == ["data.frequency"]


def test_the_table_of_the_caller_is_not_modified():
    """Validation does not sort, fill or rename in place."""
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
def test_the_example_data_are_valid(file, data, rows):
    """Every example file passes with the roles that its README gives."""
    checked = validate(EXAMPLES / f"{file}.parquet", DataConfig(**data))

    assert (checked.rows, checked.filled, checked.kind) == (rows, 0, "positive")

"""Future covariates: complete for the horizon, or an error with series, stamp and columns."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forecast.calendars.calendar import Calendar
from forecast.config import DataConfig
from forecast.data.future_covariates import check_future, split_future
from forecast.errors import DuplicateStamps, MissingColumns, MissingFuture, WrongType

IDS = ("oil", "tea", "yeast")
LAST = np.array([pd.Timestamp(t).value for t in ("2024-03-09", "2024-03-08", "2024-03-09")])


def future():
    """Return prices from before the last stamps to beyond the horizon, with an extra series."""
    ds = pd.date_range("2024-03-05", "2024-03-25")
    parts = [
        pd.DataFrame({"unique_id": name, "ds": ds, "price": 100.0 * k + ds.day, "deal": k % 2})
        for k, name in enumerate((*IDS, "salt"))
    ]
    return pd.concat(parts, ignore_index=True)


def checked(table, columns=("price", "deal"), horizon=7):
    return check_future(
        table,
        ids=IDS,
        last_ds=LAST,
        horizon=horizon,
        calendar=Calendar("D"),
        columns=columns,
        data=DataConfig(known_future=columns),
    )


def refusal(error, table, **options):
    with pytest.raises(error) as caught:
        checked(table, **options)
    assert caught.value.help
    return str(caught.value)


@given(seed=st.integers(0, 99), horizon=st.integers(1, 10))
def test_values_are_placed_at_their_series_and_step(seed, horizon):
    """Whatever the order of the rows, each series gets the values after its own last stamp."""
    values = checked(future().sample(frac=1, random_state=seed), horizon=horizon)

    days = np.arange(1, horizon + 1)
    expected = np.array([9 + days, 100 + 8 + days, 200 + 9 + days])
    np.testing.assert_array_equal(values[..., 0], expected)
    np.testing.assert_array_equal(values[..., 1], np.array([[0], [1], [0]]).repeat(horizon, 1))


@given(series=st.sampled_from(IDS), step=st.integers(1, 7))
def test_a_single_missing_row_is_reported(series, step):
    """The message names the series, the stamp and the step."""
    stamp = pd.Timestamp(LAST[IDS.index(series)]) + pd.Timedelta(step, "D")
    table = future()

    text = refusal(MissingFuture, table[(table.unique_id != series) | (table.ds != stamp)])

    assert f"series {series!r} has no future 'price', 'deal' at {stamp.date()}, step {step}" in text
    assert "found no row (1 step in 1 of 3 series" in text


def test_a_missing_value_names_its_column():
    """A row with NaN is reported with the column."""
    table = future()
    table.loc[(table.unique_id == "tea") & (table.ds == "2024-03-11"), "price"] = np.nan

    text = refusal(MissingFuture, table)

    assert "series 'tea' has no future 'price' at 2024-03-11" in text
    assert "found NaN" in text


def test_stamps_that_do_not_continue_the_series_are_mentioned():
    """The message shows a stamp that is six hours off."""
    table = future()
    table["ds"] += pd.Timedelta(6, "h")

    assert "2024-03-05 06:00:00, which is not a step" in refusal(MissingFuture, table)


def test_the_message_without_a_table_says_what_to_pass():
    """It names the columns and the number of steps."""
    text = refusal(MissingFuture, None)

    assert "'price', 'deal' for 7 steps" in text
    assert "give unique_id, ds, price, deal" in text


def test_an_empty_table_is_refused():
    """The first step of the first series is reported as missing."""
    assert "series 'oil' has no future" in refusal(MissingFuture, future().iloc[:0])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            lambda t: t.rename(columns={"price": "prise"}),
            MissingColumns,
            "rename 'prise' to 'price'",
        ),
        (lambda t: t.assign(price="dear"), WrongType, "price='dear'"),
        (lambda t: t.assign(ds=range(len(t))), MissingFuture, "expected dates"),
        (
            lambda t: pd.concat([t, t.iloc[[8]]]),
            DuplicateStamps,
            "series 'oil' has 2024-03-13 twice",
        ),
    ],
)
def test_a_table_that_cannot_be_read_is_refused(change, error, message):
    """Wrong names, text, integers instead of dates and repeated rows each have their error."""
    assert message in refusal(error, change(future()))


def test_without_future_columns_no_table_is_needed():
    """The result has no covariates."""
    assert checked(None, columns=()).shape == (3, 7, 0)


@pytest.mark.parametrize(
    ("fill", "expected"), [("refuse", [2, 3]), ("mask", [2, 3]), ("zero", [4, 3])]
)
def test_rows_after_the_last_value_belong_to_the_future(fill, expected):
    """The split is made per series; with `fill="zero"` a series may end in missing values."""
    table = pd.DataFrame(
        {
            "unique_id": list("aaaaaabbbbbb"),
            "ds": [*range(1, 7)] * 2,
            "y": [5.0, 6, np.nan, np.nan, np.nan, np.nan, 1, np.nan, 3, 4, np.nan, np.nan],
        }
    )

    past, future = split_future(table, DataConfig(freq=1, fill=fill))

    assert past.groupby("unique_id").size().tolist() == [expected[0], 4]
    assert len(past) + len(future) == len(table)
    assert past.loc[past["unique_id"] == "b", "y"].notna().sum() == expected[1]

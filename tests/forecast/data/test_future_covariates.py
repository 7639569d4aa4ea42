"""Future covariates: complete for the horizon, or refused with series, first stamp and columns."""

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
    """Prices from before the last stamps to beyond the horizon, with a series nobody asked for."""
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
def test_values_land_on_their_series_and_step(seed, horizon):
    """In any order of rows, each series gets the values after its own last stamp."""
    values = checked(future().sample(frac=1, random_state=seed), horizon=horizon)

    days = np.arange(1, horizon + 1)
    expected = np.array([9 + days, 100 + 8 + days, 200 + 9 + days])
    np.testing.assert_array_equal(values[..., 0], expected)
    np.testing.assert_array_equal(values[..., 1], np.array([[0], [1], [0]]).repeat(horizon, 1))


@given(series=st.sampled_from(IDS), step=st.integers(1, 7))
def test_one_missing_row_is_found_wherever_it_is(series, step):
    """The series and the first missing stamp are named."""
    stamp = pd.Timestamp(LAST[IDS.index(series)]) + pd.Timedelta(step, "D")
    table = future()

    text = refusal(MissingFuture, table[(table.unique_id != series) | (table.ds != stamp)])

    assert f"series {series!r} has no future 'price', 'deal' at {stamp.date()}, step {step}" in text
    assert "found no row (1 step in 1 of 3 series" in text


def test_a_hole_in_one_column_names_that_column():
    """NaN is as good as no row, and the message says which."""
    table = future()
    table.loc[(table.unique_id == "tea") & (table.ds == "2024-03-11"), "price"] = np.nan

    text = refusal(MissingFuture, table)

    assert "series 'tea' has no future 'price' at 2024-03-11" in text
    assert "found NaN" in text


def test_stamps_off_the_grid_are_shown():
    """Rows that are there, but six hours late, are mentioned."""
    table = future()
    table["ds"] += pd.Timedelta(6, "h")

    assert "2024-03-05 06:00:00, which is no step" in refusal(MissingFuture, table)


def test_nothing_at_all_says_what_to_pass():
    """Without a table the message names its columns and how many steps."""
    text = refusal(MissingFuture, None)

    assert "'price', 'deal' for 7 steps" in text
    assert "give unique_id, ds, price, deal" in text


def test_an_empty_table_covers_nothing():
    """A table without rows lacks the first step of the first series."""
    assert "series 'oil' has no future" in refusal(MissingFuture, future().iloc[:0])


@pytest.mark.parametrize(
    ("change", "error", "told"),
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
def test_a_table_that_cannot_be_read_is_refused(change, error, told):
    """Wrong names, text, integers for dates and repeats are told as such."""
    assert told in refusal(error, change(future()))


def test_without_future_columns_nothing_is_needed():
    """A model without known-future covariates asks for none."""
    assert checked(None, columns=()).shape == (3, 7, 0)


@pytest.mark.parametrize(("fill", "left"), [("refuse", [2, 3]), ("mask", [2, 3]), ("zero", [4, 3])])
def test_what_is_only_planned_is_no_history(fill, left):
    """Per series; where a missing value means zero, a series may end in zeros before the rest."""
    table = pd.DataFrame(
        {
            "unique_id": list("aaaaaabbbbbb"),
            "ds": [*range(1, 7)] * 2,
            "y": [5.0, 6, np.nan, np.nan, np.nan, np.nan, 1, np.nan, 3, 4, np.nan, np.nan],
        }
    )

    past, future = split_future(table, DataConfig(freq=1, fill=fill))

    assert past.groupby("unique_id").size().tolist() == [left[0], 4]
    assert len(past) + len(future) == len(table)
    assert past.loc[past["unique_id"] == "b", "y"].notna().sum() == left[1]

"""Filling of missing steps: every one is counted, inserted at its stamp, and valued by policy."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forecast.calendars.calendar import Calendar
from forecast.config import DataConfig
from forecast.data.gaps import carry_forward, fill_values, insert_steps, missing_before
from forecast.data.validation import validate
from forecast.errors import MissingSteps
from tests.helpers.tables import assert_message, refusal, sales

FREQS = ["D", "h", "W-FRI", "MS", "ME", "QS-JAN", "B", "15min"]


def stamps(freq, steps):
    """Return stamps of a frequency from 2024-03-04 on."""
    return pd.date_range("2024-03-04", periods=steps, freq=freq).to_numpy().astype(np.int64)


@given(
    left=st.sets(st.integers(0, 39), min_size=1),
    freq=st.sampled_from([*FREQS, "2MS", "2W-MON"]),
)
def test_counted_and_inserted_steps_restore_the_series(left, freq):
    """Whatever steps are taken out after the first, the stamps are those of the whole series."""
    whole, calendar = stamps(freq, 40), Calendar(freq)
    rows = np.array(sorted({0, *left}))

    missing = missing_before(calendar, whole[np.r_[0, rows[:-1]]], whole[rows])
    filled = insert_steps(calendar, whole[rows], missing)

    last = rows[-1] + 1
    np.testing.assert_array_equal(filled.stamps, whole[:last])
    np.testing.assert_array_equal(filled.inserted, ~np.isin(np.arange(last), rows))
    np.testing.assert_array_equal(rows[filled.source[~filled.inserted]], rows)
    assert (rows[filled.source] >= np.arange(last)).all()


def test_steps_of_several_series_are_inserted_in_front_of_their_rows():
    """The source of an inserted step is the row after it, here the first row of each series."""
    filled = insert_steps(Calendar(1), np.array([7, 8, 4]), np.array([1, 0, 2]))

    assert filled.source.tolist() == [0, 0, 1, 2, 2, 2]
    assert filled.stamps.tolist() == [6, 7, 8, 2, 3, 4]
    assert filled.inserted.tolist() == [True, False, False, True, True, False]


def test_nothing_is_missing_between_stamps_that_do_not_follow_each_other():
    """Equal stamps, stamps in reverse order and stamps of two phases have no steps between."""
    day = stamps("D", 4)
    previous = np.array([day[1], day[3], day[0]])
    following = np.array([day[1], day[0], day[3] + 3_600_000_000_000])

    assert missing_before(Calendar("D"), previous, following).tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("policy", "expected"),
    [("zero", [0.0, 0.0]), ("forward", [3.0, -1.0]), ("mask", [np.nan, np.nan])],
)
def test_each_policy_has_its_fill_value(policy, expected):
    """Missing steps are 0, the last value, or NaN."""
    np.testing.assert_array_equal(fill_values(policy, np.array([3.0, -1.0])), expected)


@given(st.lists(st.one_of(st.just(np.nan), st.floats(-9, 9)), max_size=20))
def test_values_are_carried_forward_as_pandas_does(values):
    """After a first number, each NaN takes the last number before it."""
    series = np.array([0.0, *values])

    np.testing.assert_array_equal(carry_forward(series), pd.Series(series).ffill())


@given(
    lost=st.sets(st.tuples(st.integers(0, 9), st.integers(1, 38)), min_size=1, max_size=5),
    freq=st.sampled_from(FREQS),
)
def test_every_missing_step_of_every_series_is_counted(lost, freq):
    """Whatever rows inside ten series are removed, the message counts all of them."""
    table = sales(freq, 40, ids=tuple("abcdefghij"))
    with_gaps = table.drop([series * 40 + step for series, step in lost])
    series = sorted({"abcdefghij"[i] for i, _ in lost})

    error = refusal(MissingSteps, with_gaps, freq=freq)

    rows = f"{len(lost)} missing step{'s' if len(lost) > 1 else ''}"
    assert_message(error, f"series {series[0]!r} skips", f"{rows} in {len(series)} of 10 series")


@given(
    lost=st.sets(st.integers(1, 38), max_size=30),
    freq=st.sampled_from(FREQS),
    fill=st.sampled_from(["zero", "forward", "mask"]),
)
def test_a_fill_policy_restores_every_missing_step(lost, freq, fill):
    """Filled series are regular, have the values of the policy, and count the filled steps."""
    table = sales(freq, 40, ids=("a", "b")).assign(price=np.arange(80.0))
    observed = table["y"].where(~table.index.isin(lost))
    steps = pd.Series(table.index.where(~table.index.isin(lost))).ffill()
    expected = {"zero": observed.fillna(0.0), "forward": observed.ffill(), "mask": observed}[fill]

    checked = validate(table.drop(lost), DataConfig(freq=freq, fill=fill, known_future=("price",)))

    assert (checked.filled, checked.rows) == (len(lost), 80)
    pd.testing.assert_series_equal(checked.frame["ds"], table["ds"])
    np.testing.assert_array_equal(checked.frame["y"], expected)
    np.testing.assert_array_equal(checked.frame["price"], table["price"][steps])


def test_a_masked_series_begins_at_its_first_value():
    """Rows before the first value are dropped instead of masked."""
    table = sales()
    table.loc[[0, 1, 3], "y"] = np.nan

    checked = validate(table, DataConfig(fill="mask"))

    oil = checked.frame[checked.frame["unique_id"] == "oil"]
    assert str(oil["ds"].iloc[0].date()) == "2024-03-06"
    assert oil["y"].isna().tolist() == [False, True, False, False]
    assert checked.filled == 1


def test_a_fill_of_far_more_steps_than_rows_is_refused():
    """Filling five centuries by the minute is a wrong frequency, not a gap."""
    ds = pd.to_datetime(["1700-01-01T00:00", "1700-01-01T00:01", "2200-01-01T00:00"])
    table = pd.DataFrame({"unique_id": "a", "ds": ds, "y": [1.0, 2.0, 3.0]})

    assert_message(refusal(MissingSteps, table, freq="min", fill="mask"), "would make 262,")

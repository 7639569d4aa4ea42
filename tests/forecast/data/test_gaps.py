"""Gaps and frequencies: each missing step is counted, filled as told, or the true spacing named."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forecast.config import DataConfig
from forecast.data.validation import validate
from forecast.errors import MissingSteps, WrongFrequency
from tests.forecast.data.test_validation import EXAMPLES, assert_tells, refusal, sales

FREQS = ["D", "h", "W-FRI", "MS", "ME", "QS-JAN", "B", "15min"]


@given(
    lost=st.sets(st.tuples(st.integers(0, 9), st.integers(1, 38)), min_size=1, max_size=5),
    freq=st.sampled_from(FREQS),
)
def test_every_gap_of_every_series_is_counted(lost, freq):
    """Whatever rows inside ten series are taken out, the message counts all of them."""
    table = sales(freq, 40, ids=tuple("abcdefghij"))
    holed = table.drop([series * 40 + step for series, step in lost])
    series = sorted({"abcdefghij"[i] for i, _ in lost})

    error = refusal(MissingSteps, holed, freq=freq)

    rows = f"{len(lost)} missing step{'s' if len(lost) > 1 else ''}"
    assert_tells(error, f"series {series[0]!r} skips", f"{rows} in {len(series)} of 10 series")


@given(
    lost=st.sets(st.integers(1, 38), max_size=30),
    freq=st.sampled_from(FREQS),
    fill=st.sampled_from(["zero", "forward", "mask"]),
)
def test_a_fill_policy_restores_every_missing_step(lost, freq, fill):
    """Filled series are regular again, hold what the policy says, and count what was made up."""
    table = sales(freq, 40, ids=("a", "b")).assign(price=np.arange(80.0))
    kept = table["y"].where(~table.index.isin(lost))
    steps = pd.Series(table.index.where(~table.index.isin(lost))).ffill()
    expected = {"zero": kept.fillna(0.0), "forward": kept.ffill(), "mask": kept}[fill]

    checked = validate(table.drop(lost), DataConfig(freq=freq, fill=fill, known_future=("price",)))

    assert (checked.filled, checked.rows) == (len(lost), 80)
    pd.testing.assert_series_equal(checked.frame["ds"], table["ds"])
    np.testing.assert_array_equal(checked.frame["y"], expected)
    np.testing.assert_array_equal(checked.frame["price"], table["price"][steps])


def test_a_masked_series_begins_at_its_first_value():
    """What precedes the first value is not kept as a long hole."""
    table = sales()
    table.loc[[0, 1, 3], "y"] = np.nan

    checked = validate(table, DataConfig(fill="mask"))

    oil = checked.frame[checked.frame["unique_id"] == "oil"]
    assert str(oil["ds"].iloc[0].date()) == "2024-03-06"
    assert oil["y"].isna().tolist() == [False, True, False, False]
    assert checked.filled == 1


def test_a_fill_that_would_explode_is_refused():
    """Filling hourly between yearly stamps is a wrong frequency, not a hole."""
    ds = pd.to_datetime(["1700-01-01T00:00", "1700-01-01T00:01", "2200-01-01T00:00"])
    table = pd.DataFrame({"unique_id": "a", "ds": ds, "y": [1.0, 2.0, 3.0]})

    assert_tells(refusal(MissingSteps, table, freq="min", fill="mask"), "would make 262,")


@pytest.mark.parametrize(
    ("declared", "true", "told"),
    [
        ("MS", "W-FRI", "no stamp of freq='MS'"),
        ("W", "W-FRI", "no stamp of freq='W-SUN'"),
        ("MS", "ME", "no stamp of freq='MS'"),
        ("D", "W-FRI", "does not advance by freq='D'"),
        ("h", "15min", "irregular steps for freq='h'"),
        ("h", "D", "does not advance"),
        ("MS", "QS-JAN", "does not advance by freq='MS'"),
    ],
)
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
    assert validate(stocks, DataConfig(freq="XNYS")).filled == 0


def test_a_stamp_that_is_no_session_is_refused():
    """Good Friday is a business day and no session."""
    error = refusal(WrongFrequency, sales(freq="B", steps=40), freq="XNYS")

    assert_tells(error, "2024-03-29, which is no stamp", "2024-03-28 and 2024-04-01")


def test_local_midnights_across_a_change_of_the_clocks_lead_to_dropping_the_zone():
    """Days of Berlin are no days of UTC: the help says what to do with them."""
    ds = pd.date_range("2025-03-01", periods=60, freq="D", tz="Europe/Berlin")
    table = pd.DataFrame({"unique_id": "a", "ds": ds, "y": np.arange(60.0)})

    error = refusal(WrongFrequency, table, freq="D")

    assert ".dt.tz_localize(None)" in error.help
    assert validate(table.assign(ds=ds.tz_localize(None)), DataConfig(freq="D")).filled == 0

"""Checks of the frequency: the message names the true spacing, calendar or time zone."""

import numpy as np
import pandas as pd
import pytest

from forecast.config import DataConfig
from forecast.data.validation import validate
from forecast.errors import MissingSteps, WrongFrequency
from tests.helpers.paths import EXAMPLES
from tests.helpers.tables import assert_message, refusal, sales


@pytest.mark.parametrize(
    ("declared", "true", "message"),
    [
        ("MS", "W-FRI", "not a stamp of freq='MS'"),
        ("W", "W-FRI", "not a stamp of freq='W-SUN'"),
        ("MS", "ME", "not a stamp of freq='MS'"),
        ("D", "W-FRI", "does not advance by freq='D'"),
        ("h", "15min", "irregular steps for freq='h'"),
        ("h", "D", "does not advance"),
        ("MS", "QS-JAN", "does not advance by freq='MS'"),
    ],
)
def test_the_message_for_a_wrong_frequency_names_the_true_one(declared, true, message):
    """The message says what the stamps look like, and the help how to declare it."""
    error = refusal(WrongFrequency, sales(freq=true, steps=20), freq=declared)

    assert_message(error, message, f"most stamps look like '{true}'", f'declare freq = "{true}"')


@pytest.mark.parametrize(("freq", "ds"), [(1, "2024-03-04"), ("D", 1)])
def test_dates_and_integers_need_a_frequency_of_their_kind(freq, ds):
    """An integer frequency refuses dates, and the other way round."""
    table = pd.DataFrame({"unique_id": "a", "ds": [ds], "y": [1.0]})

    assert_message(refusal(WrongFrequency, table, freq=freq), f"freq={freq!r} expects", str(ds))


def test_daily_rows_without_weekends_suggest_business_days():
    """Rows from Monday to Friday that are declared daily get freq = "B" as advice."""
    error = refusal(MissingSteps, sales(freq="B", steps=40), freq="D")

    assert 'freq = "B"' in error.help


def test_holidays_of_an_exchange_suggest_its_calendar():
    """Stock prices look like business days with gaps; the help names XNYS."""
    stocks = pd.read_parquet(EXAMPLES / "daily_stocks.parquet")

    error = refusal(MissingSteps, stocks)

    assert_message(error, "expected 2013-01-21, found 2013-01-22", 'declare freq = "XNYS"')
    assert validate(stocks, DataConfig(freq="XNYS")).filled == 0


def test_a_stamp_that_is_not_a_session_is_refused():
    """Good Friday is a business day but not a session."""
    error = refusal(WrongFrequency, sales(freq="B", steps=40), freq="XNYS")

    assert_message(error, "2024-03-29, which is not a stamp", "2024-03-28 and 2024-04-01")


def test_local_midnights_across_daylight_saving_suggest_dropping_the_zone():
    """Midnights in Berlin are not midnights in UTC; the help says what to do."""
    ds = pd.date_range("2025-03-01", periods=60, freq="D", tz="Europe/Berlin")
    table = pd.DataFrame({"unique_id": "a", "ds": ds, "y": np.arange(60.0)})

    error = refusal(WrongFrequency, table, freq="D")

    assert ".dt.tz_localize(None)" in error.help
    assert validate(table.assign(ds=ds.tz_localize(None)), DataConfig(freq="D")).filled == 0

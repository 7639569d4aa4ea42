"""Inference of the frequency: that of most stamps, or an error that asks for it."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forecast.calendars.calendar import Calendar
from forecast.calendars.frequency import infer_freq
from forecast.errors import WrongFrequency
from tests.helpers.calendars import OFFSETS, days, stamps


def first_only(count):
    """Mark the first of `count` rows as the begin of a series."""
    return np.arange(count) == 0


@given(
    freq=st.sampled_from([f for f in OFFSETS if f not in {"bh", "WOM-3FRI", "SMS-15", "2B"}]),
    start=days,
)
def test_the_frequency_is_inferred_from_the_stamps(freq, start):
    """Sixty stamps of a common offset give that offset."""
    line = stamps(freq, start, 60)

    assert infer_freq(line, first_only(60), integer=False) == Calendar(freq).freq


def test_one_bad_stamp_does_not_change_the_inferred_frequency():
    """The frequency is that of most stamps."""
    line = stamps("MS", "2015-01-01", 60)
    line[30] += 86_400_000_000_000

    assert infer_freq(line, first_only(60), integer=False) == "MS"


@pytest.mark.parametrize(
    "dates",
    [
        ["2024-01-15", "2024-02-15", "2024-03-15", "2024-04-15"],
        ["2024-01-01", "2024-01-05", "2024-01-17", "2024-03-01"],
        ["2024-01-01"],
    ],
)
def test_stamps_without_a_known_frequency_need_a_declared_one(dates):
    """For mid-month, irregular and single stamps no frequency is inferred."""
    line = pd.DatetimeIndex(dates).to_numpy("datetime64[ns]").astype(np.int64)

    with pytest.raises(WrongFrequency) as caught:
        infer_freq(line, first_only(len(dates)), integer=False)

    assert "declare it" in caught.value.help

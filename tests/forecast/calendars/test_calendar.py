"""Calendars: integer arithmetic agrees with pandas, and refuses stamps that do not fit."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forecast.calendars.calendar import Calendar
from forecast.errors import ConfigError, WrongFrequency
from tests.helpers.calendars import days, offsets, stamps


@given(freq=offsets, start=days)
def test_stamps_after_a_stamp_are_those_of_pandas(freq, start):
    """For every offset and from any day, the next 20 stamps equal those of `pandas.date_range`."""
    expected = stamps(freq, start, 21)

    following = Calendar(freq).after(expected[:1], 20)

    np.testing.assert_array_equal(following, expected[None, 1:])


@given(freq=offsets, start=days, jumps=st.lists(st.integers(-20, 20), min_size=1, max_size=5))
def test_steps_between_is_the_inverse_of_after(freq, start, jumps):
    """The steps counted to a stamp are those that lead to it, forward or backward."""
    line = stamps(freq, start, 41)
    first = np.repeat(line[20], len(jumps))

    counted = Calendar(freq).steps_between(first, line[20 + np.array(jumps)])

    assert counted.tolist() == jumps


@given(freq=offsets, start=days)
def test_locate_and_stamp_at_are_inverse(freq, start):
    """The step and phase of a stamp give the stamp back."""
    line = stamps(freq, start, 10)
    calendar = Calendar(freq)

    step, phase, valid = calendar.locate(line)

    assert valid.all()
    assert len(set(phase.tolist())) == 1
    np.testing.assert_array_equal(calendar.stamp_at(step, phase), line)


@given(step=st.integers(1, 50), start=st.integers(-1000, 1000), hour=st.integers(0, 23))
def test_integers_and_times_of_day_are_preserved(step, start, hour):
    """Integers advance by their frequency; daily data stamped at some hour stay at that hour."""
    numbers = Calendar(step).after(np.array([start]), 3)
    morning = pd.Timestamp("2024-02-28") + pd.Timedelta(hour, "h")

    dates = Calendar("D").after(np.array([morning.value]), 2)

    assert numbers.tolist() == [[start + step, start + 2 * step, start + 3 * step]]
    assert pd.Timestamp(dates[0, 1]) == morning + pd.Timedelta("2D")


def test_holidays_of_an_exchange_are_not_sessions():
    """Thanksgiving is not a session in New York, but the day after is."""
    calendar = Calendar("XNYS")
    wednesday = np.array([pd.Timestamp("2026-11-25").value])

    following = pd.DatetimeIndex(calendar.after(wednesday, 2)[0])

    assert [str(day.date()) for day in following] == ["2026-11-27", "2026-11-30"]
    assert calendar.locate(wednesday + 86_400_000_000_000)[2].tolist() == [False]
    assert Calendar("NYSE") == calendar


def test_steps_beyond_the_known_sessions_are_refused():
    """Sessions are computed up to 2049; a later step is an error instead of a wrong date."""
    last = np.array([pd.Timestamp("2049-12-30").value])

    with pytest.raises(WrongFrequency, match="known from 1960"):
        Calendar("XNYS").after(last, 50)


@pytest.mark.parametrize(
    ("alias", "canonical"),
    [
        ("M", "ME"),
        ("H", "h"),
        ("T", "min"),
        ("60min", "h"),
        ("24h", "D"),
        ("Q", "QE-DEC"),
        ("W", "W-SUN"),
        ("QS", "QS-JAN"),
        ("1", 1),
        ("xnys", "XNYS"),
        (" D ", "D"),
    ],
)
def test_a_frequency_has_one_canonical_spelling(alias, canonical):
    """Old and equivalent spellings become the one that pandas 2.3 writes."""
    assert Calendar(alias).freq == canonical


@pytest.mark.parametrize(
    ("freq", "hint"),
    [
        ("monthly", "did you mean 'MS'"),
        ("XNYSE", "did you mean"),
        ("-1D", "step forward"),
        (0, "at least 1"),
        (True, "must be"),
    ],
)
def test_an_unknown_frequency_is_refused_with_a_hint(freq, hint):
    """The message names a likely frequency or the rule that is broken."""
    with pytest.raises(ConfigError) as caught:
        Calendar(freq)

    assert hint in str(caught.value)


def test_a_stamp_off_the_grid_is_refused_with_its_neighbours():
    """The message names the stamps on either side."""
    with pytest.raises(WrongFrequency, match="nearest are 2024-01-01 and 2024-02-01"):
        Calendar("MS").after(np.array([pd.Timestamp("2024-01-05").value]), 1)


def test_stamps_of_two_phases_are_not_whole_steps_apart():
    """Two days and six hours are not a whole number of days."""
    first, last = (np.array([pd.Timestamp(t).value]) for t in ("2024-01-01", "2024-01-03 06:00"))

    with pytest.raises(WrongFrequency, match="whole number of steps"):
        Calendar("D").steps_between(first, last)


@pytest.mark.parametrize(
    ("freq", "seasons", "horizon"),
    [
        ("h", (24, 168), 48),
        ("15min", (96, 672), 96),
        ("3h", (8, 56), 48),
        ("D", (7,), 14),
        ("B", (5,), 10),
        ("XNYS", (5,), 10),
        ("W-MON", (52,), 13),
        ("7D", (52,), 13),
        ("MS", (12,), 12),
        ("ME", (12,), 12),
        ("BME", (12,), 12),
        ("QS", (4,), 8),
        ("QE", (4,), 8),
        ("YS", (), 6),
        (1, (), 12),
        ("10D", (), 13),
    ],
)
def test_each_frequency_has_its_usual_seasons_and_horizon(freq, seasons, horizon):
    """Frequencies without a natural season have none."""
    assert (Calendar(freq).season_lengths, Calendar(freq).default_horizon) == (seasons, horizon)

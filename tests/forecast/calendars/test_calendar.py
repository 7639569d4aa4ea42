"""Calendars: integer arithmetic agrees with pandas, and refuses stamps that do not fit."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forecast.calendars.calendar import Calendar
from forecast.calendars.frequency import infer_freq
from forecast.errors import ConfigError, WrongFrequency
from forecast.features.calendar import CHANGE, features

OFFSETS = [
    "min",
    "15min",
    "h",
    "3h",
    "D",
    "10D",
    "B",
    "2B",
    "W-MON",
    "W-SUN",
    "2W-THU",
    "MS",
    "ME",
    "2MS",
    "QS-JAN",
    "QS-FEB",
    "QE-DEC",
    "QE-NOV",
    "YS-APR",
    "YE-DEC",
    "BMS",
    "BME",
    "SMS-15",
    "bh",
    "WOM-3FRI",
]
offsets = st.sampled_from(OFFSETS)
days = st.dates(pd.Timestamp("1965-01-01").date(), pd.Timestamp("2030-12-31").date())


def stamps(freq, start, periods):
    """Return stamps by pandas, as nanoseconds."""
    return pd.date_range(start, periods=periods, freq=freq).to_numpy().astype(np.int64)


def first_only(count):
    """Mark the first of `count` rows as the begin of a series."""
    return np.arange(count) == 0


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


@given(
    freq=st.sampled_from([f for f in OFFSETS if f not in {"bh", "WOM-3FRI", "SMS-15", "2B"}]),
    start=days,
)
def test_the_frequency_is_inferred_from_the_stamps(freq, start):
    """Sixty stamps of a common offset give that offset."""
    line = stamps(freq, start, 60)

    assert infer_freq(line, first_only(60), integer=False) == Calendar(freq).freq


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


@given(freq=st.sampled_from([*OFFSETS, "XNYS"]), start=days, country=st.sampled_from([None, "US"]))
def test_features_are_bounded_and_finite(freq, start, country):
    """Every feature lies in [-1, 1] and has its own name."""
    line = stamps(freq if freq != "XNYS" else "B", start, 30)

    table, names = features(line, freq, country)

    assert (table.shape, table.dtype) == ((30, len(names)), np.float32)
    assert np.isfinite(table).all()
    assert np.abs(table).max(initial=0) <= 1
    assert len(set(names)) == len(names)


def test_features_do_not_depend_on_the_year():
    """The same month of another year with as many working days has the same features."""
    line = np.array([pd.Timestamp(t).value for t in ("2013-05-01", "2019-05-01")])

    table, _ = features(line, "MS")

    np.testing.assert_array_equal(table[0], table[1])


def test_features_count_the_holidays_of_a_step():
    """Days have flags for holidays and the days around; months have the number of holidays."""
    christmas = pd.date_range("2024-12-24", periods=3, freq="D").to_numpy().astype(np.int64)
    december = np.array([pd.Timestamp("2024-12-31").value])

    daily, names = features(christmas, "D", "US")
    monthly, monthly_names = features(december, "ME", "US")

    by_name = dict(zip(names, daily.T.tolist(), strict=True))
    assert by_name["holiday"] == [0.0, 1.0, 0.0]
    assert by_name["holiday_tomorrow"] == [1.0, 0.0, 0.0]
    assert by_name["holiday_yesterday"] == [0.0, 0.0, 1.0]
    assert monthly[0, monthly_names.index("holidays")] == pytest.approx(0.25)


def test_an_unknown_country_is_refused():
    """The message quotes the setting."""
    with pytest.raises(ConfigError, match="holidays='XX'"):
        features(np.zeros(1, np.int64), "D", "XX")


def test_integer_stamps_have_no_features():
    """An integer step has no weekday or month."""
    table, names = features(np.arange(4), 1, "US")

    assert (table.shape, names) == ((4, 0), ())


def test_a_month_is_compared_with_the_same_month_a_year_before():
    """February 2024 had one working day more than that of 2023, March two fewer."""
    line = pd.to_datetime(["2024-02-01", "2024-03-01"]).as_unit("ns").asi8

    values, names = features(line, "MS")

    np.testing.assert_allclose(values[:, names.index(CHANGE)] * 2.5, [1, -2])

"""Calendar features: bounded, independent of the year, and aware of holidays."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forecast.errors import ConfigError
from forecast.features.calendar import CHANGE, features
from tests.helpers.calendars import OFFSETS, days, stamps


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

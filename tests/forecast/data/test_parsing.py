"""Stamps of any type and time zone, and advice for those that cannot be read."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forecast.config import DataConfig
from forecast.data.validation import validate
from forecast.errors import BadStamps, ConfigError
from tests.helpers.tables import assert_message, refusal, sales


@pytest.mark.parametrize(
    ("stamp", "message"),
    [
        ("soon", "ds='soon'"),
        ("31.01.2024", 'time_format = "%d.%m.%Y"'),
        ("01/31/2024", "%m/%d/%Y"),
        (None, "has no ds"),
        ("2024-03-08T00:00:00+02:00", "no zone and +02:00"),
    ],
)
def test_an_unreadable_stamp_is_reported_with_series_and_row(stamp, message):
    """Text that is not an ISO date, missing stamps and a second time zone are refused."""
    table = sales()
    table["ds"] = table["ds"].astype(str)
    table.loc[8, "ds"] = stamp

    assert_message(refusal(BadStamps, table), "series 'tea'", "row 8", message)


def test_stamps_with_one_time_zone_become_naive_utc():
    """Text with an offset and a typed column with a zone give the same stamps."""
    hourly = sales(freq="h")
    typed = hourly.assign(ds=hourly["ds"].dt.tz_localize("Europe/Berlin"))
    text = hourly.assign(ds=hourly["ds"].dt.strftime("%Y-%m-%dT%H:%M:%S+01:00"))

    frames = [validate(table, DataConfig()).frame for table in (typed, text)]

    assert str(frames[0]["ds"][0]) == "2024-03-03 23:00:00"
    pd.testing.assert_frame_equal(*frames)


@given(kind=st.sampled_from(["date", "Timestamp", "text", "period", "arrow", "seconds"]))
def test_dates_may_have_any_type(kind):
    """Python dates, Timestamps, text, periods and Arrow types give the same stamps."""
    table = sales()
    ds = table["ds"]
    convert = {
        "date": lambda: ds.dt.date,
        "Timestamp": lambda: ds.astype(object),
        "text": lambda: ds.dt.strftime("%Y-%m-%d"),
        "period": lambda: ds.dt.to_period("D"),
        "arrow": lambda: ds.astype("timestamp[us][pyarrow]"),
        "seconds": lambda: ds.astype("datetime64[s]"),
    }

    checked = validate(table.assign(ds=convert[kind]()), DataConfig())

    pd.testing.assert_frame_equal(checked.frame, sales())


def test_integer_stamps_stay_integers():
    """The steps 1, 2, 3 have frequency 1 and are stored as int64."""
    checked = validate(sales().assign(ds=list(range(1, 7)) * 3), DataConfig())

    assert (checked.calendar.freq, checked.frame["ds"].dtype) == (1, np.int64)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda ds: ds.dt.strftime("%Y%m%d").astype(int), '"%Y%m%d"'),
        (lambda ds: ds.astype("datetime64[s]").astype(np.int64), 'unit="s"'),
        (lambda ds: ds.astype("datetime64[ms]").astype(np.int64), 'unit="ms"'),
        (lambda ds: 202400 + ds.groupby(ds.eq(ds.min()).cumsum()).cumcount() + 1, '"%Y%m"'),
    ],
)
def test_dates_written_as_numbers_are_refused(write, message):
    """20240304 is taken for a date, and accepted as a step only if an integer freq is declared."""
    table = sales()
    table["ds"] = write(table["ds"])

    assert_message(refusal(BadStamps, table), f"ds={table['ds'][0]}", message)
    step = int(table["ds"].diff().abs().min())
    assert validate(table, DataConfig(freq=step)).calendar.freq == step


@pytest.mark.parametrize(
    ("stamp", "message"),
    [
        ("2024Q1", "freq='Q'"),
        ("2024-W07", "%G-W%V-%u"),
        ("1/31/24", "%m/%d/%y"),
    ],
)
def test_the_message_for_periods_written_as_text_says_how_to_read_them(stamp, message):
    """Quarters, weeks and two-digit years are recognised."""
    table = sales().astype({"ds": str})
    table.loc[0, "ds"] = stamp

    assert_message(refusal(BadStamps, table), message)


@pytest.mark.parametrize(
    ("time_format", "column"),
    [
        ("%d.%m.%Y", str),
        ("%Y%m%d", int),
        ("%m/%d/%Y %I:%M %p", "category"),
    ],
)
def test_stamps_are_parsed_by_their_format(time_format, column):
    """Text, numbers and categories are parsed; columns of dates stay as they are."""
    table, data = sales(), DataConfig(time_format=time_format)
    written = table.assign(ds=table["ds"].dt.strftime(time_format).astype(column))

    for source in (written, table):
        pd.testing.assert_frame_equal(validate(source, data).frame, table)


def test_a_stamp_that_does_not_match_its_format_is_reported_with_series_and_row():
    """31 February is refused, and a missing stamp is reported as missing."""
    data, table = {"time_format": "%d.%m.%Y"}, sales()
    table["ds"] = table["ds"].dt.strftime("%d.%m.%Y")

    table.loc[8, "ds"] = "31.02.2024"
    assert_message(
        refusal(BadStamps, table, **data),
        "series 'tea' has ds='31.02.2024'",
        "time_format='%d.%m.%Y' (1 row in 1 of 3",
        "row 8",
    )
    table.loc[8, "ds"] = None
    assert_message(refusal(BadStamps, table, **data), "series 'tea' has no ds", "row 8")


@pytest.mark.parametrize(
    ("time_format", "message"),
    [
        ("%d.%m.", "no year"),
        ("%Y-%Q", "bad directive"),
    ],
)
def test_a_time_format_that_loses_the_year_or_cannot_be_parsed_is_refused(time_format, message):
    """The setting is refused at once, not at the first row."""
    with pytest.raises(ConfigError, match=message):
        DataConfig(time_format=time_format)

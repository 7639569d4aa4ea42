"""Stamps: of any type and zone, and told how to be read where they are written otherwise."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forecast.config import DataConfig
from forecast.data.validation import validate
from forecast.errors import BadStamps, ConfigError
from tests.forecast.data.test_validation import assert_tells, refusal, sales


@pytest.mark.parametrize(
    ("stamp", "told"),
    [
        ("soon", "ds='soon'"),
        ("31.01.2024", 'time_format = "%d.%m.%Y"'),
        ("01/31/2024", "%m/%d/%Y"),
        (None, "has no ds"),
        ("2024-03-08T00:00:00+02:00", "no zone and +02:00"),
    ],
)
def test_an_unreadable_stamp_is_told_with_series_and_row(stamp, told):
    """Whatever is no ISO date, or comes with another zone, is refused where it stands."""
    table = sales()
    table["ds"] = table["ds"].astype(str)
    table.loc[8, "ds"] = stamp

    assert_tells(refusal(BadStamps, table), "series 'tea'", "row 8", told)


def test_one_zone_becomes_naive_utc():
    """Stamps that all carry one zone are moments: they become UTC, as text or as a type."""
    hourly = sales(freq="h")
    typed = hourly.assign(ds=hourly["ds"].dt.tz_localize("Europe/Berlin"))
    text = hourly.assign(ds=hourly["ds"].dt.strftime("%Y-%m-%dT%H:%M:%S+01:00"))

    frames = [validate(table, DataConfig()).frame for table in (typed, text)]

    assert str(frames[0]["ds"][0]) == "2024-03-03 23:00:00"
    pd.testing.assert_frame_equal(*frames)


@given(kind=st.sampled_from(["date", "Timestamp", "text", "period", "arrow", "seconds"]))
def test_dates_may_be_of_any_type(kind):
    """Python dates, Timestamps, text, periods and Arrow's types mean the same stamps."""
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
    """Steps 1, 2, 3 have frequency 1."""
    checked = validate(sales().assign(ds=list(range(1, 7)) * 3), DataConfig())

    assert (checked.calendar.freq, checked.frame["ds"].dtype) == (1, np.int64)


@pytest.mark.parametrize(
    ("write", "told"),
    [
        (lambda ds: ds.dt.strftime("%Y%m%d").astype(int), '"%Y%m%d"'),
        (lambda ds: ds.astype("datetime64[s]").astype(np.int64), 'unit="s"'),
        (lambda ds: ds.astype("datetime64[ms]").astype(np.int64), 'unit="ms"'),
        (lambda ds: 202400 + ds.groupby(ds.eq(ds.min()).cumsum()).cumcount() + 1, '"%Y%m"'),
    ],
)
def test_dates_written_as_numbers_are_refused(write, told):
    """20240304 is a date, not step twenty million; an integer frequency makes it one."""
    table = sales()
    table["ds"] = write(table["ds"])

    assert_tells(refusal(BadStamps, table), f"ds={table['ds'][0]}", told)
    step = int(table["ds"].diff().abs().min())
    assert validate(table, DataConfig(freq=step)).calendar.freq == step


@pytest.mark.parametrize(
    ("stamp", "told"),
    [
        ("2024Q1", "freq='Q'"),
        ("2024-W07", "%G-W%V-%u"),
        ("1/31/24", "%m/%d/%y"),
    ],
)
def test_periods_written_as_text_are_told_how_to_be_read(stamp, told):
    """Quarters, weeks and short years, as spreadsheets write them."""
    table = sales().astype({"ds": str})
    table.loc[0, "ds"] = stamp

    assert_tells(refusal(BadStamps, table), told)


@pytest.mark.parametrize(
    ("how", "column"),
    [
        ("%d.%m.%Y", str),
        ("%Y%m%d", int),
        ("%m/%d/%Y %I:%M %p", "category"),
    ],
)
def test_stamps_written_otherwise_are_read_by_their_format(how, column):
    """Text and numbers; what are dates already stay, whatever the format."""
    table, data = sales(), DataConfig(time_format=how)
    written = table.assign(ds=table["ds"].dt.strftime(how).astype(column))

    for one in (written, table):
        pd.testing.assert_frame_equal(validate(one, data).frame, table)


def test_a_stamp_unlike_its_format_is_told_with_series_and_row():
    """A day that no month has is not read as another, and a missing one is told as missing."""
    data, table = {"time_format": "%d.%m.%Y"}, sales()
    table["ds"] = table["ds"].dt.strftime("%d.%m.%Y")

    table.loc[8, "ds"] = "31.02.2024"
    assert_tells(
        refusal(BadStamps, table, **data),
        "series 'tea' has ds='31.02.2024'",
        "time_format='%d.%m.%Y' (1 row in 1 of 3",
        "row 8",
    )
    table.loc[8, "ds"] = None
    assert_tells(refusal(BadStamps, table, **data), "series 'tea' has no ds", "row 8")


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("%d.%m.", "no year"),
        ("%Y-%Q", "bad directive"),
    ],
)
def test_a_format_that_tells_no_date_is_refused(how, told):
    """At once, not at the first row."""
    with pytest.raises(ConfigError, match=told):
        DataConfig(time_format=how)

"""Frequencies, days and stamps for the tests of calendars."""

import numpy as np
import pandas as pd
from hypothesis import strategies as st

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

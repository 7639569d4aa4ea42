"""A table converts to JSON rows without loss."""

import numpy as np
import pandas as pd
import pytest

from pipelines.cli.json_rows import to_rows


@pytest.mark.parametrize(
    ("stamps", "texts"),
    [
        (pd.to_datetime(["2024-03-01", "2024-03-02"]), ["2024-03-01", "2024-03-02"]),
        (
            pd.to_datetime(["2024-03-01T00:00", "2024-03-01T07:00"]),
            ["2024-03-01T00:00:00", "2024-03-01T07:00:00"],
        ),
        (pd.to_datetime(["2024-03-01T07:00:00.25", None]), ["2024-03-01T07:00:00.250000000", None]),
        (
            pd.date_range("2024-03-31T01", periods=2, freq="h", tz="Europe/Berlin"),
            ["2024-03-31T00:00:00", "2024-03-31T01:00:00"],
        ),
        (
            pd.date_range("2024-03-30", periods=2, freq="D", tz="Europe/Berlin"),
            ["2024-03-29T23:00:00", "2024-03-30T23:00:00"],
        ),
        (pd.period_range("2024-03", periods=2, freq="M"), ["2024-03-01", "2024-04-01"]),
        ([3, 4], [3, 4]),
    ],
)
def test_timestamps_are_written_exactly_and_in_utc(stamps, texts):
    """Training reads the same timestamps from the table."""
    assert [row["ds"] for row in to_rows(pd.DataFrame({"ds": stamps}))] == texts


@pytest.mark.parametrize("dtype", ["Int64", "Float64", "float64", "int64[pyarrow]"])
def test_missing_values_are_null_for_every_dtype(dtype):
    """The nullable dtypes of pandas and those of Arrow are included."""
    table = pd.DataFrame({"y": pd.array([1, None, 3], dtype=dtype)})

    assert [row["y"] for row in to_rows(table)] == [1.0, None, 3.0]


def test_integers_and_booleans_keep_their_type():
    """An integer is not written with a decimal point."""
    table = pd.DataFrame({"ds": np.array([1, 2]), "on": [True, False]})

    assert to_rows(table) == [{"ds": 1, "on": True}, {"ds": 2, "on": False}]

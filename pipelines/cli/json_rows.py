"""Convert a table to JSON rows: timestamps become text, missing values become null."""

from typing import Any, Literal

import numpy as np
import pandas as pd


def to_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """
    Return one object per row; timestamps with a time zone are converted to UTC.

    >>> to_rows(pd.DataFrame({"unique_id": ["a"], "ds": pd.to_datetime(["2024-01-01"])}))
    [{'unique_id': 'a', 'ds': '2024-01-01'}]
    """
    columns = {str(name): _to_json_values(table[name]) for name in table.columns}
    return [
        dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
    ]


def _to_json_values(column: pd.Series) -> list[Any]:
    if isinstance(column.dtype, pd.PeriodDtype):
        column = column.dt.to_timestamp()
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        column = column.dt.tz_convert("UTC").dt.tz_localize(None)
    if pd.api.types.is_datetime64_any_dtype(column):
        return _format_timestamps(column.to_numpy("datetime64[ns]"))
    if pd.api.types.is_float_dtype(column) or (
        pd.api.types.is_numeric_dtype(column) and column.hasnans
    ):
        values = column.to_numpy(np.float64, na_value=np.nan)
        return [float(value) if np.isfinite(value) else None for value in values]
    if pd.api.types.is_numeric_dtype(column):
        numbers: list[Any] = column.tolist()
        return numbers
    return [str(value) for value in column]


def _format_timestamps(timestamps: np.ndarray) -> list[str | None]:
    """Write timestamps as days, seconds or nanoseconds: the coarsest unit that is exact."""
    known = timestamps[~np.isnat(timestamps)]
    unit: Literal["D", "s", "ns"] = "ns"
    if (known == known.astype("datetime64[s]")).all():
        unit = "D" if (known == known.astype("datetime64[D]")).all() else "s"
    texts = np.datetime_as_string(timestamps, unit=unit).tolist()
    return [None if text == "NaT" else text for text in texts]

"""A table as JSON rows: stamps as text, numbers as numbers, nothing as null."""

from typing import Any, Literal

import numpy as np
import pandas as pd


def to_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """
    One object a row; stamps with a time zone become UTC.

    >>> to_rows(pd.DataFrame({"unique_id": ["a"], "ds": pd.to_datetime(["2024-01-01"])}))
    [{'unique_id': 'a', 'ds': '2024-01-01'}]
    """
    columns = {str(name): _plain(table[name]) for name in table.columns}
    return [
        dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
    ]


def _plain(column: pd.Series) -> list[Any]:
    if isinstance(column.dtype, pd.PeriodDtype):
        column = column.dt.to_timestamp()
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        column = column.dt.tz_convert("UTC").dt.tz_localize(None)
    if pd.api.types.is_datetime64_any_dtype(column):
        stamps = column.to_numpy("datetime64[ns]")
        known = stamps[~np.isnat(stamps)]
        unit: Literal["D", "s", "ns"] = "ns"
        if (known == known.astype("datetime64[s]")).all():
            unit = "D" if (known == known.astype("datetime64[D]")).all() else "s"
        texts = np.datetime_as_string(stamps, unit=unit).tolist()
        return [None if text == "NaT" else text for text in texts]
    if pd.api.types.is_float_dtype(column) or (
        pd.api.types.is_numeric_dtype(column) and column.hasnans
    ):
        values = column.to_numpy(np.float64, na_value=np.nan)
        return [float(value) if np.isfinite(value) else None for value in values]
    if pd.api.types.is_numeric_dtype(column):
        numbers: list[Any] = column.tolist()
        return numbers
    return [str(value) for value in column]

"""A table as JSON rows: stamps as text, numbers as numbers, nothing as null."""

from typing import Any

import numpy as np
import pandas as pd


def to_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """
    One object a row.

    >>> to_rows(pd.DataFrame({"unique_id": ["a"], "ds": pd.to_datetime(["2024-01-01"])}))
    [{'unique_id': 'a', 'ds': '2024-01-01'}]
    """
    columns = {str(name): _plain(table[name]) for name in table.columns}
    return [
        dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
    ]


def _plain(column: pd.Series) -> list[Any]:
    if pd.api.types.is_datetime64_any_dtype(column):
        whole = bool((column == column.dt.normalize()).all())
        return list(column.dt.strftime("%Y-%m-%d" if whole else "%Y-%m-%dT%H:%M:%S"))
    if pd.api.types.is_float_dtype(column):
        return [float(value) if np.isfinite(value) else None for value in column]
    if pd.api.types.is_numeric_dtype(column):
        numbers: list[Any] = column.tolist()
        return numbers
    return [str(value) for value in column]

"""Check of the columns that the settings name, with suggestions for missing ones."""

from collections.abc import Sequence

import pandas as pd

from forecast.config import DataConfig
from forecast.data.locator import quote_some
from forecast.errors import MissingColumns, nearest

USUAL_NAMES = {
    "id_col": (
        "id",
        "item_id",
        "series_id",
        "series",
        "store",
        "item",
        "sku",
        "ticker",
        "symbol",
        "product",
        "name",
        "key",
    ),
    "time_col": (
        "date",
        "datetime",
        "timestamp",
        "time",
        "day",
        "week",
        "month",
        "period",
        "date_time",
        "ts",
    ),
    "target_col": (
        "sales",
        "value",
        "target",
        "close",
        "quantity",
        "demand",
        "units",
        "turnover",
        "amount",
        "qty",
        "volume",
        "price",
    ),
}
"""Usual names of columns by role, in lower case; earlier ones are preferred."""


def need_columns(
    frame: pd.DataFrame, data: DataConfig, roles: Sequence[str], *, label: str = ""
) -> None:
    """
    Check that each column of some roles is present exactly once.

    Args:
        frame: The table.
        data: Names of the columns.
        roles: Fields of `data`, such as `time_col` or `known_future`.
        label: Name of a second table beside the history, which must use the same column names.

    Raises:
        MissingColumns: A column is missing, or a name is used twice. The help suggests the column
            that was probably meant.
    """
    columns = [str(name) for name in frame.columns]
    repeated = sorted({name for name in columns if columns.count(name) > 1})
    if repeated:
        raise MissingColumns(
            f"there are {columns.count(repeated[0])} columns named {repeated[0]!r}: expected one",
            where=str(frame.attrs.get("source", "")),
            help="rename or drop the others",
        )
    missing: list[tuple[str, str]] = []
    for role in roles:
        if role == "id_col" and data.id_from and data.id_col not in columns:
            role = "id_from"
        named = getattr(data, role)
        for name in (named,) if isinstance(named, str) else named:
            missing += [(role, name)] if name not in columns else []
    if not missing:
        return
    advice = []
    for role, name in missing:
        near = _likely_column(role, name, columns)
        if near:
            value = f'"{near}"' if isinstance(getattr(data, role), str) else f'["{near}"]'
            advice.append(f"rename {near!r} to {name!r}" if label else f"set {role} = {value}")
        elif role == "id_col" and not label:
            advice.append('all rows are one series: set only_series = "sales"')
            advice.append('several columns name a series: set id_from = ["store", "item"]')
    listing = ", ".join(f"{name!r} ({role})" for role, name in missing)
    raise MissingColumns(
        f"missing column{'s' if len(missing) > 1 else ''} {listing}: found "
        f"{quote_some(columns, 20) or 'none'}",
        where=str(frame.attrs.get("source", label)),
        help=f"did you mean: {'; '.join(advice)}?"
        if advice
        else "rename the columns, or declare their names: id_col, time_col, target_col, "
        "known_future, past_only, static",
    )


def _likely_column(role: str, name: str, columns: Sequence[str]) -> str | None:
    """Return the same name in other case, a usual name for the role, or the most similar name."""
    lower = {column.lower(): column for column in reversed(columns)}
    if name.lower() in lower:
        return lower[name.lower()]
    for usual in USUAL_NAMES.get(role, ()):
        if usual in lower:
            return lower[usual]
    near = nearest(name.lower(), sorted(lower))
    return lower[near] if near else None

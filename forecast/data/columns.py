"""Find the columns that the settings name, or say which column was probably meant."""

from collections.abc import Sequence

import pandas as pd

from forecast.config import DataConfig
from forecast.data.locator import quote_some
from forecast.errors import MissingColumns, nearest

_OTHER_NAMES = {
    "id_col": (
        "id",
        "item_id",
        "series",
        "series_id",
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
        "volume",
        "price",
        "turnover",
        "amount",
        "qty",
    ),
}


def need_columns(
    frame: pd.DataFrame, data: DataConfig, roles: Sequence[str], *, label: str = ""
) -> None:
    """
    Raise `MissingColumns` unless the columns of `roles` (fields of `data`) are there.

    Columns named in `data` that are missing are told with the nearest name that is there. With a
    `label`, the table is a second one beside the history and must use the same names.
    """
    here = [str(name) for name in frame.columns]
    doubled = sorted({name for name in here if here.count(name) > 1})
    if doubled:
        raise MissingColumns(
            f"column {doubled[0]!r} is there {here.count(doubled[0])} times: expected one",
            where=str(frame.attrs.get("source", "")),
            help="rename or drop the others",
        )
    lacking: list[tuple[str, str]] = []
    for role in roles:
        if role == "id_col" and data.id_from and data.id_col not in here:
            role = "id_from"
        named = getattr(data, role)
        for name in (named,) if isinstance(named, str) else named:
            lacking += [(role, name)] if name not in here else []
    if not lacking:
        return
    advice = []
    for role, name in lacking:
        near = _likely_column(role, name, here)
        if near:
            value = f'"{near}"' if isinstance(getattr(data, role), str) else f'["{near}"]'
            advice.append(f"rename {near!r} to {name!r}" if label else f"set {role} = {value}")
        elif role == "id_col" and not label:
            advice.append('all rows are one series: set only_series = "sales"')
            advice.append('several columns name a series: set id_from = ["store", "item"]')
    told = ", ".join(f"{name!r} ({role})" for role, name in lacking)
    raise MissingColumns(
        f"missing column{'s' if len(lacking) > 1 else ''} {told}: found "
        f"{quote_some(here, 20) or 'none'}",
        where=str(frame.attrs.get("source", label)),
        help=(f"did you mean: {'; '.join(advice)}?" if advice else "rename the columns, or name ")
        + ("" if advice else "them: id_col, time_col, target_col, known_future, past_only, static"),
    )


def _likely_column(role: str, name: str, here: Sequence[str]) -> str | None:
    lower = {column.lower(): column for column in reversed(here)}
    if name.lower() in lower:
        return lower[name.lower()]
    for other in _OTHER_NAMES.get(role, ()):
        if other in lower:
            return lower[other]
    near = nearest(name.lower(), sorted(lower))
    return lower[near] if near else None

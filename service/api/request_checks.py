"""Checks that requests for forecasts and reports of observations have in common."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from forecast.errors import nearest
from service.errors import Refused, RequestError, RequestTooLarge

MOST_ITEMS = 10
"""Most items of a request that one problem document lists."""


def check_count(count: int, most: int, what: str, pointer: str) -> None:
    """
    Refuse a request with more items than one request may hold.

    Args:
        count: Number of items.
        most: Largest number allowed.
        what: What the items are, in the plural.
        pointer: JSON pointer to the list.

    Raises:
        Refused: `RequestTooLarge`.
    """
    if count > most:
        raise Refused(
            RequestTooLarge(
                f"{count:,} {what} in one request: at most {most:,} are accepted",
                help="send them in several requests",
            ),
            [(pointer, f"at most {most:,}")],
        )


def check_unique(unique_ids: Sequence[str], pointer: str) -> None:
    """
    Refuse a request that names a series twice.

    Raises:
        Refused: `RequestError`, with the places of the repeated names.
    """
    first: dict[str, int] = {}
    repeated = [i for i, name in enumerate(unique_ids) if first.setdefault(name, i) != i]
    if repeated:
        raise Refused(
            RequestError(
                f"series {unique_ids[repeated[0]]!r} is requested twice",
                help="name each series once",
            ),
            [(f"{pointer}/{i}", "named above") for i in repeated[:MOST_ITEMS]],
        )


def covariate_table(
    extras: Sequence[Mapping[str, Any]], names: tuple[str, ...], pointer: Callable[[int], str]
) -> Float[np.ndarray, "row covariate"]:
    """
    Return the covariates of rows as an array.

    Args:
        extras: Further fields of each row, by name.
        names: Covariates of the model, in the order of the columns.
        pointer: JSON pointer to a row.

    Raises:
        Refused: `RequestError`; a row lacks a covariate or has an unknown field.
    """
    expected = set(names)
    wrong = [i for i, extra in enumerate(extras) if extra.keys() != expected]
    if wrong:
        raise _wrong_fields(wrong, extras, names, pointer)
    table = [[extra[name] for name in names] for extra in extras]
    return np.array(table, np.float64).reshape(len(extras), len(names))


def _wrong_fields(
    rows: Sequence[int],
    extras: Sequence[Mapping[str, Any]],
    names: tuple[str, ...],
    pointer: Callable[[int], str],
) -> Refused:
    takes = ", ".join(names) if names else "no covariates"
    items = []
    for i in rows[:MOST_ITEMS]:
        for name in sorted(extras[i].keys() - set(names))[:MOST_ITEMS]:
            suggestion = nearest(name, names)
            hint = f"; did you mean {suggestion!r}?" if suggestion else ""
            items.append((f"{pointer(i)}/{name[:100]}", f"not a field of this model{hint}"))
        items += [(f"{pointer(i)}/{name}", "missing") for name in names if name not in extras[i]]
    error = RequestError(
        f"{len(rows)} rows have fields that do not fit the model, which takes {takes}: "
        f"{items[0][0]} is {items[0][1]}",
        help="GET /v1/models lists the covariates",
    )
    return Refused(error, items)

"""Conditions of queries over many series: one query for each slice of them."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

import sqlalchemy as sa

T = TypeVar("T")
MOST = 500
"""Values in one `IN (...)`; SQLite allows 32,766."""


def slices(values: Sequence[T], most: int = MOST) -> Iterator[Sequence[T]]:
    """
    Not too many at a time.

    >>> [len(part) for part in slices(range(1_200))]
    [500, 500, 200]
    """
    return (values[start : start + most] for start in range(0, len(values), most))


def among(column: sa.Column[int], numbers: Sequence[int]) -> Iterator[sa.ColumnElement[bool]]:
    """
    That a column has one of some numbers: between two ends where none is missing, else by slices.

    >>> c = sa.Column("series", sa.Integer)
    >>> [str(one) for one in among(c, [3, 1, 2])], len([*among(c, range(0, 2_000, 2))])
    (['series BETWEEN :series_1 AND :series_2'], 2)
    """
    ordered = sorted(numbers)
    whole = bool(ordered) and ordered[-1] - ordered[0] + 1 == len(ordered)
    for part in [ordered] if whole else slices(ordered):
        if part[-1] - part[0] + 1 == len(part):
            yield column.between(part[0], part[-1])
        else:
            yield column.in_(part)

"""
What is taken out of the log, and what it leaves: of each model the state from which to go on.

A series that is pruned has one row in `pruned`, which says where its log begins now, and a base
for each model that was at hand then: its state before the first step that is kept. All bases of a
series stand at the same step; one that cannot be brought there is dropped.
"""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa
from jaxtyping import Int

from forecast.errors import StateError
from forecast.inference.states import States
from service.errors import DamagedLog
from service.storage.schema import base, pruned, series

TOGETHER = 500
"""Series in one query."""


@dataclass(frozen=True, slots=True)
class PrunedSpans:
    """Where the logs of pruned series begin; rows are series."""

    series: Int[np.ndarray, " series"]
    """Numbers of the log."""
    first_ds: Int[np.ndarray, " series"]
    steps: Int[np.ndarray, " series"]
    """Taken out so far."""
    newest: Int[np.ndarray, " series"]
    """The last batch that wrote anything of what is taken out."""

    def checksum(self) -> int:
        """Tells one pruning from another; 0 where nothing was taken out."""
        told = (self.series, self.first_ds, self.steps, self.newest)
        return zlib.crc32(np.stack(told).tobytes()) if len(self.series) else 0


def begins(connection: sa.Connection, chosen: sa.ColumnElement[bool]) -> PrunedSpans:
    """Of the pruned series for which a condition on `pruned` holds."""
    c = pruned.c
    query = sa.select(c.series, c.first_ds, c.steps, c.newest).where(chosen).order_by(c.series)
    rows = [tuple(row) for row in connection.execute(query)]
    return PrunedSpans(*np.array(rows, np.int64).reshape(-1, 4).T)


def load(
    connection: sa.Connection, chosen: sa.ColumnElement[bool], digest: str
) -> dict[int, States]:
    """
    The bases of a model for which a condition on `base` holds, by number of the series.

    Raises:
        DamagedLog: One of them is not a state: which series it is of.
    """
    query = sa.select(base.c.series, base.c.state).where(chosen, base.c.digest == digest)
    found = {}
    for number, state in connection.execute(query).all():  # nothing stays open if one is damaged
        try:
            found[int(number)] = States.from_bytes(state)
        except StateError as error:
            its = sa.select(series.c.unique_id).where(series.c.series == number)
            name = connection.execute(its).scalar_one()
            raise DamagedLog(
                f"what pruning left of series '{name}' is damaged",
                where=error.message,
                help="put a backup of the log in place, or delete the series and report it again",
            ) from error
    return found


def shortened(connection: sa.Connection, digest: str) -> int:
    """How many series a model knows less of than was observed: it came after they were pruned."""
    ours = (base.c.series == pruned.c.series) & (base.c.digest == digest)
    less = sa.or_(base.c.steps.is_(None), base.c.steps < pruned.c.steps)
    query = sa.select(sa.func.count()).select_from(pruned.outerjoin(base, ours)).where(less)
    return int(connection.execute(query).scalar_one())


def note(
    connection: sa.Connection, now: PrunedSpans, batch: int, bases: Mapping[str, States]
) -> None:
    """
    Note that what lies before `now.first_ds` is taken out; the bases are what is left of it.

    Args:
        connection: In a transaction of the log.
        now: What `pruned` says of these series from now on.
        batch: Of the transaction.
        bases: By digest of the model, a row for each of the series.
    """
    numbers = now.series.tolist()
    for table in (base, pruned):
        connection.execute(sa.delete(table).where(table.c.series.in_(numbers)))
    columns = (numbers, now.first_ds.tolist(), now.steps.tolist(), now.newest.tolist())
    connection.execute(
        sa.insert(pruned),
        [
            {"series": n, "first_ds": ds, "steps": steps, "newest": newest, "batch": batch}
            for n, ds, steps, newest in zip(*columns, strict=True)
        ],
    )
    rows: list[dict[str, Any]] = [
        {
            "series": number,
            "digest": digest,
            "steps": int(states.count[row]),
            "state": states.take([row]).to_bytes(),
        }
        for digest, states in bases.items()
        for row, number in enumerate(numbers)
    ]
    if rows:
        connection.execute(sa.insert(base), rows)

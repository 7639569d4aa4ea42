"""
Base states: for pruned series, the state of each model from which a replay starts.

A pruned series has one row in `pruned`, which says where its log begins, and a base state for each
model that was served then: its state before the first step that is kept. All base states of a
series are at the same step; one that cannot be brought there is dropped.
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
"""Most series in one query."""


@dataclass(frozen=True, slots=True)
class PrunedSpans:
    """First stamps that the log still has of pruned series; one row for each series."""

    series: Int[np.ndarray, " series"]
    """Numbers of the log."""
    first_ds: Int[np.ndarray, " series"]
    """First stamp that is kept."""
    steps: Int[np.ndarray, " series"]
    """Number of steps removed so far."""
    newest: Int[np.ndarray, " series"]
    """Last batch that wrote any of the removed rows."""

    def checksum(self) -> int:
        """Return a checksum that tells one pruning from another; 0 if nothing was removed."""
        columns = (self.series, self.first_ds, self.steps, self.newest)
        return zlib.crc32(np.stack(columns).tobytes()) if len(self.series) else 0


def begins(connection: sa.Connection, chosen: sa.ColumnElement[bool]) -> PrunedSpans:
    """Return the spans of the series for which a condition on the table `pruned` holds."""
    c = pruned.c
    query = sa.select(c.series, c.first_ds, c.steps, c.newest).where(chosen).order_by(c.series)
    rows = [tuple(row) for row in connection.execute(query)]
    return PrunedSpans(*np.array(rows, np.int64).reshape(-1, 4).T)


def load(
    connection: sa.Connection, chosen: sa.ColumnElement[bool], digest: str
) -> dict[int, States]:
    """
    Load base states of a model, by number of the series.

    Args:
        connection: Connection in a transaction of the log.
        chosen: Condition on the table `base`.
        digest: Digest of the model.

    Raises:
        DamagedLog: A base state cannot be read; the error names the series.
    """
    query = sa.select(base.c.series, base.c.state).where(chosen, base.c.digest == digest)
    loaded = {}
    # All rows are fetched first, so that no cursor stays open if one is damaged.
    for number, state in connection.execute(query).all():
        try:
            loaded[int(number)] = States.from_bytes(state)
        except StateError as error:
            query_name = sa.select(series.c.unique_id).where(series.c.series == number)
            name = connection.execute(query_name).scalar_one()
            raise DamagedLog(
                f"the base state that pruning left of series '{name}' is damaged",
                where=error.message,
                help="put a backup of the log in place, or delete the series and report it again",
            ) from error
    return loaded


def shortened(connection: sa.Connection, digest: str) -> int:
    """Count the series that were pruned before a model was loaded, so that it has seen less."""
    own = (base.c.series == pruned.c.series) & (base.c.digest == digest)
    incomplete = sa.or_(base.c.steps.is_(None), base.c.steps < pruned.c.steps)
    query = sa.select(sa.func.count()).select_from(pruned.outerjoin(base, own)).where(incomplete)
    return int(connection.execute(query).scalar_one())


def store(
    connection: sa.Connection, spans: PrunedSpans, batch: int, bases: Mapping[str, States]
) -> None:
    """
    Record where the logs of pruned series begin, and store their base states.

    Args:
        connection: Connection in a transaction of the log.
        spans: New rows of the table `pruned`.
        batch: Batch of the transaction.
        bases: States by digest of the model, with one row for each series.
    """
    numbers = spans.series.tolist()
    for table in (base, pruned):
        connection.execute(sa.delete(table).where(table.c.series.in_(numbers)))
    columns = (numbers, spans.first_ds.tolist(), spans.steps.tolist(), spans.newest.tolist())
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

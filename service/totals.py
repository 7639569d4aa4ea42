"""How much there is in the log."""

from dataclasses import dataclass

import sqlalchemy as sa

from service import migrations
from service.tables import observation, pruned, series


@dataclass(frozen=True, slots=True)
class Totals:
    """Of the whole log."""

    series: int
    rows: int
    """Revisions included."""
    first_ds: int | None
    last_ds: int | None
    pruned_series: int
    pruned_steps: int
    schema: str


def count_all(connection: sa.Connection) -> Totals:
    """All of it, in one look."""
    c, p = observation.c, pruned.c
    query = sa.select(
        sa.func.count(), sa.func.min(c.ds), sa.func.max(c.ds),
        sa.select(sa.func.count()).select_from(series).scalar_subquery(),
        sa.select(sa.func.count()).select_from(pruned).scalar_subquery(),
        sa.select(sa.func.coalesce(sa.func.sum(p.steps), 0)).scalar_subquery(),
    )  # fmt: skip
    rows, first, last, begun, cut, steps = connection.execute(query).one()
    schema = migrations.version(connection) or ""
    return Totals(begun, rows, first, last, cut, int(steps), schema)

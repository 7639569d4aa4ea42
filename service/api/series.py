"""Lists series and describes what the log and the live state have of one."""

from bisect import bisect_right
from collections.abc import Sequence

import numpy as np

from forecast.inference.states import States
from service.api import schemas, timestamps
from service.api.answers import model_of, moment, position_body
from service.engine.engine import Position, no_such_series
from service.serving.serving import Serving


def page(serving: Serving, *, cursor: str | None, limit: int, q: str | None) -> schemas.SeriesPage:
    """
    List series in the order of their names.

    Args:
        serving: The model in service.
        cursor: Name after which the page begins; None for the first page.
        limit: Most series on the page.
        q: Part of the name, in any case; None for all series.
    """
    engine, calendar = serving.engine, serving.bundle.calendar
    serving.write_queue.catch_up()
    waiting = serving.write_queue.writer.waiting
    names: Sequence[str] = sorted({*engine.names(), *waiting}) if waiting else engine.names()
    if q:
        names = [name for name in names if q.lower() in name.lower()]
    start = 0 if cursor is None else bisect_right(names, cursor)
    listed = names[start : start + limit]
    serving.write_queue.need(listed)
    cursor = listed[-1] if len(names) > start + limit else None

    def work() -> tuple[list[str], States]:
        live = [name for name in listed if name in engine.rows]
        rows = np.array([engine.rows[name] for name in live], np.int64)
        return live, engine.snapshot(rows)[0]

    listed, states = engine.executor.run(work)
    items = [
        schemas.SeriesItem(unique_id=name, last_ds=last, observations=int(count))
        for name, last, count in zip(
            listed, timestamps.render(states.last_ds, calendar), states.count, strict=True
        )
    ]
    return schemas.SeriesPage(series=items, total=len(names), next=cursor)


def detail(serving: Serving, unique_id: str) -> schemas.SeriesDetail:
    """
    Describe what the log has of a series.

    Raises:
        UnknownSeries: The log has nothing of it.
    """
    calendar = serving.bundle.calendar
    with serving.log.read() as transaction:
        records = transaction.find([unique_id])
        if not records:
            raise no_such_series(unique_id, serving.engine)
        number, static = records[0].number, records[0].static
        first, last, steps, filled, revisions = transaction.summary(number)
        created = transaction.created_at(number)
        pruned = int(transaction.begins([number]).steps.sum())
    begin, end = timestamps.render(np.array([first, last]), calendar)
    return schemas.SeriesDetail(
        unique_id=unique_id,
        created_at=moment(created / 1000),
        static=dict(static),
        first_ds=begin,
        last_ds=end,
        observations=pruned + steps,
        pruned=pruned,
        filled=filled,
        revisions=revisions,
    )


def state(serving: Serving, unique_id: str) -> schemas.StateDetail:
    """
    Describe the live state of a series.

    Raises:
        UnknownSeries: It has no state.
    """
    engine = serving.engine
    serving.write_queue.catch_up()
    serving.write_queue.need([unique_id])

    def work() -> Position:
        if unique_id not in engine.rows:
            raise no_such_series(unique_id, engine)
        return engine.position(engine.rows[unique_id])

    position = engine.executor.run(work)
    return schemas.StateDetail(
        unique_id=unique_id,
        position=position_body(position, serving.bundle.calendar),
        state="rebuilt" if position.rebuilt else "live",
        model=model_of(serving.source),
    )

"""What is known of series, states and models, as answers."""

from bisect import bisect_right
from collections.abc import Sequence

import numpy as np

from forecast.inference.states import States
from service.api import schemas, timestamps
from service.api.answers import model_of, moment, position_body
from service.engine.engine import Position, no_such_series
from service.serving.slot import Serving


def page(serving: Serving, *, cursor: str | None, limit: int, q: str | None) -> schemas.SeriesPage:
    """Series after `cursor` in the order of their names, those that contain `q`."""
    engine, calendar = serving.engine, serving.bundle.calendar
    serving.write_queue.catch_up()
    waiting = serving.write_queue.writer.waiting
    names: Sequence[str] = sorted({*engine.names(), *waiting}) if waiting else engine.names()
    if q:
        names = [name for name in names if q.lower() in name.lower()]
    start = 0 if cursor is None else bisect_right(names, cursor)
    shown = names[start : start + limit]
    serving.write_queue.need(shown)
    more = shown[-1] if len(names) > start + limit else None

    def work() -> tuple[list[str], States]:
        there = [name for name in shown if name in engine.rows]
        rows = np.array([engine.rows[name] for name in there], np.int64)
        return there, engine.snapshot(rows)[0]

    shown, states = engine.executor.run(work)
    items = [
        schemas.SeriesItem(unique_id=name, last_ds=last, observations=int(count))
        for name, last, count in zip(
            shown, timestamps.render(states.last_ds, calendar), states.count, strict=True
        )
    ]
    return schemas.SeriesPage(series=items, total=len(names), next=more)


def detail(serving: Serving, unique_id: str) -> schemas.SeriesDetail:
    """
    What the log has of a series.

    Raises:
        UnknownSeries: Nothing.
    """
    calendar = serving.bundle.calendar
    with serving.log.read() as transaction:
        found = transaction.find([unique_id])
        if not found:
            raise no_such_series(unique_id, serving.engine)
        number, static = found[0].number, found[0].static
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
    Where the live state of a series stands.

    Raises:
        UnknownSeries: It has none.
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

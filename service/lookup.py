"""What is known of series, states and models, as answers."""

from bisect import bisect_right
from collections.abc import Sequence

import numpy as np

from forecast.inference.states import States
from service import schemas, stamps
from service.answers import model_of, moment, position_body, successor_of
from service.engine import Position
from service.errors import sentence
from service.slot import Serving, Slot
from service.slots import Slots
from service.spelling import no_such_series

_PHASES = ("starting", "loading", "stopped", "replaying", "ready", "cut off", "failed")
"""The phase of a server is the first of these that one of its models is in."""
_ANSWERING = frozenset({"replaying", "ready"})


def page(serving: Serving, *, cursor: str | None, limit: int, q: str | None) -> schemas.SeriesPage:
    """Series after `cursor` in the order of their names, those that contain `q`."""
    engine, calendar = serving.engine, serving.bundle.calendar
    serving.recorder.catch_up()
    waiting = serving.recorder.writer.waiting
    names: Sequence[str] = sorted({*engine.names(), *waiting}) if waiting else engine.names()
    if q:
        names = [name for name in names if q.lower() in name.lower()]
    start = 0 if cursor is None else bisect_right(names, cursor)
    shown = names[start : start + limit]
    serving.recorder.need(shown)
    more = shown[-1] if len(names) > start + limit else None

    def work() -> tuple[list[str], States]:
        there = [name for name in shown if name in engine.rows]
        rows = np.array([engine.rows[name] for name in there], np.int64)
        return there, engine.snapshot(rows)[0]

    shown, states = engine.compute.run(work)
    items = [
        schemas.SeriesItem(unique_id=name, last_ds=last, observations=int(count))
        for name, last, count in zip(
            shown, stamps.render(states.last_ds, calendar), states.count, strict=True
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
    begin, end = stamps.render(np.array([first, last]), calendar)
    return schemas.SeriesDetail(
        unique_id=unique_id, created_at=moment(created / 1000), static=dict(static),
        first_ds=begin, last_ds=end, observations=pruned + steps, pruned=pruned,
        filled=filled, revisions=revisions,
    )  # fmt: skip


def state(serving: Serving, unique_id: str) -> schemas.StateDetail:
    """
    Where the live state of a series stands.

    Raises:
        UnknownSeries: It has none.
    """
    engine = serving.engine
    serving.recorder.catch_up()
    serving.recorder.need([unique_id])

    def work() -> Position:
        if unique_id not in engine.rows:
            raise no_such_series(unique_id, engine)
        return engine.position(engine.rows[unique_id])

    position = engine.compute.run(work)
    return schemas.StateDetail(
        unique_id=unique_id,
        position=position_body(position, serving.bundle.calendar),
        state="rebuilt" if position.rebuilt else "live",
        model=model_of(serving.source),
    )


def readiness(slot: Slot) -> schemas.Readiness:
    """How far one model is; without a look at the log that others write to, it cannot forecast."""
    phase = slot.progress.phase
    serving = slot.serving if phase in _ANSWERING else None
    cut_off = serving.recorder.cut_off if serving else None
    failure = slot.failure or cut_off
    if cut_off is not None:
        phase = "cut off"
    return schemas.Readiness(
        ready=phase in _ANSWERING, phase=phase, series=slot.progress.series,
        replayed=slot.progress.replayed, model=model_of(serving.source) if serving else None,
        reason=sentence(failure) if failure else slot.trouble,
        successor=successor_of(slot.successor),
    )  # fmt: skip


def readiness_of_all(slots: Slots) -> schemas.Readiness:
    """How far the server is; a model that cannot be loaded does not make it unready for others."""
    each = {name: readiness(slot) for name, slot in slots.by_name.items()}
    phase = min((one.phase for one in each.values()), key=_PHASES.index)
    return schemas.Readiness(
        ready=phase in _ANSWERING, phase=phase, model=None,
        series=sum(one.series for one in each.values()),
        replayed=sum(one.replayed for one in each.values()),
        reason="; ".join(f"{name}: {one.reason}" for name, one in each.items() if one.reason),
        models={**each},
    )  # fmt: skip


def models(slot: Slot) -> list[schemas.ModelDetail]:
    """The model in service, then the one before it."""
    kept = [slot.serving] if slot.previous is None else [slot.serving, slot.previous]
    return [model(serving, in_service=not place) for place, serving in enumerate(kept)]


def model(serving: Serving, *, in_service: bool = True) -> schemas.ModelDetail:
    """A model that is held."""
    source, config = serving.source, serving.bundle.config
    with serving.log.read() as transaction:
        shortened = transaction.shortened(source.digest)
    return schemas.ModelDetail(
        name=source.name,
        version=source.version,
        digest=source.digest,
        alias=source.alias,
        in_service=in_service,
        since=moment(serving.since),
        freq=serving.bundle.calendar.freq,
        kind=config.data.kind,
        horizon=serving.bundle.horizon,
        quantiles=list(config.model.quantiles),
        known_future=list(config.data.known_future),
        past_only=list(config.data.past_only),
        static=[column.name for column in serving.bundle.spec.static.columns],
        fill=config.data.fill,
        shortened=shortened,
        facts=serving.bundle.facts,
        scores=serving.bundle.scores,
    )

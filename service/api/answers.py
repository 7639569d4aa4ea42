"""From arrays to the body of an answer."""

from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
from jaxtyping import Bool, Float

from forecast.calendars.calendar import Calendar
from forecast.inference.states import States
from service.api import schemas, timestamps
from service.api.requests import quantile_plan
from service.engine.engine import Position
from service.ingest.batch import BatchResult, ObservationBatch
from service.ingest.planner import STATUSES
from service.serving.model_source import Source
from service.serving.slot import Successor


def forecasts(
    ids: Sequence[str],
    states: States,
    state: Sequence[str],
    values: Float[np.ndarray, "series horizon output"],
    body: schemas.ForecastRequest,
    calendar: Calendar,
) -> list[schemas.SeriesForecast]:
    """The answer's list, in the order of `ids`."""
    _, columns, fractions = quantile_plan(body)
    ahead = calendar.after(states.last_ds, values.shape[1])
    numbers = np.moveaxis(values, 2, 1).tolist()
    last = timestamps.render(states.last_ds, calendar)
    made = []
    for i, name in enumerate(ids):
        point, *others = numbers[i]
        bounds = dict(zip(columns, others, strict=False))
        rest = dict(zip(fractions, others[len(columns) :], strict=True))
        position = schemas.SeriesPosition(last_ds=last[i], observations=int(states.count[i]))
        made.append(
            schemas.SeriesForecast(
                unique_id=name,
                ds=timestamps.render(ahead[i], calendar),
                statecast=point,
                quantiles=rest,
                position=position,
                state=state[i],
                **bounds,
            )
        )
    return made


def outcome_body(
    sent: ObservationBatch, outcome: BatchResult, calendar: Calendar, policy: str
) -> schemas.ObservationsResponse:
    """What became of the observations."""
    other = np.flatnonzero(outcome.status)
    texts = timestamps.render(sent.ds[other], calendar)
    items = [
        schemas.ItemStatus(
            index=i, unique_id=sent.names[i], ds=text, status=STATUSES[outcome.status[i]]
        )
        for i, text in zip(other.tolist(), texts, strict=True)
    ]
    filled = [
        schemas.FilledGap(
            unique_id=name,
            ds=timestamps.render(np.array([ds]), calendar)[0],
            steps=steps,
            policy=policy,
        )
        for name, ds, steps in outcome.fills
    ]
    new, duplicate, revised = (outcome.count(number) for number in range(len(STATUSES)))
    return schemas.ObservationsResponse(
        new=new,
        duplicate=duplicate,
        revised=revised,
        items=items,
        created=list(outcome.created),
        filled=filled,
    )


def model_of(source: Source) -> schemas.Model:
    """Name, version and digest."""
    return schemas.Model(name=source.name, version=source.version, digest=source.digest)


def successor_of(successor: Successor | None) -> schemas.SuccessorDetail | None:
    """The last model that was to take over, if there was one."""
    if successor is None:
        return None
    source = successor.source
    return schemas.SuccessorDetail(
        version=source.version,
        digest=source.digest,
        phase=successor.phase,
        reason=successor.reason,
    )


def state_words(rebuilt: Bool[np.ndarray, " series"]) -> list[str]:
    """`live` or `rebuilt` of each series."""
    return ["rebuilt" if again else "live" for again in rebuilt.tolist()]


def position_body(position: Position, calendar: Calendar) -> schemas.SeriesPosition:
    """Where a state stands, as it is answered."""
    text = timestamps.render(np.array([position.last_ds]), calendar)[0]
    return schemas.SeriesPosition(last_ds=text, observations=position.observations)


def moment(seconds: float) -> str:
    """Unix seconds as ISO 8601 in UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")

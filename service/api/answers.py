"""Builds bodies of answers from arrays and records."""

from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
from jaxtyping import Bool, Float

from forecast.calendars.calendar import Calendar
from forecast.inference.states import States
from service.api import schemas, timestamps
from service.api.forecast_requests import CheckedRequest
from service.engine.engine import Position
from service.serving.model_source import Source
from service.serving.serving import Successor


def forecasts(
    request: CheckedRequest,
    states: States,
    origin: Sequence[str],
    values: Float[np.ndarray, "series horizon output"],
    calendar: Calendar,
) -> list[schemas.SeriesForecast]:
    """
    Build the list of forecasts, in the order of the request.

    Args:
        request: Names, horizon and quantile plan.
        states: States that the forecasts were made from.
        origin: `live`, `rebuilt` or `cold` for each series.
        values: Point forecast, then the quantiles of the plan.
        calendar: Turns stamps into text.
    """
    bounds, fractions = request.quantile_plan.bounds, request.quantile_plan.fractions
    ahead = calendar.after(states.last_ds, values.shape[1])
    columns = np.moveaxis(values, 2, 1).tolist()
    last = timestamps.render(states.last_ds, calendar)
    bodies = []
    for i, name in enumerate(request.unique_ids):
        point, *others = columns[i]
        bodies.append(
            schemas.SeriesForecast(
                unique_id=name,
                ds=timestamps.render(ahead[i], calendar),
                statecast=point,
                quantiles=dict(zip(fractions, others[len(bounds) :], strict=True)),
                position=schemas.SeriesPosition(last_ds=last[i], observations=int(states.count[i])),
                state=origin[i],
                **dict(zip(bounds, others, strict=False)),
            )
        )
    return bodies


def model_of(source: Source) -> schemas.Model:
    """Return name, version and digest of a model."""
    return schemas.Model(name=source.name, version=source.version, digest=source.digest)


def successor_of(successor: Successor | None) -> schemas.SuccessorDetail | None:
    """Return the last model of a rollout and its outcome, if there was a rollout."""
    if successor is None:
        return None
    source = successor.source
    return schemas.SuccessorDetail(
        version=source.version,
        digest=source.digest,
        phase=successor.phase,
        reason=successor.reason,
    )


def state_labels(rebuilt: Bool[np.ndarray, " series"]) -> list[str]:
    """Return `rebuilt` for states replayed from the log, and `live` for the others."""
    return ["rebuilt" if again else "live" for again in rebuilt.tolist()]


def position_body(position: Position, calendar: Calendar) -> schemas.SeriesPosition:
    """Return the position of a state: its last stamp and the number of steps it has seen."""
    text = timestamps.render(np.array([position.last_ds]), calendar)[0]
    return schemas.SeriesPosition(last_ds=text, observations=position.observations)


def moment(seconds: float) -> str:
    """Return Unix seconds as ISO 8601 in UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")

"""
Reports of observations: the body becomes a batch, the write queue stores it, the answer tells.

The way of an observation: `http.routes.observations`, this module, `ingest.write_queue` (one batch
at a time), `ingest.writer` (plan, log, states), `storage.transaction` (the log) and
`engine.engine` (the live states).
"""

import numpy as np

from forecast.calendars.calendar import Calendar
from forecast.config import DataConfig
from service.api import schemas, timestamps
from service.api.request_checks import check_count, covariate_table
from service.ingest.batch import BatchResult, ObservationBatch
from service.ingest.planner import STATUSES
from service.serving.serving import Serving
from service.settings import Limits


def record(
    serving: Serving, body: schemas.ObservationsRequest, limits: Limits
) -> schemas.ObservationsResponse:
    """
    Store the observations of a request and move the live states on; all of them or none.

    They are on the disk when this returns.

    Raises:
        Refused: What is wrong with the observations, and where.
        LogError: The log cannot be written.
        ServiceError: The server is too busy, or another model took over meanwhile.
    """
    data, calendar = serving.bundle.config.data, serving.bundle.calendar
    batch = _read_batch(body, data, calendar, limits)
    return _answer(batch, serving.write_queue.record(batch), calendar, data.fill)


def _read_batch(
    body: schemas.ObservationsRequest, data: DataConfig, calendar: Calendar, limits: Limits
) -> ObservationBatch:
    items = body.observations
    check_count(len(items), limits.max_rows, "observations", "/observations")
    names = (*data.known_future, *data.past_only)

    def pointer(item: int) -> str:
        return f"/observations/{item}"

    pointers = [f"/observations/{i}/ds" for i in range(len(items))]
    extras = [item.__pydantic_extra__ or {} for item in items]
    return ObservationBatch(
        [item.unique_id for item in items],
        timestamps.parse([item.ds for item in items], calendar, pointers),
        np.array([np.nan if item.y is None else item.y for item in items]),
        covariate_table(extras, names, pointer),
        names,
        pointer,
    )


def _answer(
    batch: ObservationBatch, result: BatchResult, calendar: Calendar, policy: str
) -> schemas.ObservationsResponse:
    not_new = np.flatnonzero(result.status)
    texts = timestamps.render(batch.ds[not_new], calendar)
    items = [
        schemas.ItemStatus(
            index=i, unique_id=batch.names[i], ds=text, status=STATUSES[result.status[i]]
        )
        for i, text in zip(not_new.tolist(), texts, strict=True)
    ]
    filled = [
        schemas.FilledGap(
            unique_id=name,
            ds=timestamps.render(np.array([ds]), calendar)[0],
            steps=steps,
            policy=policy,
        )
        for name, ds, steps in result.fills
    ]
    new, duplicate, revised = (result.count(number) for number in range(len(STATUSES)))
    return schemas.ObservationsResponse(
        new=new,
        duplicate=duplicate,
        revised=revised,
        items=items,
        created=list(result.created),
        filled=filled,
    )

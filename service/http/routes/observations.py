"""`/v1/observations`."""

from fastapi import APIRouter

from service.api import answers, requests
from service.api.schemas import ObservationsRequest, ObservationsResponse
from service.http.problems import responses
from service.http.routes.dependencies import DOCUMENTED_KEYS, AppSettings, Current

router = APIRouter(prefix="/v1", tags=["observations"], dependencies=DOCUMENTED_KEYS)


@router.post(
    "/observations",
    operation_id="create_observations",
    summary="Report what happened",
    responses=responses(404, 409, 413, 415, 422, 504),
)
def create_observations(
    body: ObservationsRequest, serving: Current, settings: AppSettings
) -> ObservationsResponse:
    """
    Store observations and move the live states on by them; all of the request, or nothing.

    When the answer is there, they are on the disk. Sending the same again is harmless
    (`duplicate`); another value for a stored stamp is kept as a revision (`revised`), and the
    series is replayed. A gap is refused (`data.gap`) unless the model fills gaps by its policy.
    """
    data, calendar = serving.bundle.config.data, serving.bundle.calendar
    sent = requests.observations(body, data, calendar, settings.limits)
    return answers.outcome_body(sent, serving.write_queue.record(sent), calendar, data.fill)

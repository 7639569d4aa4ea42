"""`/v1/observations`: reports of observed values."""

from fastapi import APIRouter

from service.api import observations
from service.api.schemas import ObservationsRequest, ObservationsResponse
from service.http.problems import responses
from service.http.routes.dependencies import DOCUMENTED_KEYS, AppSettings, Current

router = APIRouter(prefix="/v1", tags=["observations"], dependencies=DOCUMENTED_KEYS)


@router.post(
    "/observations",
    operation_id="create_observations",
    summary="Report observations",
    responses=responses(404, 409, 413, 415, 422, 504),
)
def create_observations(
    body: ObservationsRequest, serving: Current, settings: AppSettings
) -> ObservationsResponse:
    """
    Store observations and advance the live states; all of the request, or nothing.

    Once answered, the observations are on the disk. Sending the same values again is harmless
    (`duplicate`). Another value for a stored stamp is kept as a revision (`revised`), and the
    series is replayed. A gap is refused (`data.gap`) unless the model has a fill policy.
    """
    return observations.record(serving, body, settings.limits)

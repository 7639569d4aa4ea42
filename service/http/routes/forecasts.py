"""`/v1/forecasts`: forecasts of series."""

from fastapi import APIRouter

from service.api import forecasts
from service.api.schemas import ForecastRequest, ForecastResponse
from service.http.problems import responses
from service.http.routes.dependencies import DOCUMENTED_KEYS, AppSettings, Current, ModelMetrics

router = APIRouter(prefix="/v1", tags=["forecasts"], dependencies=DOCUMENTED_KEYS)


@router.post(
    "/forecasts",
    operation_id="create_forecasts",
    summary="Forecast series",
    responses=responses(404, 409, 413, 415, 422, 504),
)
def create_forecasts(
    body: ForecastRequest, serving: Current, settings: AppSettings, metrics: ModelMetrics
) -> ForecastResponse:
    """
    Forecast from the live states of `unique_ids`, or from the histories in `series`.

    A forecast only reads states; nothing is stored or changed. A model with known-future covariates
    needs them in `futr` for every series and each of the `h` coming stamps.
    """
    return forecasts.forecast(serving, body, settings.limits, metrics)

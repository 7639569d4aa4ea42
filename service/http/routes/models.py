"""`/v1/models`: the models that the server holds, refresh and rollback."""

from fastapi import APIRouter

from service.api import models, readiness
from service.api.schemas import ModelDetail, Models, Readiness
from service.http.problems import responses
from service.http.routes.dependencies import DOCUMENTED_KEYS, CurrentSlot

router = APIRouter(prefix="/v1", tags=["models"], dependencies=DOCUMENTED_KEYS)


@router.get(
    "/models",
    operation_id="list_models",
    summary="List models",
    responses=responses(),
)
def list_models(slot: CurrentSlot) -> Models:
    """Describe the model in service and the one before it: inputs, facts and scores."""
    return Models(models=models.models(slot))


@router.post(
    "/models:refresh",
    operation_id="refresh_models",
    summary="Check for a new model now",
    status_code=202,
    responses=responses(),
)
def refresh_models(slot: CurrentSlot) -> Readiness:
    """
    Check for a new model now, without waiting for the next regular check.

    `GET /readyz` reports the outcome.
    """
    slot.refresh()
    return readiness.readiness(slot)


@router.post(
    "/models:rollback",
    operation_id="rollback_model",
    summary="Go back to the previous model",
    responses=responses(409),
)
def rollback_model(slot: CurrentSlot) -> ModelDetail:
    """
    Put the previous model back into service; its states catch up with the log.

    It stays in service until the source names yet another version.
    """
    return models.model(slot.rollback())

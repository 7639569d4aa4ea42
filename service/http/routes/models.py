"""`/v1/models`."""

from fastapi import APIRouter

from service.api import models, readiness
from service.api.schemas import ModelDetail, Models, Readiness
from service.http.problems import responses
from service.http.routes.dependencies import DOCUMENTED_KEYS, CurrentSlot

router = APIRouter(prefix="/v1", tags=["models"], dependencies=DOCUMENTED_KEYS)


@router.get(
    "/models",
    operation_id="list_models",
    summary="Models this server holds",
    responses=responses(),
)
def list_models(slot: CurrentSlot) -> Models:
    """The model in service, and the one before it: what they take, and how they scored."""
    return Models(models=models.models(slot))


@router.post(
    "/models:refresh",
    operation_id="refresh_models",
    summary="Look for a new model now",
    status_code=202,
    responses=responses(),
)
def refresh_models(slot: CurrentSlot) -> Readiness:
    """The server looks by itself from time to time; `GET /readyz` tells what came of it."""
    slot.refresh()
    return readiness.readiness(slot)


@router.post(
    "/models:rollback",
    operation_id="rollback_model",
    summary="Go back to the model before",
    responses=responses(409),
)
def rollback_model(slot: CurrentSlot) -> ModelDetail:
    """
    Put the model that was in service before back; its states take in what came since.

    It stays until the source names yet another version.
    """
    return models.model(slot.rollback())

"""`/v1/models`."""

from fastapi import APIRouter

from service import lookup
from service.problems import responses
from service.routes.dependencies import DOCUMENTED_KEYS, Current
from service.schemas import Models

router = APIRouter(prefix="/v1", tags=["models"], dependencies=DOCUMENTED_KEYS)


@router.get(
    "/models", operation_id="list_models", summary="Models this server holds",
    responses=responses(),
)  # fmt: skip
def list_models(serving: Current) -> Models:
    """The model in service: what it takes, what it was trained on, how it scored."""
    return Models(models=[lookup.model(serving)])

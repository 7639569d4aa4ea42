"""
Dependencies of handlers: the model that the path names, the settings, the metrics.

They are coroutines that never wait, because FastAPI would run plain functions in the thread pool.
"""

from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import APIKeyHeader, HTTPBearer

from service.http.middleware.model_path import no_model_named
from service.metrics import Metrics
from service.serving.catalog import Catalog
from service.serving.serving import Serving
from service.serving.slot import Slot
from service.settings import Settings


async def _catalog(request: Request) -> Catalog:
    catalog: Catalog = request.state.catalog
    return catalog


async def _any_slot(request: Request) -> Slot | None:
    slot: Slot | None = request.state.slot
    return slot


AllModels = Annotated[Catalog, Depends(_catalog)]
AnySlot = Annotated[Slot | None, Depends(_any_slot)]


async def _slot(catalog: AllModels, slot: AnySlot) -> Slot:
    if slot is None:
        raise no_model_named("", list(catalog.by_name))
    return slot


CurrentSlot = Annotated[Slot, Depends(_slot)]


async def _serving(slot: CurrentSlot) -> Serving:
    return slot.serving


async def _settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


async def _metrics(request: Request) -> Metrics:
    metrics: Metrics = request.app.state.metrics
    return metrics


async def _model_metrics(slot: CurrentSlot) -> Metrics:
    return slot.metrics


Current = Annotated[Serving, Depends(_serving)]
AppSettings = Annotated[Settings, Depends(_settings)]
AppMetrics = Annotated[Metrics, Depends(_metrics)]
ModelMetrics = Annotated[Metrics, Depends(_model_metrics)]
DOCUMENTED_KEYS = [
    Security(APIKeyHeader(name="X-API-Key", auto_error=False, scheme_name="ApiKey")),
    Security(HTTPBearer(auto_error=False, scheme_name="Bearer")),
]
"""Documents the keys in the OpenAPI document; `ApiKeyAuth` has checked them before."""

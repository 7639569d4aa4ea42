"""
What handlers ask for: the model that the address names, the settings, the metrics.

All are coroutines that wait for nothing: a function would cost a trip through the thread pool.
"""

from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import APIKeyHeader, HTTPBearer

from service.http.middleware.model_path import no_model_named
from service.metrics import Metrics
from service.serving.catalog import Catalog
from service.serving.slot import Serving, Slot
from service.settings import Settings


async def _slots(request: Request) -> Catalog:
    slots: Catalog = request.state.slots
    return slots


async def _any_slot(request: Request) -> Slot | None:
    slot: Slot | None = request.state.slot
    return slot


AllSlots = Annotated[Catalog, Depends(_slots)]
AnySlot = Annotated[Slot | None, Depends(_any_slot)]


async def _slot(slots: AllSlots, slot: AnySlot) -> Slot:
    if slot is None:
        raise no_model_named("", list(slots.by_name))
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
"""Only told in the OpenAPI document: `service.auth` has checked the key before."""

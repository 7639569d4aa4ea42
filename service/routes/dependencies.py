"""What handlers ask for: the model that the address names, the settings, the metrics."""

from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import APIKeyHeader, HTTPBearer

from service.metrics import Metrics
from service.naming import no_model_named
from service.settings import Settings
from service.slot import Serving, Slot
from service.slots import Slots


def _slots(request: Request) -> Slots:
    slots: Slots = request.state.slots
    return slots


def _any_slot(request: Request) -> Slot | None:
    slot: Slot | None = request.state.slot
    return slot


def _slot(request: Request) -> Slot:
    slot = _any_slot(request)
    if slot is None:
        raise no_model_named("", list(_slots(request).by_name))
    return slot


def _serving(request: Request) -> Serving:
    return _slot(request).serving


def _settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


def _metrics(request: Request) -> Metrics:
    metrics: Metrics = request.app.state.metrics
    return metrics


def _model_metrics(request: Request) -> Metrics:
    return _slot(request).metrics


AllSlots = Annotated[Slots, Depends(_slots)]
AnySlot = Annotated[Slot | None, Depends(_any_slot)]
CurrentSlot = Annotated[Slot, Depends(_slot)]
Current = Annotated[Serving, Depends(_serving)]
AppSettings = Annotated[Settings, Depends(_settings)]
AppMetrics = Annotated[Metrics, Depends(_metrics)]
ModelMetrics = Annotated[Metrics, Depends(_model_metrics)]

DOCUMENTED_KEYS = [
    Security(APIKeyHeader(name="X-API-Key", auto_error=False, scheme_name="ApiKey")),
    Security(HTTPBearer(auto_error=False, scheme_name="Bearer")),
]
"""Only told in the OpenAPI document: `service.auth` has checked the key before."""

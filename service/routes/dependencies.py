"""What handlers ask for: the model in service, the settings, the metrics."""

from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import APIKeyHeader, HTTPBearer

from service.metrics import Metrics
from service.settings import Settings
from service.slot import Serving, Slot


def _slot(request: Request) -> Slot:
    slot: Slot = request.state.slot
    return slot


def _serving(request: Request) -> Serving:
    return _slot(request).serving


def _settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


def _metrics(request: Request) -> Metrics:
    metrics: Metrics = request.app.state.metrics
    return metrics


CurrentSlot = Annotated[Slot, Depends(_slot)]
Current = Annotated[Serving, Depends(_serving)]
AppSettings = Annotated[Settings, Depends(_settings)]
AppMetrics = Annotated[Metrics, Depends(_metrics)]

DOCUMENTED_KEYS = [
    Security(APIKeyHeader(name="X-API-Key", auto_error=False, scheme_name="ApiKey")),
    Security(HTTPBearer(auto_error=False, scheme_name="Bearer")),
]
"""Only told in the OpenAPI document: `service.auth` has checked the key before."""

"""Probes, metrics and versions, for operators."""

import platform
from importlib.metadata import version as version_of
from typing import Any

import torch
from fastapi import APIRouter, Response

from service.api import readiness
from service.api.schemas import Liveness, Readiness, Version
from service.http.problems import responses
from service.http.routes.dependencies import DOCUMENTED_KEYS, AllModels, AnySlot, AppMetrics

router = APIRouter(tags=["operations"])
_NOT_READY: dict[int | str, dict[str, Any]] = {
    503: {"model": Readiness, "description": "Still loading, cut off from the log, or failed"}
}


@router.get("/livez", operation_id="get_liveness", summary="Liveness")
@router.get("/healthz", operation_id="get_health", summary="Liveness under another name")
def livez() -> Liveness:
    """Answer as long as the process runs, whatever the state of the model."""
    return Liveness()


@router.get(
    "/readyz",
    operation_id="get_readiness",
    summary="Readiness",
    responses={**responses(), **_NOT_READY},
)
def readyz(models: AllModels, slot: AnySlot, response: Response) -> Readiness:
    """
    Report phase and progress; 503 while no forecasts can be answered.

    In the phase `replaying`, a series without a state is replayed when it is requested. `cut off`
    means that the last read of a shared log failed. `successor` is the last model of a rollout;
    `reason` says what is wrong. A server of several models reports each in `models`; it is ready
    once no model is being loaded and one can answer.
    """
    report = readiness.readiness_of_all(models) if slot is None else readiness.readiness(slot)
    response.status_code = 200 if report.ready else 503
    return report


@router.get(
    "/metrics",
    operation_id="get_metrics",
    summary="Metrics for Prometheus",
    response_class=Response,
    responses={**responses(), 200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    dependencies=DOCUMENTED_KEYS,
)
def get_metrics(metrics: AppMetrics) -> Response:
    """Return counters, gauges and histograms in the text format of Prometheus."""
    return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


@router.get(
    "/version",
    operation_id="get_version",
    summary="Versions",
    responses=responses(),
    dependencies=DOCUMENTED_KEYS,
)
def get_version() -> Version:
    """Return the versions of Statecast, Python and torch."""
    return Version(
        version=version_of("statecast"), python=platform.python_version(), torch=torch.__version__
    )

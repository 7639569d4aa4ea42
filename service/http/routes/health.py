"""For operators: is it alive, is it ready, what runs, and its metrics."""

import platform
from importlib.metadata import version as version_of
from typing import Any

import torch
from fastapi import APIRouter, Response

from service.api import readiness
from service.api.schemas import Liveness, Readiness, Version
from service.http.problems import responses
from service.http.routes.dependencies import DOCUMENTED_KEYS, AllSlots, AnySlot, AppMetrics

router = APIRouter(tags=["operations"])
_NOT_READY: dict[int | str, dict[str, Any]] = {
    503: {"model": Readiness, "description": "Still loading, cut off from the log, or failed"}
}


@router.get("/livez", operation_id="get_liveness", summary="Is the process alive?")
@router.get("/healthz", operation_id="get_health", summary="The same, under another name")
def livez() -> Liveness:
    """Answers whenever the process can; says nothing of the model."""
    return Liveness()


@router.get(
    "/readyz",
    operation_id="get_readiness",
    summary="Can it answer forecasts?",
    responses={**responses(), **_NOT_READY},
)
def readyz(slots: AllSlots, slot: AnySlot, response: Response) -> Readiness:
    """
    Tells phase and progress; 503 while no forecasts are answered.

    While the phase is `replaying`, a series that has no state yet is replayed when asked for;
    `cut off` is a server whose last look at a shared log failed. `successor` is the last model
    that was to take over; `reason` says what is wrong. A server of several models tells of each
    in `models`: it is ready once none is being loaded and one answers.
    """
    told = readiness.readiness_of_all(slots) if slot is None else readiness.readiness(slot)
    response.status_code = 200 if told.ready else 503
    return told


@router.get(
    "/metrics",
    operation_id="get_metrics",
    summary="For Prometheus",
    response_class=Response,
    responses={**responses(), 200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    dependencies=DOCUMENTED_KEYS,
)
def get_metrics(metrics: AppMetrics) -> Response:
    """Counters and histograms in Prometheus' text format."""
    return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


@router.get(
    "/version",
    operation_id="get_version",
    summary="What runs",
    responses=responses(),
    dependencies=DOCUMENTED_KEYS,
)
def get_version() -> Version:
    """Versions of Statecast, Python and torch."""
    return Version(
        version=version_of("statecast"), python=platform.python_version(), torch=torch.__version__
    )

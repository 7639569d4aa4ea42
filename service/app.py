"""The application: a factory, and a lifespan that begins to load and stops cleanly."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import TypedDict

import anyio.to_thread
from fastapi import FastAPI

from service.http import openapi, problems
from service.http.middleware.auth import ApiKeyAuth
from service.http.middleware.disconnect import DisconnectWatch
from service.http.middleware.limits import BodyLimit, ConcurrencyLimit
from service.http.middleware.model_path import ModelPath
from service.http.middleware.request_log import RequestLog
from service.http.openapi import install_openapi
from service.http.routes import forecasts, log, models, observations, series
from service.http.routes import health as operations
from service.metrics import Metrics
from service.serving.catalog import Catalog
from service.serving.slot import Slot
from service.settings import Settings

DESCRIPTION = """
Forecasts of many time series, from states that a recurrent model carries: each observation costs
one step, and a forecast starts from what the model already remembers.

Every failure is `application/problem+json` with a stable `code`.
"""


class AppState(TypedDict):
    """What the lifespan hands to every request."""

    slots: Catalog
    slot: Slot | None
    """What answers at addresses without the name of a model, where there is one."""


def create_app(
    settings: Settings, *, on_settled: Callable[[Catalog], None] | None = None
) -> FastAPI:
    """
    Build the app; nothing is loaded until it starts, and nothing at import.

    Args:
        settings: All of them.
        on_settled: Called from another thread once the start of every model has succeeded or
            failed.

    Raises:
        OpenBind: Other machines could call, and no API key is set.
    """
    settings.check_bind()
    metrics = Metrics()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[AppState]:
        limiter = anyio.to_thread.current_default_thread_limiter()
        limiter.total_tokens = settings.limits.max_concurrency + 8  # room for the probes
        slots = app.state.slots = Catalog(settings, metrics)
        app.state.slot = slots.only
        slots.start(on_settled)
        try:
            yield {"slots": slots, "slot": slots.only}
        finally:
            await anyio.to_thread.run_sync(slots.close)

    app = FastAPI(
        title="Statecast",
        version=version("statecast"),
        description=DESCRIPTION,
        lifespan=lifespan,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
    )
    app.state.settings, app.state.metrics = settings, metrics
    for resource in (forecasts, observations, series, log, models, operations):
        app.include_router(resource.router)
    problems.install(app, retry_after=settings.limits.retry_after)
    openapi.install(app)
    install_openapi(app, open_names=not settings.key_digests)
    # The last one added is the outermost.
    if settings.models:
        app.add_middleware(ModelPath)
    app.add_middleware(DisconnectWatch)
    app.add_middleware(BodyLimit, most=settings.limits.max_body_bytes)
    app.add_middleware(ApiKeyAuth, settings=settings)
    app.add_middleware(
        ConcurrencyLimit,
        most=settings.limits.max_concurrency,
        retry_after=settings.limits.retry_after,
    )
    app.add_middleware(RequestLog, metrics=metrics)
    return app

"""The application factory; the lifespan starts loading the models and stops cleanly."""

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
from service.http.routes import forecasts, health, log, models, observations, series
from service.metrics import Metrics
from service.serving.catalog import Catalog
from service.serving.slot import Slot
from service.settings import Settings

DESCRIPTION = """
Forecasts of many time series from the carried states of a recurrent model: an observation costs
one recurrent step, and a forecast starts from what the model already remembers.

Every failure is `application/problem+json` with a stable `code`.
"""


class AppState(TypedDict):
    """State that the lifespan gives to every request."""

    catalog: Catalog
    """All models that are served."""
    slot: Slot | None
    """Model that answers paths without the name of a model; None if there are several."""


def create_app(
    settings: Settings, *, on_settled: Callable[[Catalog], None] | None = None
) -> FastAPI:
    """
    Build the application. Nothing is loaded at import, or before the application starts.

    Args:
        settings: Settings of the server.
        on_settled: Called from another thread once every model has started or failed to.

    Raises:
        OpenBind: The address is reachable from other machines and no API key is set.
    """
    settings.check_bind()
    metrics = Metrics()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[AppState]:
        limiter = anyio.to_thread.current_default_thread_limiter()
        limiter.total_tokens = settings.limits.max_concurrency + 8  # Room for the probes.
        catalog = app.state.catalog = Catalog(settings, metrics)
        app.state.slot = catalog.only
        catalog.start(on_settled)
        try:
            yield {"catalog": catalog, "slot": catalog.only}
        finally:
            await anyio.to_thread.run_sync(catalog.close)

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
    for resource in (forecasts, observations, series, log, models, health):
        app.include_router(resource.router)
    problems.install(app, retry_after=settings.limits.retry_after)
    openapi.install_docs(app)
    openapi.install_openapi(app, open_names=not settings.key_digests)
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

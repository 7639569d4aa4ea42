"""
The OpenAPI document with working examples, and the page that shows it.

The examples name a real series with its real next stamps, so that "Try it out" works at once. If
API keys are set they name no series, because everyone may read the document.
"""

from copy import deepcopy
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.openapi.utils import get_openapi
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse
from starlette.staticfiles import StaticFiles

from service.api import timestamps
from service.errors import NotReady
from service.http.problems import Problem
from service.serving.serving import Serving
from service.serving.slot import Slot
from service.storage.records import Observations

_STEPS = 3
"""Horizon of the examples."""
_HISTORY = 24
"""Steps of history in the example of a cold forecast."""
_PATHS = {
    "forecasts": "/v1/forecasts",
    "observations": "/v1/observations",
    "prune": "/v1/log:prune",
}


def install_openapi(app: FastAPI, *, open_names: bool) -> None:
    """Add `/openapi.json`: the framework's document with problems, examples and servers."""
    base: dict[str, Any] = {}

    @app.get("/openapi.json", include_in_schema=False)
    def openapi(request: Request) -> JSONResponse:
        if not base:
            base.update(
                get_openapi(
                    title=app.title,
                    version=app.version,
                    description=app.description,
                    routes=app.routes,
                )
            )
            schema = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
            base["components"]["schemas"] |= {**schema.pop("$defs"), "Problem": schema}
            base["components"]["schemas"].pop("HTTPValidationError", None)
            base["components"]["schemas"].pop("ValidationError", None)
        slot: Slot | None = request.state.slot
        document = deepcopy(base)
        _set_examples(document, _real_examples(slot) if slot and open_names else None)
        if servers := _servers(request):
            document["servers"] = servers
        return JSONResponse(document)


def _servers(request: Request) -> list[dict[str, Any]]:
    """Return base URLs if the paths of the document are not those of the server."""
    names = [name for name in request.state.catalog.by_name if name]
    if prefix := request.scope["root_path"]:
        return [{"url": prefix}]
    if not names:
        return []
    variables = {"model": {"enum": names, "default": names[0]}}
    return [{"url": "/models/{model}", "variables": variables}]


def examples(serving: Serving) -> dict[str, dict[str, Any]] | None:
    """Return bodies that work now, by resource and name; None while there are no series."""
    engine, calendar = serving.engine, serving.bundle.calendar
    name = next(iter(engine.rows), None)
    if name is None:
        return None
    data = serving.bundle.config.data
    with serving.log.read() as transaction:
        rows = transaction.history([int(engine.numbers[engine.rows[name]])])
    horizon = min(_STEPS, serving.bundle.horizon)
    ahead = timestamps.render(calendar.after(rows.ds[-1:], horizon)[0], calendar)
    last = dict(zip((*data.known_future, *data.past_only), rows.covariates[-1], strict=True))
    known = {column: float(last[column]) for column in data.known_future}
    futr = [{"unique_id": name, "ds": ds, **known} for ds in ahead] if known else []
    options = {"h": horizon, "level": [80, 95], **({"futr": futr} if futr else {})}
    y = float(rows.y[-1]) if np.isfinite(rows.y[-1]) else 1.0
    row = {
        "unique_id": name,
        "ds": ahead[0],
        "y": y,
        **{column: float(value) for column, value in last.items()},
    }
    return {
        "forecasts": {
            "live": {"unique_ids": [name], **options},
            "cold": {"series": [_inline(name, rows, list(last), serving)], **options},
        },
        "observations": {"one": {"observations": [row]}},
        "prune": {"count": {"before": ahead[0], "dry_run": True}},
        "names": {"unique_id": name},
    }


def _inline(name: str, rows: Observations, columns: list[str], serving: Serving) -> dict[str, Any]:
    rows = rows.take(np.arange(len(rows))[-_HISTORY:])
    covariates = {column: rows.covariates[:, i].tolist() for i, column in enumerate(columns)}
    y = [value if np.isfinite(value) else None for value in rows.y.tolist()]
    ds = timestamps.render(rows.ds, serving.bundle.calendar)
    return {"unique_id": name, "ds": ds, "y": y, **covariates}


def _real_examples(slot: Slot) -> dict[str, dict[str, Any]] | None:
    try:
        return examples(slot.serving)
    except NotReady:
        return None


_PLAIN: dict[str, dict[str, Any]] = {
    "forecasts": {"live": {"unique_ids": ["store_1"], "h": 3, "level": [80, 95]}},
    "observations": {
        "one": {"observations": [{"unique_id": "store_1", "ds": "2024-03-01", "y": 12.5}]}
    },
    "prune": {"count": {"keep_steps": 1000, "dry_run": True}},
    "names": {"unique_id": "store_1"},
}


def _set_examples(document: dict[str, Any], bodies: dict[str, dict[str, Any]] | None) -> None:
    chosen = bodies or _PLAIN
    for resource, path in _PATHS.items():
        content = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
        content["examples"] = {
            name: {"summary": name, "value": body} for name, body in chosen[resource].items()
        }
    for path, item in document["paths"].items():
        for operation in item.values() if "{unique_id}" in path else ():
            for parameter in operation["parameters"]:
                if parameter["name"] == "unique_id":
                    parameter["example"] = chosen["names"]["unique_id"]


ASSETS = "fastapi_offline"


def install_docs(app: FastAPI) -> None:
    """Add the page of the documentation and its assets, if they are installed."""
    package = find_spec(ASSETS)  # Located, not imported.
    if package is None or package.origin is None:
        return
    folder = Path(package.origin).parent / "static"
    app.mount("/docs/assets", StaticFiles(directory=folder), name="docs")

    @app.get("/", include_in_schema=False)
    def root() -> RedirectResponse:
        return RedirectResponse("docs")

    @app.get("/docs", include_in_schema=False)
    def docs() -> HTMLResponse:
        return get_swagger_ui_html(
            openapi_url="openapi.json",
            title=f"{app.title} API",
            swagger_js_url="docs/assets/swagger-ui-bundle.js",
            swagger_css_url="docs/assets/swagger-ui.css",
            swagger_favicon_url="docs/assets/favicon.png",
        )

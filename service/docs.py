"""
`/docs`: the interactive page, with nothing fetched from elsewhere; a browser at `/` is sent there.

The assets come out of the installed package `fastapi_offline`; without it there is no page, and
`/openapi.json` still tells everything.
"""

from importlib.util import find_spec
from pathlib import Path

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.responses import HTMLResponse, RedirectResponse
from starlette.staticfiles import StaticFiles

ASSETS = "fastapi_offline"


def install(app: FastAPI) -> None:
    """Add the page and its assets, if they are installed."""
    found = find_spec(ASSETS)  # found, not imported
    if found is None or found.origin is None:
        return
    folder = Path(found.origin).parent / "static"
    app.mount("/docs/assets", StaticFiles(directory=folder), name="docs")

    @app.get("/", include_in_schema=False)
    def root() -> RedirectResponse:
        return RedirectResponse("docs")

    @app.get("/docs", include_in_schema=False)
    def docs() -> HTMLResponse:
        return get_swagger_ui_html(
            openapi_url="openapi.json", title=f"{app.title} API",
            swagger_js_url="docs/assets/swagger-ui-bundle.js",
            swagger_css_url="docs/assets/swagger-ui.css",
            swagger_favicon_url="docs/assets/favicon.png",
        )  # fmt: skip

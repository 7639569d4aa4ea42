"""
Finds the model that a path names: with several models, each has all paths below `/models/NAME`.

The routes find the slot of the model in the state of the request.
"""

import re
from collections.abc import Sequence

from starlette.types import ASGIApp, Receive, Scope, Send

from forecast.errors import nearest
from service.errors import NoSuchModel
from service.http.problems import of_error
from service.serving.catalog import Catalog

_PREFIX = re.compile(r"/models/([^/]+)(?=/|$)")


def split_model_path(path: str) -> tuple[str, str]:
    """
    Return the model that a path names, if any, and the path below it.

    >>> split_model_path("/models/sales/v1/series"), split_model_path("/livez")
    (('sales', '/v1/series'), ('', '/livez'))
    """
    match = _PREFIX.match(path)
    return (match[1], path[match.end() :]) if match else ("", path)


def no_model_named(name: str, names: Sequence[str]) -> NoSuchModel:
    """Return the error for an unknown model, which names the known ones and the nearest."""
    near = nearest(name, names)
    advice = f"did you mean {near!r}? " if near else ""
    problem = f"no model {name[:80]!r}" if name else "no model named"
    return NoSuchModel(
        f"{problem}: known models: {', '.join(names)}",
        help=f"{advice}call it as /models/{near or names[0]}/v1/...",
    )


class ModelPath:
    """Puts the slot of the model that the path names into the state of the request."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        name = split_model_path(scope["path"])[0] if scope["type"] == "http" else ""
        if name:
            catalog: Catalog = scope["state"]["catalog"]
            if name not in catalog.by_name:
                refused = of_error(scope, no_model_named(name, list(catalog.by_name)))
                await refused(scope, receive, send)
                return
            scope["state"]["slot"] = catalog.by_name[name]
            scope["root_path"] = f"{scope.get('root_path', '')}/models/{name}"
        await self._app(scope, receive, send)

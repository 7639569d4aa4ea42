"""
Which of several models an address names: each has all addresses below `/models/NAME`.

The routes know nothing of it: they find the slot of the model in the state of the request.
"""

import re
from collections.abc import Sequence

from starlette.types import ASGIApp, Receive, Scope, Send

from forecast.errors import nearest
from service.errors import NoSuchModel
from service.http.problems import of_error
from service.serving.catalog import Catalog

_PREFIX = re.compile(r"/models/([^/]+)(?=/|$)")


def parted(path: str) -> tuple[str, str]:
    """
    The model that a path names, if any, and the path below it.

    >>> parted("/models/sales/v1/series"), parted("/livez")
    (('sales', '/v1/series'), ('', '/livez'))
    """
    found = _PREFIX.match(path)
    return (found[1], path[found.end() :]) if found else ("", path)


def no_model_named(name: str, names: Sequence[str]) -> NoSuchModel:
    """The error that names the models there are, and the nearest one."""
    near = nearest(name, names)
    way_out = f"did you mean {near!r}? " if near else ""
    return NoSuchModel(
        f"{f'no model {name[:80]!r}' if name else 'no model named'}: here are {', '.join(names)}",
        help=f"{way_out}call it as /models/{near or names[0]}/v1/...",
    )


class ModelPath:
    """Puts the slot of the model that the path names in the state of the request."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        name = parted(scope["path"])[0] if scope["type"] == "http" else ""
        if name:
            slots: Catalog = scope["state"]["slots"]
            if name not in slots.by_name:
                refused = of_error(scope, no_model_named(name, list(slots.by_name)))
                await refused(scope, receive, send)
                return
            scope["state"]["slot"] = slots.by_name[name]
            scope["root_path"] = f"{scope.get('root_path', '')}/models/{name}"
        await self._app(scope, receive, send)

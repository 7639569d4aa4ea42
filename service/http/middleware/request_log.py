"""Request id, access log, timing."""

import logging
import re
import time
import uuid

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.http.middleware.limits import logger
from service.http.problems import internal
from service.metrics import Metrics

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})
access = logging.getLogger("service.access")


class RequestLog:
    """
    The outermost layer: request id in and out, one line of log, metrics, and the last resort.

    An error nobody foresaw is logged here, with its traceback, and answered as 500.
    """

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        begun = time.perf_counter()
        status = 0

        async def number(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message.get("headers", []),
                    (b"x-request-id", request_id.encode()),
                ]
            await send(message)

        try:
            await self._app(scope, receive, number)
        except Exception:
            logger.exception("unforeseen error, request_id=%s", request_id)
            if status:
                raise
            await internal(scope)(scope, receive, number)
        finally:
            self._note(scope, status, time.perf_counter() - begun, request_id)

    def _note(self, scope: Scope, status: int, seconds: float, request_id: str) -> None:
        method = scope["method"] if scope["method"] in _METHODS else "other"
        handler = getattr(scope.get("route"), "path_format", "none")
        slot = scope["state"].get("slot")
        model = slot.metrics.model if slot else ""
        self._metrics.requests.labels(model, method, handler, str(status)).inc()
        self._metrics.request_seconds.labels(model, method, handler).observe(seconds)
        path = scope.get("raw_path", b"").decode("latin-1")[:300]
        access.info("%s %s %d %.1fms id=%s", method, path, status, 1000 * seconds, request_id)


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return str(value.decode("ascii"))
    return uuid.uuid4().hex

"""Request ids, the access log and request metrics."""

import logging
import re
import time
import uuid

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.http.problems import internal
from service.metrics import Metrics

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})
logger = logging.getLogger("service")
access = logging.getLogger("service.access")


class RequestLog:
    """
    The outermost layer: request id, one log line, metrics, and the handling of unexpected errors.

    An unexpected error is logged here with its traceback and answered with 500.
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
        start = time.perf_counter()
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message.get("headers", []),
                    (b"x-request-id", request_id.encode()),
                ]
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception:
            logger.exception("unexpected error, request_id=%s", request_id)
            if status:
                raise
            await internal(scope)(scope, receive, send_with_id)
        finally:
            self._record(scope, status, time.perf_counter() - start, request_id)

    def _record(self, scope: Scope, status: int, seconds: float, request_id: str) -> None:
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

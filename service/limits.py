"""
What surrounds every request: its number, its measure, and the bounds. Pure ASGI throughout.

A body is counted while it arrives, whatever Content-Length says; more requests than the server
takes are refused at once instead of waiting.
"""

import asyncio
import logging
import re
import time
import uuid

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import Overloaded, RequestTooLarge
from service.metrics import Metrics
from service.naming import parted
from service.problems import internal, of_error

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})
_SLOWEST = 10_000
"""Bytes of a body in a second."""
_ALWAYS = frozenset({"/livez", "/readyz", "/healthz", "/metrics"})
access = logging.getLogger("service.access")
logger = logging.getLogger("service")


class Frame:
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
                    *message.get("headers", []), (b"x-request-id", request_id.encode())
                ]  # fmt: skip
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


class Crowd:
    """Answers 503 with Retry-After when as many requests as allowed are running."""

    def __init__(self, app: ASGIApp, *, most: int, retry_after: int) -> None:
        self._app = app
        self._most = most
        self._retry_after = retry_after
        self._running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or parted(scope["path"])[1] in _ALWAYS:
            await self._app(scope, receive, send)
            return
        if self._running >= self._most:
            error = Overloaded(
                f"{self._most} requests are running, as many as this server takes",
                help="try again after the time in Retry-After",
            )
            answer = of_error(scope, error, retry_after=self._retry_after)
            await answer(scope, receive, send)
            return
        self._running += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._running -= 1


class BodyLimit:
    """
    Refuses bodies of too many bytes: by Content-Length at once, else as they arrive.

    A body that comes slower than 10 kB a second, the first `patience` seconds aside, is given up:
    a client that has gone away would keep its place for ever.
    """

    def __init__(self, app: ASGIApp, *, most: int, patience: float = 30.0) -> None:
        self._app = app
        self._most = most
        self._patience = patience

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        error = RequestTooLarge(
            f"the body has more than {self._most:,} bytes",
            help="send it in several requests; STATECAST_LIMITS__MAX_BODY_BYTES sets the bound",
        )
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared[:20]) > self._most:
            await of_error(scope, error)(scope, receive, send)
            return
        seen, whole, begun = 0, False, time.perf_counter()

        async def counted() -> Message:
            nonlocal seen, whole
            left = begun + self._patience + seen / _SLOWEST - time.perf_counter()
            try:
                async with asyncio.timeout(None if whole else max(left, 0)):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(
                    408, f"the rest of the body did not come: {seen:,} bytes are here"
                ) from None
            whole = not message.get("more_body", False)
            seen += len(message.get("body", b""))
            if seen > self._most:  # HTTPException is what the framework lets through
                raise HTTPException(413, error.message)
            return message

        await self._app(scope, counted, send)


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return str(value.decode("ascii"))
    return uuid.uuid4().hex

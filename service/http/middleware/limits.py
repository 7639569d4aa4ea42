"""
What surrounds every request: its number, its measure, and the bounds. Pure ASGI throughout.

A body is counted while it arrives, whatever Content-Length says; more requests than the server
takes are refused at once instead of waiting.
"""

import asyncio
import logging
import time

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import Overloaded, RequestTooLarge
from service.http.middleware.model_path import parted
from service.http.problems import of_error

_SLOWEST = 10_000
"""Bytes of a body in a second."""
_ALWAYS = frozenset({"/livez", "/readyz", "/healthz", "/metrics"})
logger = logging.getLogger("service")


class ConcurrencyLimit:
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

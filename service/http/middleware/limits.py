"""
Limits on requests: how many run at once, how large a body is and how slowly it may arrive.

Bytes are counted while they arrive, whatever Content-Length says. Requests above the limit are
refused at once instead of waiting.
"""

import asyncio
import time

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import Overloaded, RequestTooLarge
from service.http.middleware.model_path import split_model_path
from service.http.problems import of_error

_SLOWEST = 10_000
"""Least bytes of a body per second."""
_UNLIMITED = frozenset({"/livez", "/readyz", "/healthz", "/metrics"})


class ConcurrencyLimit:
    """Answers 503 with Retry-After while the largest allowed number of requests runs."""

    def __init__(self, app: ASGIApp, *, most: int, retry_after: int) -> None:
        self._app = app
        self._most = most
        self._retry_after = retry_after
        self._running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or split_model_path(scope["path"])[1] in _UNLIMITED:
            await self._app(scope, receive, send)
            return
        if self._running >= self._most:
            error = Overloaded(
                f"{self._most} requests are running, the most that this server accepts",
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
    Refuses bodies that are too large: by Content-Length at once, else while they arrive.

    After the first `patience` seconds, a body that arrives slower than 10 kB per second is refused,
    because a client that has gone away would occupy its place for ever.
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
        received, complete, start = 0, False, time.perf_counter()

        async def receive_counted() -> Message:
            nonlocal received, complete
            left = start + self._patience + received / _SLOWEST - time.perf_counter()
            try:
                async with asyncio.timeout(None if complete else max(left, 0)):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(
                    408, f"the rest of the body did not arrive: received {received:,} bytes"
                ) from None
            complete = not message.get("more_body", False)
            received += len(message.get("body", b""))
            if received > self._most:  # The framework lets only an HTTPException through.
                raise HTTPException(413, error.message)
            return message

        await self._app(scope, receive_counted, send)

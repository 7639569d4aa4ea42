"""
Who waits for an answer, and whether they still do.

A client that hangs up is seen while its request is computed or waits for that: what waits for its
turn then gives it up, and what runs already is finished.
"""

import asyncio
from concurrent.futures import Future
from contextvars import ContextVar
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import Abandoned


class _Caller:
    """The client of one request. It is left on one thread and asked on another."""

    def __init__(self) -> None:
        self.gone = False
        self.awaited: Future[Any] | None = None

    def leave(self) -> None:
        self.gone = True
        if self.awaited is not None:
            self.awaited.cancel()


_caller: ContextVar[_Caller | None] = ContextVar("caller", default=None)


def waits_for(future: "Future[Any]") -> None:
    """Have it cancelled, unless it runs by then, when the client of this request hangs up."""
    caller = _caller.get()
    if caller is not None:
        caller.awaited = future
        if caller.gone:
            future.cancel()


def check_caller() -> None:
    """
    Before anything is said to a client.

    Raises:
        Abandoned: It has hung up.
    """
    caller = _caller.get()
    if caller is not None and caller.gone:
        raise Abandoned("the client hung up; what had not begun was dropped")


class Watch:
    """Looks out for the end of the connection from when the body has been read. Pure ASGI."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        caller = _Caller()
        ahead: asyncio.Task[Message] | None = None

        async def read() -> Message:
            message = await receive()
            if message["type"] == "http.disconnect":
                caller.leave()
            return message

        async def watched() -> Message:
            nonlocal ahead
            message = await (read() if ahead is None else asyncio.shield(ahead))
            if message["type"] == "http.request" and not message.get("more_body", False):
                ahead = asyncio.create_task(read())
            return message

        token = _caller.set(caller)
        try:
            await self._app(scope, watched, send)
        finally:
            _caller.reset(token)
            if ahead is not None:
                ahead.cancel()

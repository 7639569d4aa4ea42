"""Notices clients that hang up while their request is computed."""

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.engine.cancellation import Caller, current_caller


class DisconnectWatch:
    """Watches for the end of the connection once the body has been read."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        caller = Caller()
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

        token = current_caller.set(caller)
        try:
            await self._app(scope, watched, send)
        finally:
            current_caller.reset(token)
            if ahead is not None:
                ahead.cancel()

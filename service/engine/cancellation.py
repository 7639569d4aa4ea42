"""
Cancels waiting work of clients that have hung up.

The middleware notices that a client hangs up. Work of its request that still waits is then
dropped; work that runs already is finished.
"""

from concurrent.futures import Future
from contextvars import ContextVar
from typing import Any

from service.errors import Abandoned


class Caller:
    """The client of one request; written by the event loop, read by the thread of the request."""

    def __init__(self) -> None:
        self.has_left = False
        self.awaited: Future[Any] | None = None

    def leave(self) -> None:
        """Cancel the work that the client waits for, unless it runs already."""
        self.has_left = True
        if self.awaited is not None:
            self.awaited.cancel()


current_caller: ContextVar[Caller | None] = ContextVar("caller", default=None)


def cancel_with_caller(future: "Future[Any]") -> None:
    """Cancel `future` if the client of this request hangs up before it runs."""
    caller = current_caller.get()
    if caller is not None:
        caller.awaited = future
        if caller.has_left:
            future.cancel()


def check_caller() -> None:
    """
    Check that the client of this request still waits for an answer.

    Raises:
        Abandoned: The client has hung up.
    """
    caller = current_caller.get()
    if caller is not None and caller.has_left:
        raise Abandoned("the client hung up; work that had not begun was dropped")

"""
Who waits for an answer, and whether they still do.

A client that hangs up is seen while its request is computed or waits for that: what waits for its
turn then gives it up, and what runs already is finished.
"""

from concurrent.futures import Future
from contextvars import ContextVar
from typing import Any

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

"""
Real servers in processes of their own, which can be killed at any moment or at a named point.

A process runs the same code as `python -m service`. It is forked from a process that has imported
everything, so that it starts in half a second. The service knows nothing of the points: the process
traces the entries to and returns from functions and sends itself SIGKILL.
"""

import itertools
import multiprocessing
import os
import re
import runpy
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import Any, Literal, TypeVar

import httpx

T = TypeVar("T")
_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(
    ["benchmarks.speed.servers", "service.server", "forecast.forecaster"]
)
_START_S = 60


@dataclass(frozen=True, slots=True)
class Point:
    """A point at which a process kills itself: the n-th call of or return from a function."""

    file: str
    """End of the path of the file with the function."""
    function: str
    """Qualified name of the function."""
    edge: Literal["enter", "leave"]
    turn: int = 1
    """Number of the call or return at which it happens, counted from 1."""


POINTS = {
    "before the commit": Point("sqlalchemy/engine/default.py", "DefaultDialect.do_commit", "enter"),
    "after the commit": Point("sqlalchemy/engine/default.py", "DefaultDialect.do_commit", "leave"),
    "before the answer": Point("service/ingest/writer.py", "Writer.write", "leave"),
    "snapshot not moved": Point("pathlib.py", "Path.replace", "enter"),
    "snapshot without mark": Point("forecast/files.py", "write_file", "leave"),
    "before the swap": Point("service/ingest/write_queue.py", "WriteQueue.hand_over", "enter"),
    "after the swap": Point("service/ingest/write_queue.py", "WriteQueue.hand_over", "leave"),
    "swap without its note": Point("forecast/bundle.py", "save_bundle", "leave"),
}
"""Points of a running server by name, each at its first turn."""


class ServerStopped(Exception):
    """A server ended before it was ready; the message is its stderr."""


@dataclass(frozen=True, slots=True)
class Server:
    """A server process."""

    process: BaseProcess
    stderr: Path

    @property
    def pid(self) -> int:
        """Id of the process."""
        assert self.process.pid is not None
        return self.process.pid

    @property
    def output(self) -> str:
        """The text that the process has written to stdout and stderr so far."""
        return self.stderr.read_text(encoding="utf-8")

    @property
    def url(self) -> str:
        """The address at which the server listens, empty until it does."""
        match = re.search(r"listening on (\S+)\n", self.output)
        return match[1] if match else ""

    @property
    def ready(self) -> bool:
        """True if the server is ready to forecast."""
        if not self.url:
            return False
        try:
            answer = httpx.get(f"{self.url}/readyz", timeout=60, verify=False)
        except httpx.TransportError:
            return False
        return answer.status_code == 200

    def send_signal(self, number: int) -> None:
        """Send a signal such as SIGTERM or SIGSTOP if the process still runs."""
        if self.process.is_alive():
            os.kill(self.pid, number)

    def wait(self, seconds: float = _START_S) -> int | None:
        """Wait for the process to end; return its exit code, negative for a signal, else None."""
        self.process.join(seconds)
        return self.process.exitcode

    def kill(self) -> None:
        """Send SIGKILL and wait until the process has ended."""
        self.process.kill()
        self.process.join()

    def wait_until_ready(self) -> None:
        """
        Wait until the server is ready to forecast.

        Raises:
            ServerStopped: The process ended instead.
        """
        wait_until(lambda: self.ready or not self.process.is_alive(), bool, _START_S)
        if not self.process.is_alive():
            raise ServerStopped(self.output)


@contextmanager
def started(
    environment: dict[str, str], point: Point | None = None, *, clock: tuple[int, ...] = ()
) -> Iterator[Server]:
    """
    Start a server on a free port and yield it at once; kill it at the end if it still runs.

    Args:
        environment: Settings of the server.
        point: Point at which it kills itself, if any.
        clock: Offsets of its wall clock in seconds, used in turn at each reading.
    """
    with tempfile.TemporaryDirectory() as folder:
        stderr = Path(folder) / "stderr"
        stderr.touch()
        process = _PROCESSES.Process(
            target=_serve, args=({"STATECAST_PORT": "0", **environment}, stderr, point, clock)
        )
        process.start()
        running = Server(process, stderr)
        try:
            yield running
        finally:
            running.kill()
            process.close()


@contextmanager
def server(environment: dict[str, str]) -> Iterator[Server]:
    """Start a server and yield it when it is ready; kill it at the end if it still runs."""
    with started(environment) as running:
        running.wait_until_ready()
        yield running


def _serve(
    environment: dict[str, str], stderr: Path, point: Point | None, clock: tuple[int, ...]
) -> None:
    os.environ.update(environment)
    output = os.open(stderr, os.O_WRONLY | os.O_APPEND)
    # The streams of the parent would otherwise stay open in a process that outlives it.
    for stream in (sys.stdout, sys.stderr):
        os.dup2(output, stream.fileno())
    if point is not None:
        _kill_at(point)
    if clock:
        _shift_clock(clock)
    runpy.run_module("service", run_name="__main__", alter_sys=True)


def _kill_at(point: Point) -> None:
    """Trace calls in threads started later, which are all but the main one with the event loop."""
    turns = itertools.count(1)

    def count() -> None:
        if next(turns) == point.turn:
            os.kill(os.getpid(), signal.SIGKILL)

    def leave(frame: FrameType, event: str, value: Any) -> Any:
        if event == "return":
            count()
        return leave

    def enter(frame: FrameType, event: str, value: Any) -> Any:
        code = frame.f_code
        if code.co_qualname != point.function or not code.co_filename.endswith(point.file):
            return None
        if point.edge == "leave":
            frame.f_trace_lines = False
            return leave
        count()
        return None

    threading.settrace(enter)


def _shift_clock(clock: tuple[int, ...]) -> None:
    """Shift the wall clock of this process; the monotonic clock stays correct."""
    offsets, time_ns = itertools.cycle(clock), time.time_ns
    time.time_ns = lambda: time_ns() + next(offsets) * 10**9
    time.time = lambda: time.time_ns() / 1e9


def wait_until(read: Callable[[], T], done: Callable[[T], bool], seconds: float = 30) -> T:
    """Read a value until `done` holds for it and return it; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while not done(value := read()):
        assert time.monotonic() < deadline, f"not done within {seconds} s, last value: {value}"
        time.sleep(0.01)
    return value

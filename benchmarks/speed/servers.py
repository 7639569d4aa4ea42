"""
Real servers in processes of their own, which may be killed: at any moment, or at a named point.

A process runs what `python -m service` runs. It is forked from one that has imported everything,
so that it starts in half a second. Nothing in the service knows of the points: the interpreter
tells when a function is entered or left, and the process sends itself SIGKILL.
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
    """Where a process ends itself: as it enters or leaves a function for the n-th time."""

    file: str
    """The end of the path of the file that the function is in."""
    function: str
    """Its qualified name."""
    edge: Literal["enter", "leave"]
    turn: int = 1


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
    """A server that ended before it was ready; says what it wrote to stderr."""


@dataclass(frozen=True, slots=True)
class Server:
    """One process that serves."""

    process: BaseProcess
    stderr: Path

    @property
    def pid(self) -> int:
        """Of the process."""
        assert self.process.pid is not None
        return self.process.pid

    @property
    def said(self) -> str:
        """What it wrote to stderr so far."""
        return self.stderr.read_text(encoding="utf-8")

    @property
    def url(self) -> str:
        """Where it listens; empty as long as it does not."""
        match = re.search(r"listening on (\S+)\n", self.said)
        return match[1] if match else ""

    @property
    def ready(self) -> bool:
        """Whether it answers forecasts."""
        if not self.url:
            return False
        try:
            answer = httpx.get(f"{self.url}/readyz", timeout=60, verify=False)
        except httpx.TransportError:
            return False
        return answer.status_code == 200

    def send_signal(self, number: int) -> None:
        """SIGTERM, SIGSTOP and the like, if it still runs."""
        if self.process.is_alive():
            os.kill(self.pid, number)

    def wait(self, seconds: float = _START_S) -> int | None:
        """Exit code, negative for a signal, once it has ended; None when it has not by then."""
        self.process.join(seconds)
        return self.process.exitcode

    def kill(self) -> None:
        """SIGKILL; returns when it is gone."""
        self.process.kill()
        self.process.join()

    def wait_until_ready(self) -> None:
        """
        Return when it answers forecasts.

        Raises:
            ServerStopped: It ended instead.
        """
        wait_until(lambda: self.ready or not self.process.is_alive(), bool, _START_S)
        if not self.process.is_alive():
            raise ServerStopped(self.said)


@contextmanager
def started(
    environment: dict[str, str], point: Point | None = None, *, clock: tuple[int, ...] = ()
) -> Iterator[Server]:
    """
    A server that has just been started on any free port; killed at the end if it still runs.

    Args:
        environment: Its settings.
        point: Where it ends itself.
        clock: Seconds by which its wall clock is off, one after the other at each look.
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
    """A server that answers forecasts; killed at the end if it still runs."""
    with started(environment) as running:
        running.wait_until_ready()
        yield running


def _serve(
    environment: dict[str, str], stderr: Path, point: Point | None, clock: tuple[int, ...]
) -> None:
    os.environ.update(environment)
    said = os.open(stderr, os.O_WRONLY | os.O_APPEND)
    for stream in (sys.stdout, sys.stderr):  # nobody waits for what a server left behind holds
        os.dup2(said, stream.fileno())
    if point is not None:
        _end_at(point)
    if clock:
        _set_off(clock)
    runpy.run_module("service", run_name="__main__", alter_sys=True)


def _end_at(point: Point) -> None:
    """Have the interpreter tell of every call in threads to come: all but the one of the socket."""
    turns = itertools.count(1)

    def come() -> None:
        if next(turns) == point.turn:
            os.kill(os.getpid(), signal.SIGKILL)

    def leave(frame: FrameType, event: str, value: Any) -> Any:
        if event == "return":
            come()
        return leave

    def enter(frame: FrameType, event: str, value: Any) -> Any:
        code = frame.f_code
        if code.co_qualname != point.function or not code.co_filename.endswith(point.file):
            return None
        if point.edge == "leave":
            frame.f_trace_lines = False
            return leave
        come()
        return None

    threading.settrace(enter)


def _set_off(clock: tuple[int, ...]) -> None:
    """The wall clock of this process alone; what measures spans has a clock that never jumps."""
    off, right = itertools.cycle(clock), time.time_ns
    time.time_ns = lambda: right() + next(off) * 10**9
    time.time = lambda: time.time_ns() / 1e9


def wait_until(look: Callable[[], T], done: Callable[[T], bool], seconds: float = 30) -> T:
    """Look again until it is as wanted; fails when that takes too long."""
    deadline = time.monotonic() + seconds
    while not done(seen := look()):
        assert time.monotonic() < deadline, f"waited {seconds} s in vain, last seen: {seen}"
        time.sleep(0.01)
    return seen

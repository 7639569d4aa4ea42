"""
All series that wait for a replay, read from the log and computed beside what is served.

Workers take the next series each. What they make changes nothing until it is put in place, which
takes its turn among all that is written.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from itertools import islice
from queue import Empty, SimpleQueue

from forecast.errors import ForecastError
from forecast.inference.observing import MAX_SERIES
from service.engine.executor import make_pool, usual_threads
from service.engine.history import Replay, next_part_size, replay
from service.errors import DamagedLog
from service.ingest.writer import Writer
from service.replay.worker import ReplayWorker

_FIRST, _PART_S = 64, 1.0
"""Series in the first part, and seconds that a worker takes for the later ones."""
_LOOK_S, LONG_S = 1.0, 10.0
"""Seconds after which to see how long it will be, and how many more are worth processes."""
_MOST_DAMAGED = 256
"""Series that are looked for one by one; with more, the damage is of the whole."""
Part = dict[str, int]
"""Series that wait, with their numbers."""
logger = logging.getLogger("service.replaying")


def replay_waiting(
    writer: Writer,
    put: Callable[[Replay], None],
    *,
    stopped: Callable[[], bool],
    told: Callable[[], None] = lambda: None,
    long_s: float = LONG_S,
) -> None:
    """
    Replay all that wait, the oldest first.

    A part in which something is damaged is halved until the series that it is of are alone: they
    go on waiting, the others come to life.

    Args:
        writer: Whose series wait.
        put: Has `writer.put_in_place` called where nothing else uses the writer.
        stopped: Whether to leave the rest.
        told: Called after each part.
        long_s: Seconds, of those it will yet take, that are worth processes.

    Raises:
        LogError: The log cannot be read; what was put in place before stays so.
        DamagedLog: What the first series that is damaged failed with, after all else.
    """
    size, begun, total = _FIRST, time.perf_counter(), len(writer.waiting)
    workers = _Workers(writer)
    running: deque[tuple[Part, Future[tuple[Replay, float]]]] = deque()
    left, halves = iter(writer.waiting.copy().items()), deque[Part]()
    failures: list[DamagedLog] = []
    try:
        while not stopped():
            while len(running) <= usual_threads():
                part = halves.popleft() if halves else dict(islice(left, size))
                if not part:
                    break
                running.append((part, workers.begin(part)))
            if not running:
                break
            part, future = running.popleft()
            try:
                made, took = future.result()
            except DamagedLog as error:
                if len(part) == 1:
                    failures.append(error)
                else:
                    some = iter(part.items())
                    halves += [dict(islice(some, len(part) // 2)), dict(some)]
            else:
                put(made)
                size = next_part_size(len(part), took, _PART_S, MAX_SERIES)
                told()
            if len(failures) == _MOST_DAMAGED:
                break
            spent, wait = time.perf_counter() - begun, len(writer.waiting)
            if spent >= min(_LOOK_S, long_s) and spent * wait >= long_s * (total - wait):
                workers.add_processes()
    finally:
        workers.close()
    if failures:
        raise failures[0]


class _Workers:
    """
    A thread for each core, which replays parts itself or has a process do it.

    Threads take turns wherever the interpreter is needed, for each row of the log and each call of
    a filter, and users with them; processes do not, but take seconds to start.
    """

    def __init__(self, writer: Writer) -> None:
        self._log, self._bundle = writer.log, writer.engine.bundle
        self._pool, self._reading = make_pool("replay"), threading.Lock()
        self._processes: list[ReplayWorker] | None = None
        self._idle = SimpleQueue[ReplayWorker]()

    def begin(self, part: Part) -> Future[tuple[Replay, float]]:
        """Have a part replayed; with the result comes how many seconds it took."""
        return self._pool.submit(self._work, part)

    def add_processes(self) -> None:
        """Have processes do the next parts, one for each thread; asked again, it does nothing."""
        if self._processes is not None:
            return
        self._processes = []
        for _ in range(usual_threads()):
            try:
                process = ReplayWorker(self._log, self._bundle)
            except (OSError, AssertionError) as error:  # no room; or daemonic: none may be started
                logger.warning("no process could be started, the server replays itself: %s", error)
                return
            self._processes.append(process)
            self._idle.put(process)

    def close(self) -> None:
        """Drop what has not begun, and wait for what has."""
        self._pool.shutdown(cancel_futures=True)
        for process in self._processes or ():
            process.close()

    def _work(self, part: Part) -> tuple[Replay, float]:
        begun = time.perf_counter()
        made = self._elsewhere(part) or replay(self._log, self._bundle, part, self._reading)
        return made, time.perf_counter() - begun

    def _elsewhere(self, part: Part) -> Replay | None:
        """By a process, if there is one."""
        try:
            process = self._idle.get_nowait()
        except Empty:
            return None
        try:
            made = process.replay(part)
        except (OSError, EOFError):
            logger.warning("a process that replayed has ended: the server does its part")
            return None
        except ForecastError:
            self._idle.put(process)
            raise
        self._idle.put(process)
        return made

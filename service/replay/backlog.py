"""
Replays the series that wait for it, in the background while the server answers.

Workers take the next series each. Their results change nothing until they are put in place, which
takes its turn among the writes.
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
"""Series in the first part, and the time that later parts should take, in seconds."""
_LOOK_S, LONG_S = 1.0, 10.0
"""Seconds before the length of the replay is estimated, and length that justifies processes."""
_MOST_DAMAGED = 256
"""Most damaged series that are isolated; with more, the whole log counts as damaged."""
Part = dict[str, int]
"""Names of waiting series, with their numbers."""
logger = logging.getLogger("service.replaying")


def replay_waiting(
    writer: Writer,
    put: Callable[[Replay], None],
    *,
    stopped: Callable[[], bool],
    on_progress: Callable[[], None] = lambda: None,
    long_s: float = LONG_S,
) -> None:
    """
    Replay all waiting series, the oldest first.

    A part that meets damage is halved until the damaged series are alone. They keep waiting; all
    others get live states.

    Args:
        writer: The writer whose series wait.
        put: Calls `writer.put_in_place` while nothing else uses the writer.
        stopped: Whether to leave the rest.
        on_progress: Called after each part.
        long_s: Remaining time, in seconds, from which worker processes are started.

    Raises:
        LogError: The log cannot be read; states that were put in place stay.
        DamagedLog: The error of the first damaged series, after all others were replayed.
    """
    size, start, total = _FIRST, time.perf_counter(), len(writer.waiting)
    workers = _Workers(writer)
    running: deque[tuple[Part, Future[tuple[Replay, float]]]] = deque()
    remaining, halves = iter(writer.waiting.copy().items()), deque[Part]()
    failures: list[DamagedLog] = []
    try:
        while not stopped():
            while len(running) <= usual_threads():
                part = halves.popleft() if halves else dict(islice(remaining, size))
                if not part:
                    break
                running.append((part, workers.begin(part)))
            if not running:
                break
            part, future = running.popleft()
            try:
                replayed, seconds = future.result()
            except DamagedLog as error:
                if len(part) == 1:
                    failures.append(error)
                else:
                    items = iter(part.items())
                    halves += [dict(islice(items, len(part) // 2)), dict(items)]
            else:
                put(replayed)
                size = next_part_size(len(part), seconds, _PART_S, MAX_SERIES)
                on_progress()
            if len(failures) == _MOST_DAMAGED:
                break
            elapsed, waiting = time.perf_counter() - start, len(writer.waiting)
            done = total - waiting
            if elapsed >= min(_LOOK_S, long_s) and elapsed * waiting >= long_s * done:
                workers.add_processes()
    finally:
        workers.close()
    if failures:
        raise failures[0]


class _Workers:
    """
    One thread per core, which replays parts itself or has a worker process do it.

    Threads share the GIL with the requests of users, for each row of the log and each call of a
    filter. Processes do not, but take seconds to start.
    """

    def __init__(self, writer: Writer) -> None:
        self._log, self._bundle = writer.log, writer.engine.bundle
        self._pool, self._reading = make_pool("replay"), threading.Lock()
        self._processes: list[ReplayWorker] | None = None
        self._idle = SimpleQueue[ReplayWorker]()

    def begin(self, part: Part) -> Future[tuple[Replay, float]]:
        """Start the replay of a part; the result comes with the time it took, in seconds."""
        return self._pool.submit(self._work, part)

    def add_processes(self) -> None:
        """Start a worker process for each thread, which takes the next parts."""
        if self._processes is not None:
            return
        self._processes = []
        for _ in range(usual_threads()):
            try:
                process = ReplayWorker(self._log, self._bundle)
            except (OSError, AssertionError) as error:  # No memory, or a daemon process.
                logger.warning(
                    "no worker process could be started, the server replays itself: %s", error
                )
                return
            self._processes.append(process)
            self._idle.put(process)

    def close(self) -> None:
        """Drop parts that have not started and wait for the others."""
        self._pool.shutdown(cancel_futures=True)
        for process in self._processes or ():
            process.close()

    def _work(self, part: Part) -> tuple[Replay, float]:
        start = time.perf_counter()
        replayed = self._in_process(part) or replay(self._log, self._bundle, part, self._reading)
        return replayed, time.perf_counter() - start

    def _in_process(self, part: Part) -> Replay | None:
        """Have an idle process replay a part; None if there is no process."""
        try:
            process = self._idle.get_nowait()
        except Empty:
            return None
        try:
            replayed = process.replay(part)
        except (OSError, EOFError):
            logger.warning("a worker process has ended: the server replays its part")
            return None
        except ForecastError:
            self._idle.put(process)
            raise
        self._idle.put(process)
        return replayed

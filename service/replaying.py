"""
All series that wait for a replay, read from the log and computed beside what is served.

Workers take the next series each. What they make changes nothing until it is put in place, which
takes its turn among all that is written.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from itertools import islice

from forecast.streaming import MAX_SERIES
from service.compute import make_pool, usual_threads
from service.errors import DamagedLog
from service.histories import Replay
from service.writer import Writer

_FIRST, _PART_S = 64, 0.2
"""Series in the first part, and seconds that a worker takes for the later ones."""
_MOST_DAMAGED = 64
"""Series that are looked for one by one; with more, the damage is of the whole."""

Part = dict[str, int]
"""Series that wait, with their numbers."""


def replay_waiting(
    writer: Writer, put: Callable[[Replay], None], *, stopped: Callable[[], bool],
    told: Callable[[], None] = lambda: None,
) -> None:  # fmt: skip
    """
    Replay all that wait, the oldest first.

    A part in which something is damaged is halved until the series that it is of are alone: they
    go on waiting, the others come to life.

    Args:
        writer: Whose series wait.
        put: Has `writer.put_in_place` called where nothing else uses the writer.
        stopped: Whether to leave the rest.
        told: Called after each part.

    Raises:
        LogError: The log cannot be read; what was put in place before stays so.
        DamagedLog: What the first series that is damaged failed with, after all else.
    """
    size, reading = _FIRST, threading.Lock()

    def work(waiting: Part) -> tuple[Replay, float]:
        begun = time.perf_counter()
        return writer.replay(waiting, reading), time.perf_counter() - begun

    workers, pool = usual_threads(), make_pool("replay")
    running: deque[tuple[Part, Future[tuple[Replay, float]]]] = deque()
    left, halves = iter(writer.waiting.copy().items()), deque[Part]()
    failures: list[DamagedLog] = []
    try:
        while not stopped():
            while len(running) <= workers:
                part = halves.popleft() if halves else dict(islice(left, size))
                if not part:
                    break
                running.append((part, pool.submit(work, part)))
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
                size = min(paced(len(part), took, _PART_S), MAX_SERIES)
                told()
            if len(failures) == _MOST_DAMAGED:
                break
    finally:
        pool.shutdown(cancel_futures=True)
    if failures:
        raise failures[0]


def paced(some: int, took: float, wanted: float) -> int:
    """How many series the next part should have, if so many took so many seconds."""
    return max(1, min(2 * some, int(some * wanted / max(took, 1e-3))))

"""
All series that wait for a replay, read from the log and computed beside what is served.

Workers take the next series each. What they make changes nothing until it is put in place, which
takes its turn among all that is written.
"""

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

import torch

from forecast.streaming import MAX_SERIES
from service.histories import Replay
from service.writer import Writer

_MOST_WORKERS = 8
"""More would wait for the reading, of which the interpreter does about a million rows a second."""
_FIRST, _PART_S = 64, 0.2
"""Series in the first part, and seconds that a worker takes for the later ones."""


def replay_waiting(
    writer: Writer, put: Callable[[Replay], None], *, stopped: Callable[[], bool],
    told: Callable[[], None] = lambda: None,
) -> None:  # fmt: skip
    """
    Replay all that wait, the oldest first.

    Args:
        writer: Whose series wait.
        put: Has `writer.put_in_place` called where nothing else uses the writer.
        stopped: Whether to leave the rest.
        told: Called after each part.

    Raises:
        LogError: The log cannot be read; what was put in place before stays so.
    """
    size, reading = _FIRST, threading.Lock()

    def work(waiting: dict[str, int]) -> tuple[Replay, float]:
        begun = time.perf_counter()
        return writer.replay(waiting, reading), time.perf_counter() - begun

    linux = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if linux else os.cpu_count() or 1
    workers = min(cores, _MOST_WORKERS)
    pool = ThreadPoolExecutor(workers, "replay", torch.set_num_threads, (1,))
    running: deque[Future[tuple[Replay, float]]] = deque()
    left = iter(writer.waiting.copy().items())
    try:
        while not stopped():
            while len(running) <= workers and (part := dict(islice(left, size))):
                running.append(pool.submit(work, part))
            if not running:
                return
            made, took = running.popleft().result()
            put(made)
            size = min(paced(len(made.asked), took, _PART_S), MAX_SERIES)
            told()
    finally:
        pool.shutdown(cancel_futures=True)


def paced(some: int, took: float, wanted: float) -> int:
    """How many series the next part should have, if so many took so many seconds."""
    return max(1, min(2 * some, int(some * wanted / max(took, 1e-3))))

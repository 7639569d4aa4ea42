"""Members of an ensemble learn at the same time, in as many processes as there are cores."""

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from typing import TypeVar

import torch
from loky import ProcessPoolExecutor

from forecast.device import usable_cores
from forecast.training.progress import TrainEvent

T = TypeVar("T")
Tell = Callable[[TrainEvent], None]
_LOOK_S = 0.5
logger = logging.getLogger("forecast.members")


def run_all(fits: Sequence[Callable[[Tell | None], T]], tell: Tell | None) -> list[T]:
    """
    Call all of them, and return what each gives.

    Some are called here, one after another; they report, as if the second went on from the first.
    The others are called in processes, which end with this one, however that ends. Where a process
    is killed, what it had to do is done here.

    Args:
        fits: What a member does, told whom to tell of its progress; to be pickled.
        tell: Whom to tell.

    Raises:
        Whatever one of them raises; the others are ended.
    """
    at_once = min(len(fits), usable_cores())
    pool = _pool(at_once - 1)
    if pool is None:
        return [fit(_counted(tell, turn, len(fits))) for turn, fit in enumerate(fits)]
    here, threads = range(0, len(fits), at_once), torch.get_num_threads()
    try:
        torch.set_num_threads(max(1, threads // at_once))
        there = {i: pool.submit(fits[i], None) for i in range(len(fits)) if i not in here}

        def look(event: TrainEvent) -> None:
            for future in there.values():
                if future.done() and not isinstance(future.exception(), BrokenProcessPool):
                    future.result()
            if tell is not None:
                tell(event)

        done = {i: fits[i](_counted(look, turn, len(here))) for turn, i in enumerate(here)}
        for i, future in there.items():
            try:
                done[i] = future.result()
            except BrokenProcessPool:
                logger.warning("a process that trained has ended: its member is trained here")
                done[i] = fits[i](None)
    finally:
        torch.set_num_threads(threads)
        pool.shutdown(kill_workers=True)
    return [done[i] for i in range(len(fits))]


def _pool(processes: int) -> ProcessPoolExecutor | None:
    """None where there are to be none: one core, a process that may have no children, no room."""
    if not processes or multiprocessing.current_process().daemon:
        return None
    try:
        return ProcessPoolExecutor(processes, initializer=_start_worker, initargs=(os.getpid(),))
    except OSError as error:
        logger.warning("no process could be started, members take turns: %s", error)
        return None


def _start_worker(parent: int) -> None:
    """Use one thread for arithmetic, and leave Ctrl-C to the process that started this one."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent(parent)


def end_with_parent(parent: int) -> None:
    """
    End this process when its parent ends, even if the parent is killed and cannot say so.

    Args:
        parent: Process id of the parent, as it gave it. If the parent has already ended, this
            process ends at once.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOK_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _counted(tell: Tell | None, turn: int, turns: int) -> Tell | None:
    """Steps are counted through all turns."""
    if tell is None or turns == 1:
        return tell
    return lambda event: tell(
        replace(event, step=turn * event.steps + event.step, steps=turns * event.steps)
    )

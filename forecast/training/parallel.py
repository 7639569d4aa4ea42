"""Train the members of an ensemble at the same time, in as many processes as there are cores."""

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
OnEvent = Callable[[TrainEvent], None]
_PARENT_CHECK_S = 0.5
logger = logging.getLogger("forecast.training.parallel")


def run_all(fits: Sequence[Callable[[OnEvent | None], T]], on_event: OnEvent | None) -> list[T]:
    """
    Call every function and return their results in order.

    This process calls some of them one after another and reports their progress, with the steps
    counted on from one to the next. Worker processes call the others; they end with this process,
    however it ends. If a worker is killed, its function is called here.

    Args:
        fits: Functions that train a member and take a callback for its progress; picklable.
        on_event: Receives the progress of the members that are trained in this process.

    Raises:
        Exception: Whatever a function raises; the others are stopped.
    """
    num_processes = min(len(fits), usable_cores())
    pool = _pool(num_processes - 1)
    if pool is None:
        return [fit(_count_on(on_event, turn, len(fits))) for turn, fit in enumerate(fits)]
    local, threads = range(0, len(fits), num_processes), torch.get_num_threads()
    try:
        torch.set_num_threads(max(1, threads // num_processes))
        futures = {i: pool.submit(fits[i], None) for i in range(len(fits)) if i not in local}

        def check_workers(event: TrainEvent) -> None:
            for future in futures.values():
                if future.done() and not isinstance(future.exception(), BrokenProcessPool):
                    future.result()  # raises what the worker raised
            if on_event is not None:
                on_event(event)

        results = {
            i: fits[i](_count_on(check_workers, turn, len(local))) for turn, i in enumerate(local)
        }
        for i, future in futures.items():
            try:
                results[i] = future.result()
            except BrokenProcessPool:
                logger.warning("a worker process was killed; training its member in this process")
                results[i] = fits[i](None)
    finally:
        torch.set_num_threads(threads)
        pool.shutdown(kill_workers=True)
    return [results[i] for i in range(len(fits))]


def _pool(processes: int) -> ProcessPoolExecutor | None:
    """
    Start a pool of processes, or return None if members have to be trained one after another.

    That is so on one core, in a daemonic process, which may not have children, and where the system
    refuses to start processes.
    """
    if not processes or multiprocessing.current_process().daemon:
        return None
    try:
        return ProcessPoolExecutor(processes, initializer=_start_worker, initargs=(os.getpid(),))
    except OSError as error:
        logger.warning("cannot start processes; training members one after another: %s", error)
        return None


def _start_worker(parent: int) -> None:
    """Use one thread for arithmetic, and leave Ctrl-C to the process that started this one."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent(parent)


def end_with_parent(parent: int) -> None:
    """
    End this process when its parent ends, even if the parent is killed.

    Args:
        parent: Process id of the parent, passed by the parent itself. If the parent has already
            ended, this process ends at once.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_PARENT_CHECK_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _count_on(on_event: OnEvent | None, turn: int, turns: int) -> OnEvent | None:
    """Return a callback that counts the steps of one turn on from the turns before it."""
    if on_event is None or turns == 1:
        return on_event
    return lambda event: on_event(
        replace(event, step=turn * event.steps + event.step, steps=turns * event.steps)
    )

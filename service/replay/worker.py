"""
Worker processes that replay series, so that replay does not hold the server's GIL.

A worker receives series, reads the log, computes, and sends the states back. It changes nothing
and ends with the server, however that ends.
"""

import os
import signal
from collections.abc import Mapping
from multiprocessing import get_context
from multiprocessing.connection import Connection

import torch

from forecast.bundle import Bundle
from forecast.errors import ForecastError
from service.engine.history import Replay, replay
from service.storage.log import ObservationLog

_NICE = 5
"""Lets the server go first if cores are scarce."""
_END_S = 5.0
"""Longest wait for a terminated worker, in seconds."""


class ReplayWorker:
    """
    A process that replays series of a log for a model.

    Its start takes seconds, most of them to import torch.

    Args:
        log: The log; the process opens it for reading.
        bundle: The model.
    """

    def __init__(self, log: ObservationLog, bundle: Bundle) -> None:
        context = get_context("spawn")  # A fork would copy locks that other threads hold.
        self._pipe, other_end = context.Pipe()
        self._process = context.Process(
            target=_serve,
            args=(other_end, log.url, log.covariates, bundle),
            name="replay",
            daemon=True,
        )
        self._process.start()
        other_end.close()

    def replay(self, requested: Mapping[str, int]) -> Replay:
        """
        Replay series in the process, as `history.replay` does here.

        Raises:
            OSError, EOFError: The process has ended.
            LogError: The log cannot be read.
        """
        self._pipe.send(requested)
        answer = self._pipe.recv()
        if isinstance(answer, ForecastError):
            raise answer
        assert isinstance(answer, Replay)
        return answer

    def close(self) -> None:
        """End the process, whatever it is doing."""
        self._pipe.close()
        self._process.terminate()
        self._process.join(_END_S)


def _serve(pipe: Connection, url: str, covariates: tuple[str, ...], bundle: Bundle) -> None:
    """Answer requests until the server closes its end of the pipe or ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server.
    os.nice(_NICE)
    torch.set_num_threads(1)
    log = ObservationLog(url, covariates, reads_only=True)
    while True:
        try:
            requested = pipe.recv()
        except EOFError:
            return
        try:
            answer: Replay | ForecastError = replay(log, bundle, requested)
        except ForecastError as error:
            answer = error
        pipe.send(answer)

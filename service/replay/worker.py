"""
Processes that replay: an interpreter each, so that none waits for another, nor a user for them.

One is given series, reads the log, computes, and sends back what it made. It changes nothing, and
ends with the server, however that ends.
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
"""The server goes before them where cores are short."""
_END_S = 5.0


class ReplayWorker:
    """
    A process that replays series of a log by a model.

    Starting one takes seconds of a core, most of it to import torch.

    Args:
        log: Opened anew there, to read only.
        bundle: The model.
    """

    def __init__(self, log: ObservationLog, bundle: Bundle) -> None:
        context = get_context("spawn")  # a fork would copy locks that other threads hold
        self._here, there = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(there, log.url, log.covariates, bundle), name="replay", daemon=True
        )
        self._process.start()
        there.close()

    def replay(self, asked: Mapping[str, int]) -> Replay:
        """
        As `histories.replay`, there.

        Raises:
            OSError, EOFError: The process has ended.
        """
        self._here.send(asked)
        made = self._here.recv()
        if isinstance(made, ForecastError):
            raise made
        assert isinstance(made, Replay)
        return made

    def close(self) -> None:
        """End it, whatever it is doing."""
        self._here.close()
        self._process.terminate()
        self._process.join(_END_S)


def _serve(there: Connection, url: str, covariates: tuple[str, ...], bundle: Bundle) -> None:
    """Until the server has gone, which closes the other end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a key pressed at the server is the server's
    os.nice(_NICE)
    torch.set_num_threads(1)
    log = ObservationLog(url, covariates, reads_only=True)
    while True:
        try:
            asked = there.recv()
        except EOFError:
            return
        try:
            made: Replay | ForecastError = replay(log, bundle, asked)
        except ForecastError as error:
            made = error
        there.send(made)

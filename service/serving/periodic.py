"""What a thread does again and again, each at its own time, and what stands in its way."""

import logging
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from forecast.errors import ForecastError
from service.errors import sentence


@dataclass(slots=True, eq=False)
class PeriodicTask:
    """Something to do until the end; why it fails is logged once, not at each repetition."""

    name: str
    work: Callable[[], object]
    every: float
    """Seconds from its end to its next beginning."""
    longest: float = 0.0
    """Seconds to which that doubles with each failure; it does not where it is less."""
    at: float = 0.0
    """When it is due, on the monotonic clock."""
    trouble: str = ""
    """Why it failed the last time, for everybody; empty where it did not."""
    _pause: float = 0.0

    def do(self, logger: logging.Logger) -> None:
        """Once, now; whatever is raised ends here."""
        before, now, told = self.trouble, "", ""
        try:
            self.work()
        except ForecastError as error:
            now, told = sentence(error), sentence(error, place=True)
        except OSError as error:
            now, told = error.strerror or type(error).__name__, str(error)
        except Exception as error:  # noqa: BLE001 - told here: nobody waits for this thread
            now = f"internal error ({type(error).__name__}): see the log"
            told = traceback.format_exc()
        if now and now != before:
            logger.warning("%s: %s", self.name, told)
        elif before and not now:
            logger.info("%s: goes on", self.name)
        again = bool(before and now)
        self._pause = max(self.every, min(2 * self._pause, self.longest)) if again else self.every
        self.trouble, self.at = now, time.monotonic() + self._pause


def run_periodically(
    chores: Sequence[PeriodicTask],
    wake: threading.Event,
    stopping: threading.Event,
    logger: logging.Logger,
) -> None:
    """Each when it is due, all of them when `wake` is set, until that and `stopping` are."""
    while not stopping.is_set():
        for chore in chores:
            if time.monotonic() >= chore.at and not stopping.is_set():
                chore.do(logger)
        if wake.wait(max(0.0, min(chore.at for chore in chores) - time.monotonic())):
            wake.clear()
            for chore in chores:
                chore.at = 0.0

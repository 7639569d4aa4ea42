"""Tasks that a background thread runs again and again, each at its own interval."""

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
    """A task to run periodically; a failure is logged when it appears, not at each repetition."""

    name: str
    work: Callable[[], object]
    pause: float
    """Seconds between the end of a run and the start of the next."""
    max_pause: float = 0.0
    """Seconds up to which each repeated failure doubles the pause; 0 keeps it as it is."""
    due: float = 0.0
    """Time of the next run, on the monotonic clock."""
    trouble: str = ""
    """Why the last run failed, without paths and hosts; empty if it succeeded."""
    _current_pause: float = 0.0

    def run(self, logger: logging.Logger) -> None:
        """Run the task now; a failure is kept in `trouble` and logged, and never raised."""
        before, now, details = self.trouble, "", ""
        try:
            self.work()
        except ForecastError as error:
            now, details = sentence(error), sentence(error, place=True)
        except OSError as error:
            now, details = error.strerror or type(error).__name__, str(error)
        except Exception as error:  # noqa: BLE001 - logged here: nobody waits for this thread
            now = f"internal error ({type(error).__name__}): see the log"
            details = traceback.format_exc()
        if now and now != before:
            logger.warning("%s: %s", self.name, details)
        elif before and not now:
            logger.info("%s: works again", self.name)
        if before and now:
            self._current_pause = max(self.pause, min(2 * self._current_pause, self.max_pause))
        else:
            self._current_pause = self.pause
        self.trouble, self.due = now, time.monotonic() + self._current_pause


def run_periodically(
    tasks: Sequence[PeriodicTask],
    wake: threading.Event,
    stopping: threading.Event,
    logger: logging.Logger,
) -> None:
    """
    Run each task when it is due, and all of them when `wake` is set, until `stopping` is set.

    Args:
        tasks: Tasks in the order in which they run; at least one.
        wake: Cleared before the tasks run. Set it after `stopping` to return at once.
        stopping: Ends the loop after the task that runs.
        logger: Takes failures and recoveries.
    """
    while not stopping.is_set():
        for task in tasks:
            if time.monotonic() >= task.due and not stopping.is_set():
                task.run(logger)
        if wake.wait(max(0.0, min(task.due for task in tasks) - time.monotonic())):
            wake.clear()
            for task in tasks:
                task.due = 0.0

"""
All models of one process, each in a slot of its own, with a log and states of its own.

One compute thread serves them all: a second one would only take the processor from the first.
"""

import threading
from collections.abc import Callable

from forecast.errors import ForecastError
from service.engine.executor import BatchingExecutor
from service.errors import ServiceError
from service.metrics import Metrics
from service.serving.slot import Slot
from service.settings import Settings


class Catalog:
    """
    The slots by the names of their models; a single one without a name stands under `""`.

    Args:
        settings: Of the server.
        metrics: Where to count.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        limits = settings.limits
        self._executor = BatchingExecutor(limits.deadline, limits.max_waiting, metrics)
        self.by_name = {
            name: Slot(own, metrics.of(name) if name else metrics, self._executor, name=name)
            for name, own in settings.each().items()
        }
        self._unsettled = len(self.by_name)
        self._lock = threading.Lock()

    @property
    def only(self) -> Slot | None:
        """The one without a name, if that is what is served."""
        return self.by_name.get("")

    @property
    def failure(self) -> ForecastError | None:
        """Why there is nothing to serve; None while one model is served or may yet be."""
        failures = {name: slot.failure for name, slot in self.by_name.items()}
        known = {name: failure for name, failure in failures.items() if failure is not None}
        if len(known) < len(failures):
            return None
        if self.only is not None:
            return self.only.failure
        told = "; ".join(f"{name}: {failure.message}" for name, failure in known.items())
        return ServiceError(f"no model can be served: {told}", help="the log tells more of each")

    def start(self, on_settled: Callable[["Catalog"], None] | None = None) -> None:
        """
        Begin to load all of them; returns at once.

        Args:
            on_settled: Called once, from another thread, when the start of each has succeeded or
                failed.
        """

        def settled(_: Slot) -> None:
            with self._lock:
                self._unsettled -= 1
                last = not self._unsettled
            if last and on_settled is not None:
                on_settled(self)

        for slot in self.by_name.values():
            slot.when_settled(settled)
            slot.start()

    def close(self) -> None:
        """Finish what is computed and written, keep the states."""
        for slot in self.by_name.values():
            slot.close()
        self._executor.close()

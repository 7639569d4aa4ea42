"""
The models of one process, each in a slot of its own with its own log and states.

All slots share one compute thread: a second one would only take the processor from the first.
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
    The slots of a server, by the name of their model; `""` if a single model is served.

    Args:
        settings: Settings of the server.
        metrics: Metrics of the server; each slot gets them with the label of its model.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        limits = settings.limits
        self._executor = BatchingExecutor(limits.deadline, limits.max_waiting, metrics)
        self.by_name = {
            name: Slot(
                slot_settings, metrics.of(name) if name else metrics, self._executor, name=name
            )
            for name, slot_settings in settings.each().items()
        }
        self._starting = len(self.by_name)
        self._lock = threading.Lock()

    @property
    def only(self) -> Slot | None:
        """The slot without a name; None if models are served by name."""
        return self.by_name.get("")

    @property
    def failure(self) -> ForecastError | None:
        """The error if no model can be served; None while one is in service or still starting."""
        if self.only is not None:
            return self.only.failure
        reasons = []
        for name, slot in self.by_name.items():
            if slot.failure is None:
                return None
            reasons.append(f"{name}: {slot.failure.message}")
        return ServiceError(
            f"no model can be served: {'; '.join(reasons)}", help="see the server's log"
        )

    def start(self, on_settled: Callable[["Catalog"], None] | None = None) -> None:
        """
        Begin to load all models; returns at once.

        Args:
            on_settled: Called once, from another thread, when the start of every model has
                succeeded or failed.
        """

        def count_down(_: Slot) -> None:
            with self._lock:
                self._starting -= 1
                last = not self._starting
            if last and on_settled is not None:
                on_settled(self)

        for slot in self.by_name.values():
            slot.when_settled(count_down)
            slot.start()

    def close(self) -> None:
        """Finish what is being computed and written, and save the states."""
        for slot in self.by_name.values():
            slot.close()
        self._executor.close()

"""
A slot: one model in service with its states and its log, kept up to date in the background.

Everything slow happens on a thread of the slot, so that the server answers probes from the first
moment and can report the progress of the start.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from forecast.errors import ForecastError
from service.engine.executor import BatchingExecutor
from service.errors import NotReady
from service.metrics import Metrics
from service.replay.backlog import replay_waiting
from service.serving import rollout
from service.serving.loading import Context, load
from service.serving.periodic import PeriodicTask, run_periodically
from service.serving.serving import Models, Progress, Serving, Successor
from service.settings import Settings

_CHECK_S = 5.0
"""Seconds between two checks for batches of other processes, and for series to be replayed."""
_MAX_PAUSE_S = 60.0
"""Longest pause before a replay that failed is tried again, in seconds."""
logger = logging.getLogger("service.slot")


class Slot:
    """
    Holds the model that answers requests; empty until the first one is loaded.

    Args:
        settings: Name the source of the model, and the log.
        metrics: Metrics with the label of this model.
        executor: Compute thread of the states; several slots may share it.
        name: Name under which the model is served beside others, or empty for a single model. With
            a name a failed start is tried again from time to time, while the other models serve.
    """

    def __init__(
        self, settings: Settings, metrics: Metrics, executor: BatchingExecutor, *, name: str = ""
    ) -> None:
        self.name = name
        self.metrics = metrics
        self.progress = Progress()
        self.failure: ForecastError | None = None
        """The error that the start failed with; None if it succeeded or still runs."""
        self._settings = settings
        self._models: Models | None = None
        self._stopping, self._settled = threading.Event(), threading.Event()
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"slot {name}".strip(), daemon=True)
        self._listeners: list[Callable[[Slot], None]] = []
        self._logger = logger.getChild(name) if name else logger
        self._context = Context(
            settings, metrics, executor, self._logger, self._stopping.is_set, self._report
        )
        first_snapshot = time.monotonic() + settings.snapshot_seconds
        self._snapshot = PeriodicTask(
            "snapshot", self._save_states, settings.snapshot_seconds, due=first_snapshot
        )
        self._tasks = (
            PeriodicTask("catch-up", self._catch_up, _CHECK_S),
            PeriodicTask("replay", self._replay, _CHECK_S, max_pause=_MAX_PAUSE_S),
            self._snapshot,
            PeriodicTask("model check", self._check_source, settings.watch_seconds),
        )

    def start(self) -> None:
        """Begin to load the model and restore its states; returns at once."""
        self._thread.start()

    def when_settled(self, listener: Callable[["Slot"], None]) -> None:
        """Call `listener` once, from another thread, when the start has succeeded or failed."""
        self._listeners.append(listener)

    def wait(self, timeout: float | None = None) -> "Slot":
        """Wait until the start has succeeded or failed, at most `timeout` seconds."""
        self._settled.wait(timeout)
        return self

    def refresh(self) -> None:
        """Check for a new model now."""
        self._wake.set()

    def close(self) -> None:
        """Stop a running replay, finish what is being computed and written, save the states."""
        self._stopping.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()
        models = self._models
        if models is not None:
            models.serving.write_queue.close()
            self._snapshot.run(self._logger)
        self._models, self.progress = None, replace(self.progress, phase="stopped")
        if models is not None:
            models.serving.log.close()

    @property
    def trouble(self) -> str:
        """The background tasks that fail, each with the reason; forecasts are still answered."""
        return "; ".join(f"{task.name}: {task.trouble}" for task in self._tasks if task.trouble)

    @property
    def serving(self) -> Serving:
        """
        The model in service.

        Raises:
            NotReady: No model is loaded yet.
        """
        return self._loaded().serving

    @property
    def previous(self) -> Serving | None:
        """The model that was in service before, if there was one since the server started."""
        models = self._models
        return None if models is None else models.previous

    @property
    def successor(self) -> Successor | None:
        """The last model of a rollout, if there was one."""
        models = self._models
        return None if models is None else models.successor

    def rollback(self) -> Serving:
        """
        Put the model before this one back in service, once its states have caught up with the log.

        Raises:
            NotReady: No model is loaded yet.
            NothingBefore: No other model was in service since the server started.
            LogError: The log cannot be read; the model in service stays.
        """
        return rollout.roll_back(self._loaded(), self._context)

    def _loaded(self) -> Models:
        models = self._models
        if models is not None:
            return models
        if self.failure is not None:
            raise NotReady(
                f"nothing can be served: {self.failure.message}", help=self.failure.help
            )  # The place of the failure is for the operator only: it is in the log.
        progress = self.progress
        raise NotReady(
            f"{progress.phase}: {progress.replayed:,} of {progress.series:,} series are ready",
            help="try again; GET /readyz reports the progress",
        )

    def _run(self) -> None:
        self.progress = Progress("loading", self._settings.model)
        self._try_to_load()
        self._settled.set()
        for listener in self._listeners:
            listener(self)
        while self.name and self._models is None and not self._stopping.is_set():
            self._wake.wait(self._settings.watch_seconds)
            self._wake.clear()
            if not self._stopping.is_set():
                self._try_to_load()
        if self._models is not None:
            run_periodically(self._tasks, self._wake, self._stopping, self._logger)

    def _try_to_load(self) -> None:
        """Load the model once; keep the error if that fails, and log it unless it is known."""
        known = None if self.failure is None else self.failure.message
        try:
            models = load(self._context)
        except ForecastError as error:
            self.failure = error
            if error.message != known:
                self._logger.error("cannot serve [%s]: %s", error.code, error)  # noqa: TRY400 - no traceback
        except Exception:  # Logged here, because nobody waits for this thread.
            self.failure = ForecastError("internal error while loading; see the server's log")
            if self.failure.message != known:
                self._logger.exception("cannot serve")
        else:
            self._models, self.failure = models, None
            self._report(models.serving)
            return
        self.progress = replace(self.progress, phase="failed")

    def _report(self, serving: Serving) -> None:
        """Bring progress and metrics up to date with the model in service."""
        ready, waiting = len(serving.engine), len(serving.writer.waiting)
        self.progress = Progress(
            "replaying" if waiting else "ready", self._settings.model, ready, ready + waiting
        )
        source, count = serving.source, partial(len, serving.engine)
        self.metrics.live_series.labels(self.metrics.model).set_function(count)
        self.metrics.in_service(
            source.version or "", source.name, source.alias or "", source.digest[:12]
        )

    def _catch_up(self) -> None:
        """Apply what other processes wrote; a log that was restored leaves every series waiting."""
        self.serving.write_queue.catch_up()
        if self.serving.writer.waiting and self.progress.phase == "ready":
            self._report(self.serving)

    def _replay(self) -> None:
        """Replay all series that wait; one that is asked for is replayed even while this fails."""
        if self.progress.phase == "replaying":
            try:
                replay_waiting(
                    self.serving.writer,
                    self.serving.write_queue.put_in_place,
                    stopped=self._stopping.is_set,
                    on_progress=lambda: self._report(self.serving),
                )
            finally:
                self._report(self.serving)

    def _save_states(self) -> None:
        self.serving.snapshots.save(self.serving.engine)

    def _check_source(self) -> None:
        rollout.check_source(self._loaded(), self._context)

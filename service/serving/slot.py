"""
The model in service: fetched, its states restored, put in place in one move; and its successors.

Everything slow happens on a thread of its own, so that the server tells from the first moment
that it lives and how far it is. A new model takes over only once its states are where the log is
and its forecasts have been looked at; whatever is wrong with it, the one in service stays.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from forecast.bundle import Bundle
from forecast.errors import ForecastError, NothingBefore
from service.engine.engine import Engine
from service.engine.executor import BatchingExecutor
from service.engine.snapshots import Snapshots
from service.errors import LogError, LogFrequency, NotReady, ServiceError
from service.ingest.importer import seed
from service.ingest.write_queue import WriteQueue
from service.ingest.writer import Writer
from service.metrics import Metrics
from service.replay.backlog import replay_waiting
from service.replay.recovery import recover
from service.serving.local_copy import LocalCopy, choose, keep
from service.serving.model_source import Source, fetch, look
from service.serving.periodic import PeriodicTask, run_periodically
from service.serving.shadow import check_forecasts
from service.settings import Settings
from service.storage.log import ObservationLog

_LOOK_S = 5.0
"""Seconds between two looks at a log that others write to, and at whether series wait."""
_LONGEST_S = 60.0
"""Seconds after which a replay that breaks off again and again is tried again."""
logger = logging.getLogger("service.slot")


@dataclass(frozen=True, slots=True)
class Serving:
    """One model with its live states and the log they came from."""

    source: Source
    writer: Writer
    snapshots: Snapshots
    write_queue: WriteQueue
    since: float
    """Unix seconds."""

    @property
    def bundle(self) -> Bundle:
        """The model."""
        return self.writer.engine.bundle

    @property
    def engine(self) -> Engine:
        """Its live states."""
        return self.writer.engine

    @property
    def log(self) -> ObservationLog:
        """The log, with the covariates of this model."""
        return self.writer.log


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the start is."""

    phase: str = "starting"
    """`starting`, `loading`, `replaying` (answers already), `ready`, `failed`, `stopped`."""
    model: str = ""
    replayed: int = 0
    """Series with a live state."""
    series: int = 0
    """Series in the log."""


@dataclass(frozen=True, slots=True)
class Successor:
    """The last model that was to take over, and what became of it."""

    source: Source
    phase: str
    """`replaying`, `in service`, `refused`, `rolled back`."""
    reason: str = ""


class Slot:
    """
    Holds what answers requests; empty until the first model is ready.

    Args:
        settings: Which model and which log.
        metrics: Where to count.
        executor: The thread of the states; others may use it, too.
        name: Under which it is served beside others. Then a start that failed is tried again from
            time to time: what others serve goes on meanwhile.
    """

    def __init__(
        self, settings: Settings, metrics: Metrics, executor: BatchingExecutor, *, name: str = ""
    ) -> None:
        self.name = name
        self.metrics = metrics
        self.progress = Progress()
        self.failure: ForecastError | None = None
        """Why there is nothing to serve."""
        self.successor: Successor | None = None
        self._settings = settings
        self._logger = logger.getChild(name) if name else logger
        self._serving: Serving | None = None
        self.previous: Serving | None = None
        """What was in service before, to go back to."""
        self._stopping, self._settled = threading.Event(), threading.Event()
        self._wake = threading.Event()
        self._seen = self._ignored = ""
        """What the source named at the last look; what it named when that was left or refused."""
        self._swapping = threading.Lock()
        self._thread = threading.Thread(target=self._run, name=f"slot {name}".strip(), daemon=True)
        self._log: ObservationLog | None = None
        self._recorder: WriteQueue | None = None
        self._executor = executor
        self._listeners: list[Callable[[Slot], None]] = []
        now, snapshots, looks = time.monotonic(), settings.snapshot_seconds, settings.watch_seconds
        self._snapshot = PeriodicTask("snapshot", self._save_states, snapshots, at=now + snapshots)
        self._chores = (
            PeriodicTask("look at the log", self._look_at_log, _LOOK_S),
            PeriodicTask("replay", self._replay, _LOOK_S, longest=_LONGEST_S),
            self._snapshot,
            PeriodicTask("look for a new model", self._look_for_successor, looks),
        )

    def start(self) -> None:
        """Begin to fetch, load and restore; returns at once."""
        self._thread.start()

    def when_settled(self, listener: Callable[["Slot"], None]) -> None:
        """Call back once, from another thread, when the start has succeeded or failed."""
        self._listeners.append(listener)

    def wait(self, timeout: float | None = None) -> "Slot":
        """Until the start has succeeded or failed."""
        self._settled.wait(timeout)
        return self

    def refresh(self) -> None:
        """Look for a new model now."""
        self._wake.set()

    def close(self) -> None:
        """Stop the replay if it runs, finish what is computed and written, keep the states."""
        self._stopping.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()
        if self._recorder is not None:
            self._recorder.close()
        if self._serving is not None:
            self._snapshot.do(self._logger)
        self._serving, self.progress = None, replace(self.progress, phase="stopped")
        if self._log is not None:
            self._log.close()

    @property
    def trouble(self) -> str:
        """What cannot be done now, and why; forecasts go on."""
        return "; ".join(f"{c.name}: {c.trouble}" for c in self._chores if c.trouble)

    @property
    def serving(self) -> Serving:
        """
        What is in service.

        Raises:
            NotReady: Nothing yet.
        """
        if self._serving is not None:
            return self._serving
        told = self.progress
        if self.failure is not None:
            raise NotReady(
                f"nothing can be served: {self.failure.message}", help=self.failure.help
            )  # the place is the operator's to know: it is in the log
        raise NotReady(
            f"{told.phase}: {told.replayed:,} of {told.series:,} series are ready",
            help="try again; GET /readyz tells how far it is",
        )

    def rollback(self) -> Serving:
        """
        Put the model before this one back in service; its states take in what came since.

        Raises:
            NothingBefore: There is none.
            LogError: The log cannot be read; nothing has changed then.
        """
        with self._swapping:
            previous, now = self.previous, self.serving
            if previous is None:
                raise NothingBefore(
                    "no model was in service before this one since the server started",
                    help="promote the version you want in the registry",
                )
            back = self._put(previous)
            self.successor, self._ignored = Successor(now.source, "rolled back"), self._seen
            keep(self._settings, LocalCopy(back.source, back.bundle, left=now.source))
            return back

    def _run(self) -> None:
        self.progress = Progress("loading", self._settings.model)
        self._try_to_load()
        self._settled.set()
        for listener in self._listeners:
            listener(self)
        while self.name and self._serving is None and not self._stopping.is_set():
            self._wake.wait(self._settings.watch_seconds)
            self._wake.clear()
            if not self._stopping.is_set():
                self._try_to_load()
        if self._serving is not None:
            run_periodically(self._chores, self._wake, self._stopping, self._logger)

    def _try_to_load(self) -> None:
        """Once; why it failed is kept, and logged unless it is the same as before."""
        failed = self.failure
        try:
            serving = self._load()
        except ForecastError as error:
            self.failure = error
            if failed is None or failed.message != error.message:
                self._logger.error("cannot serve [%s]: %s", error.code, error)  # noqa: TRY400 - known
        except Exception:  # told here, for nobody waits for this thread
            self.failure = ForecastError("internal error while loading; the log tells more")
            if failed is None or failed.message != self.failure.message:
                self._logger.exception("cannot serve")
        else:
            self._serving, self.failure = serving, None
            self._tell(serving)
            return
        self.progress = replace(self.progress, phase="failed")
        if self._log is not None:
            self._log.close()
            self._log = None

    def _load(self) -> Serving:
        begun = time.perf_counter()
        settings = self._settings
        chosen = choose(settings)
        source, bundle = chosen.source, chosen.bundle
        if settings.seed_data is not None:
            seed(settings.log_url, settings.seed_data, bundle.config.data)
        self._log = log = ObservationLog(settings.log_url)
        log.bind_calendar(bundle.calendar)
        writer, snapshots = self._writer(bundle)
        restored = recover(writer, snapshots)
        snapshots.forget_others()
        self._recorder = WriteQueue(writer, settings.limits.deadline)
        self._seen = source.mark
        if chosen.left is not None:
            self._ignored = chosen.left.mark
            self.successor = Successor(chosen.left, "rolled back")
        keep(settings, chosen)
        serving = Serving(source, writer, snapshots, self._recorder, time.time())
        self._logger.info(
            "serving %s version %s: %d series from snapshots, %d to be replayed, %.1f s",
            source.name,
            source.version,
            restored,
            len(writer.waiting),
            time.perf_counter() - begun,
        )
        return serving

    def _writer(self, bundle: Bundle) -> tuple[Writer, Snapshots]:
        """States of a model, none yet, over the log."""
        assert self._log is not None
        data, settings = bundle.config.data, self._settings
        log = self._log.with_covariates((*data.known_future, *data.past_only))
        writer = Writer(
            Engine(bundle, self._executor),
            log,
            self.metrics,
            unknown_series=settings.unknown_series,
            limits=settings.limits,
        )
        return writer, Snapshots(settings.data_dir / "snapshots", log, bundle.digest)

    def _tell(self, serving: Serving) -> None:
        """How far the replay is, and which model answers."""
        ready, waiting = len(serving.engine), len(serving.writer.waiting)
        self.progress = Progress(
            "replaying" if waiting else "ready", self._settings.model, ready, ready + waiting
        )
        source, count = serving.source, partial(len, serving.engine)
        self.metrics.live_series.labels(self.metrics.model).set_function(count)
        self.metrics.in_service(
            source.version or "", source.name, source.alias or "", source.digest[:12]
        )

    def _look_at_log(self) -> None:
        """Take in what others wrote; a log that was put back has every series replayed."""
        self.serving.write_queue.catch_up()
        if self.serving.writer.waiting and self.progress.phase == "ready":
            self._tell(self.serving)

    def _replay(self) -> None:
        """Bring in all that wait; while that fails, those asked for are still brought in."""
        if self.progress.phase == "replaying":
            try:
                replay_waiting(
                    self.serving.writer,
                    self.serving.write_queue.put_in_place,
                    stopped=self._stopping.is_set,
                    told=lambda: self._tell(self.serving),
                )
            finally:
                self._tell(self.serving)

    def _save_states(self) -> None:
        self.serving.snapshots.save(self.serving.engine)

    def _look_for_successor(self) -> None:
        """Bring a new model into service, if the source has one and nothing speaks against it."""
        self._seen = seen = look(self._settings)
        with self._swapping:
            now = self.serving
            if seen == self._ignored:
                return
            if self._ignored:
                self._ignored, self.successor = "", None
                keep(self._settings, LocalCopy(now.source, now.bundle))
            if seen == now.source.mark:
                return
        source, bundle = fetch(self._settings)
        if source.digest == now.source.digest:  # the same model under another version
            with self._swapping:
                if self._serving is now:
                    self._serving = replace(now, source=source)
                    self._tell(self._serving)
                    keep(self._settings, LocalCopy(source, bundle))
            return
        self.successor = told = Successor(source, "replaying")
        try:
            self._succeed(now, source, bundle)
        except ForecastError as error:
            self._logger.warning("version %s stays out [%s]: %s", source.version, error.code, error)
            fleeting = isinstance(error, LogError | ServiceError)
            again = fleeting and not isinstance(error, LogFrequency)
            self._refuse(told, "" if again else seen, error.message)
        except Exception:  # a model that cannot be computed with must not stop the server
            self._logger.exception("version %s stays out", source.version)
            self._refuse(told, seen, "internal error: see the log")

    def _refuse(self, successor: Successor, seen: str, reason: str) -> None:
        self.successor = replace(successor, phase="refused", reason=reason)
        self._ignored = seen
        self.metrics.successions.labels(self.metrics.model, "refused").inc()

    def _succeed(self, now: Serving, source: Source, bundle: Bundle) -> None:
        assert self._log is not None
        before = self.previous
        if before is not None and before.source.digest == source.digest:
            self._take_over(now, replace(before, source=source))  # its states are still there
            return
        self._log.bind_calendar(bundle.calendar)
        writer, snapshots = self._writer(bundle)
        recover(writer, snapshots)
        replay_waiting(writer, writer.put_in_place, stopped=self._stopping.is_set)
        if self._stopping.is_set():
            return
        check_forecasts(now.writer, writer)
        self._take_over(now, Serving(source, writer, snapshots, now.write_queue, time.time()))

    def _take_over(self, now: Serving, serving: Serving) -> None:
        """Unless another model came into service meanwhile: then the next look decides anew."""
        with self._swapping:
            if self._serving is now:
                self._put(serving)
                self.successor = Successor(serving.source, "in service")
                keep(self._settings, LocalCopy(serving.source, serving.bundle))

    def _put(self, serving: Serving) -> Serving:
        """In one move; what is in flight ends with the model it began with."""
        before, dropped = self.serving, self.previous
        after = replace(serving, since=time.time())

        def then() -> None:
            self.previous, self._serving = before, after

        serving.write_queue.hand_over(serving.writer, then)
        if dropped is not None and dropped.source.digest != serving.source.digest:
            dropped.snapshots.forget()
        self._tell(after)
        self.metrics.successions.labels(self.metrics.model, "in service").inc()
        self._logger.info(
            "version %s in service instead of %s", serving.source.version, before.source.version
        )
        return after

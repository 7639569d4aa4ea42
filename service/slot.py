"""
The model in service: fetched, its states replayed from the log, then put in place in one move.

Everything slow happens on a thread of its own, so that the server tells from the first moment
that it lives and how far it is.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from forecast.bundle import Bundle
from forecast.errors import ForecastError
from service.compute import Compute
from service.engine import Engine
from service.errors import NotReady
from service.importing import import_history
from service.log import Log
from service.metrics import Metrics
from service.recording import Recorder
from service.recovery import recover
from service.settings import Settings
from service.snapshots import Snapshots
from service.sources import Source, fetch
from service.writer import Writer

_RETRY_S = 5.0

logger = logging.getLogger("service.slot")


@dataclass(frozen=True, slots=True)
class Serving:
    """One model with its live states and the log they came from."""

    source: Source
    bundle: Bundle
    engine: Engine
    log: Log
    recorder: Recorder
    since: float
    """Unix seconds."""


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


class Slot:
    """
    Holds what answers requests; empty until the first model is ready.

    Args:
        settings: Which model and which log.
        metrics: Where to count.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self.progress = Progress()
        self.failure: ForecastError | None = None
        """Why there is nothing to serve and never will be."""
        self._settings = settings
        self._metrics = metrics
        self._serving: Serving | None = None
        self._stopping, self._settled = threading.Event(), threading.Event()
        self._snapshots: Snapshots | None = None
        self._thread = threading.Thread(target=self._start, name="slot", daemon=True)
        self._log: Log | None = None
        self._recorder: Recorder | None = None
        self._compute = Compute(settings.limits.deadline, settings.limits.max_waiting, metrics)
        self._listeners: list[Callable[[Slot], None]] = []

    def start(self) -> None:
        """Begin to fetch, load and replay; returns at once."""
        self._thread.start()

    def when_settled(self, listener: Callable[["Slot"], None]) -> None:
        """Call back once, from another thread, when the start has succeeded or failed."""
        self._listeners.append(listener)

    def wait(self, timeout: float | None = None) -> "Slot":
        """Until the start has succeeded or failed."""
        self._settled.wait(timeout)
        return self

    def close(self) -> None:
        """Stop the replay if it runs, finish what is computed and written, keep the states."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        serving, self._serving = self._serving, None
        self.progress = replace(self.progress, phase="stopped")
        if self._recorder is not None:
            self._recorder.close()
        if serving is not None:
            self._snapshot(serving.engine)
        self._compute.close()
        if self._log is not None:
            self._log.close()

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

    def _start(self) -> None:
        try:
            self._serving = self._load()
        except ForecastError as error:
            self.failure = error
            self.progress = replace(self.progress, phase="failed")
            logger.error("cannot serve [%s]: %s", error.code, error)  # noqa: TRY400 - known
        except Exception:  # told here, for nobody waits for this thread
            self.failure = ForecastError("internal error while loading; the log tells more")
            self.progress = replace(self.progress, phase="failed")
            logger.exception("cannot serve")
        self._settled.set()
        for listener in self._listeners:
            listener(self)
        if self._serving is not None:
            self._keep()

    def _load(self) -> Serving:
        begun = time.perf_counter()
        settings, limits = self._settings, self._settings.limits
        self.progress = Progress("loading", settings.model)
        source, bundle = fetch(settings)
        data = bundle.config.data
        self._seed(bundle)
        self._log = log = Log(settings.log_url, (*data.known_future, *data.past_only))
        log.bind_calendar(bundle.calendar)
        writer = Writer(
            Engine(bundle, self._compute), log, self._metrics,
            unknown_series=settings.unknown_series, max_fill=limits.max_fill,
        )  # fmt: skip
        self._snapshots = Snapshots(settings.data_dir / "snapshots", log, bundle.digest)
        restored = recover(writer, self._snapshots)
        self._recorder = Recorder(writer, limits.deadline)
        labels = (source.name, source.version or "", source.alias or "", source.digest[:12])
        self._metrics.model_info.labels(*labels).set(1)
        self._tell(writer)
        logger.info(
            "serving %s version %s: %d series from snapshots, %d to be replayed, %.1f s",
            source.name, source.version, restored, len(writer.waiting),
            time.perf_counter() - begun,
        )  # fmt: skip
        return Serving(source, bundle, writer.engine, log, self._recorder, time.time())

    def _tell(self, writer: Writer) -> None:
        """How far the replay is."""
        ready, waiting = len(writer.engine), len(writer.waiting)
        self.progress = Progress(
            "replaying" if waiting else "ready", self._settings.model, ready, ready + waiting
        )
        self._metrics.live_series.set(ready)

    def _keep(self) -> None:
        """Replay what waits, then write snapshots until the end."""
        assert self._serving is not None
        assert self._snapshots is not None
        recorder, engine = self._serving.recorder, self._serving.engine
        writer = recorder.writer
        while writer.waiting and not self._stopping.is_set():
            try:
                recorder.replay_waiting(
                    stopped=self._stopping.is_set, told=lambda: self._tell(writer)
                )
            except Exception:  # what waits is replayed when asked for, too
                logger.exception("the replay broke off; it goes on in %g s", _RETRY_S)
                self._stopping.wait(_RETRY_S)
        self._tell(writer)
        while not self._stopping.wait(self._settings.snapshot_seconds):
            self._snapshot(engine)

    def _snapshot(self, engine: Engine) -> None:
        assert self._snapshots is not None
        try:
            self._snapshots.save(engine)
        except OSError as error:
            logger.warning("states cannot be kept on the disk: %s; a start will take longer", error)

    def _seed(self, bundle: Bundle) -> None:
        """Read `seed_data` into a log that holds nothing yet."""
        if self._settings.seed_data is None:
            return
        log = Log(self._settings.log_url)
        try:
            with log.read() as transaction:
                empty = not transaction.entries()
        finally:
            log.close()
        if empty:
            import_history(self._settings.log_url, self._settings.seed_data, bundle.config.data)

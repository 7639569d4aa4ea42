"""
The model in service: fetched, its states replayed from the log, then put in place in one move.

Everything slow happens on a thread of its own, so that the server tells from the first moment
that it lives and how far it is.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from forecast.bundle import Bundle
from forecast.errors import ForecastError
from service.engine import Compute, Engine
from service.errors import NotReady
from service.log import Log, import_history
from service.metrics import Metrics
from service.recording import Recorder
from service.rows import Entry
from service.settings import Settings
from service.sources import Source, fetch

CHUNK_ROWS = 500_000
"""Stored observations in one chunk of the replay."""

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
    """`starting`, `loading` (the model), `replaying` (the log), `ready`, `failed`, `stopped`."""
    model: str = ""
    replayed: int = 0
    series: int = 0
    """Series to replay in all."""


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
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._start, name="slot", daemon=True)
        self._log: Log | None = None
        self._compute = Compute(settings.limits.deadline, metrics)
        self._listeners: list[Callable[[Slot], None]] = []

    def start(self) -> None:
        """Begin to fetch, load and replay; returns at once."""
        self._thread.start()

    def when_settled(self, listener: Callable[["Slot"], None]) -> None:
        """Call back once, from another thread, when the start has succeeded or failed."""
        self._listeners.append(listener)

    def wait(self, timeout: float | None = None) -> "Slot":
        """Until the start has succeeded or failed."""
        self._thread.join(timeout)
        return self

    def close(self) -> None:
        """Stop the replay if it runs, finish the computation that runs, close the log."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        self._serving = None
        self.progress = replace(self.progress, phase="stopped")
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
        for listener in self._listeners:
            listener(self)

    def _load(self) -> Serving | None:
        begun = time.perf_counter()
        self.progress = Progress("loading", self._settings.model)
        source, bundle = fetch(self._settings)
        data = bundle.config.data
        self._seed(bundle)
        self._log = log = Log(self._settings.log_url, (*data.known_future, *data.past_only))
        log.bind_calendar(bundle.calendar)
        engine = Engine(bundle, self._compute)
        rows = self._replay(engine, log)
        if self._stopping.is_set():
            return None
        recorder = Recorder(
            engine, log, self._metrics, unknown_series=self._settings.unknown_series,
            max_fill=self._settings.limits.max_fill, deadline=self._settings.limits.deadline,
        )  # fmt: skip
        labels = (source.name, source.version or "", source.alias or "", source.digest[:12])
        self._metrics.model_info.labels(*labels).set(1)
        self._metrics.live_series.set(len(engine))
        self.progress = replace(self.progress, phase="ready")
        logger.info(
            "serving %s version %s: %d series, %d observations replayed, %.1f s",
            source.name, source.version, len(engine), rows, time.perf_counter() - begun,
        )  # fmt: skip
        return Serving(source, bundle, engine, log, recorder, time.time())

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

    def _replay(self, engine: Engine, log: Log) -> int:
        """Build every state from the log, in chunks of series; returns the observations read."""
        total = 0
        with log.read() as transaction:
            entries, lengths = transaction.entries(), transaction.lengths()
            entries = [entry for entry in entries if entry.number in lengths]
            self.progress = replace(self.progress, phase="replaying", series=len(entries))
            for chunk in _chunks(entries, lengths):
                if self._stopping.is_set():
                    break
                rows = transaction.history([entry.number for entry in chunk])
                numbers = np.array([entry.number for entry in chunk], np.int64)
                rows = replace(rows, series=np.searchsorted(numbers, rows.series))
                ids, static = [e.unique_id for e in chunk], [e.static for e in chunk]
                first = rows.ds[np.searchsorted(rows.series, np.arange(len(ids)))]
                states = engine.replayed(ids, static, rows)
                engine.commit(chunk, states, rebuilt=True, first_ds=first)
                total += len(rows)
                self.progress = replace(self.progress, replayed=len(engine))
        self._metrics.rebuilds.labels("start").inc(len(engine))
        return total


def _chunks(entries: list[Entry], lengths: dict[int, int]) -> Iterator[list[Entry]]:
    """Runs of series with about `CHUNK_ROWS` observations each."""
    chunk: list[Entry] = []
    rows = 0
    for entry in entries:
        chunk.append(entry)
        rows += lengths[entry.number]
        if rows >= CHUNK_ROWS:
            yield chunk
            chunk, rows = [], 0
    if chunk:
        yield chunk

"""Records of a slot: the model in service, the one before it, and the state of a rollout."""

import threading
from dataclasses import dataclass, field

from forecast.bundle import Bundle
from service.engine.engine import Engine
from service.engine.snapshots import Snapshots
from service.ingest.write_queue import WriteQueue
from service.ingest.writer import Writer
from service.serving.model_source import Source
from service.storage.log import ObservationLog


@dataclass(frozen=True, slots=True)
class Serving:
    """A model with its live states and the log that they came from."""

    source: Source
    writer: Writer
    snapshots: Snapshots
    write_queue: WriteQueue
    """Queue of all that write to the log; a successor takes it over."""
    since: float
    """Time at which the model came into service, in Unix seconds."""

    @property
    def bundle(self) -> Bundle:
        """The model."""
        return self.writer.engine.bundle

    @property
    def engine(self) -> Engine:
        """The live states."""
        return self.writer.engine

    @property
    def log(self) -> ObservationLog:
        """The log, with the covariates of this model."""
        return self.writer.log


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the start of a slot is."""

    phase: str = "starting"
    """
    `starting`, `loading`, `replaying`, `ready`, `failed` or `stopped`.

    Forecasts are answered while series are being replayed.
    """
    model: str = ""
    """The source, as the settings name it."""
    replayed: int = 0
    """Number of series with a live state."""
    series: int = 0
    """Number of series in the log."""


@dataclass(frozen=True, slots=True)
class Successor:
    """The last model that was to replace the one in service, and the outcome."""

    source: Source
    phase: str
    """`replaying`, `in service`, `refused` or `rolled back`."""
    reason: str = ""
    """Why it was refused."""


@dataclass(slots=True)
class Models:
    """The models that a slot holds; `lock` is held while the model in service changes."""

    serving: Serving
    """The model in service."""
    named: str
    """Identifier of the model that the source named when it was last checked."""
    ignored: str = ""
    """Identifier of a refused or rolled back model, which stays out while the source names it."""
    previous: Serving | None = None
    """The model that was in service before, kept with its states for a rollback."""
    successor: Successor | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

"""The log, engine, writer and snapshots of a server, without the server."""

from pathlib import Path

import numpy as np
import pandas as pd

from forecast.bundle import load_bundle
from forecast.config import DataConfig
from forecast.inference.states import States
from service.engine.engine import Engine
from service.engine.executor import BatchingExecutor
from service.engine.snapshots import Snapshots
from service.ingest.batch import ObservationBatch
from service.ingest.writer import Writer
from service.metrics import Metrics
from service.replay.recovery import recover
from service.settings import Limits
from service.storage.log import ObservationLog

MONTHLY = DataConfig(freq="MS", kind="positive")
"""Settings of the data in the fixture `monthly`."""


class Host:
    """A log, an engine and a writer, as one start of a server has them."""

    def __init__(self, url: str, bundle: Path, folder: Path, block: int) -> None:
        self.bundle = load_bundle(bundle)
        self.executor = BatchingExecutor(30.0, 1000, Metrics())
        self.log = ObservationLog(url)
        self.writer = Writer(
            Engine(self.bundle, self.executor, block=block),
            self.log,
            Metrics(),
            unknown_series="create",
            limits=Limits(max_fill=100),
        )
        self.snapshots = Snapshots(folder, self.log, self.bundle.digest)
        self.restored = recover(self.writer, self.snapshots)

    @property
    def engine(self) -> Engine:
        """The engine that holds the states."""
        return self.writer.engine

    def observe(self, name: str, month: str, y: float) -> None:
        """Write one value of a series to the log and its state."""
        stamp = np.array([pd.Timestamp(month).value])
        batch = ObservationBatch(
            [name], stamp, np.array([y]), np.empty((1, 0)), (), lambda item: f"/{item}"
        )
        self.writer.write(batch)

    def states(self) -> dict[str, States]:
        """Replay the waiting series, and return the state of every series by name."""
        self.writer.replay(list(self.writer.waiting))
        rows = self.engine.rows
        return {name: self.engine.snapshot(np.array([rows[name]]))[0] for name in sorted(rows)}

    def close(self) -> None:
        """Stop the compute thread and release the log."""
        self.executor.close()
        self.log.close()


def assert_equal(states: dict[str, States], others: dict[str, States]) -> None:
    """Require equal positions, and equal states within 1e-5."""
    assert states.keys() == others.keys()
    for name, state in states.items():
        other = others[name]
        assert (state.last_ds, state.count) == (other.last_ds, other.count)
        for field in ("hidden", "cell", "scalars", "rings", "seen"):
            np.testing.assert_allclose(
                getattr(state, field), getattr(other, field), rtol=1e-5, atol=1e-5
            )

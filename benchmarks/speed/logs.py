"""Observation logs of daily counts, and an engine over them, for the benchmarks of the engine."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pandas as pd

from forecast.bundle import Bundle
from service.engine.engine import Engine
from service.engine.executor import BatchingExecutor
from service.ingest.writer import Writer
from service.metrics import Metrics
from service.settings import Limits
from service.storage.log import ObservationLog
from service.storage.records import Observations

DAY = 86_400_000_000_000
"""Nanoseconds of a day."""
PART = 50_000
"""Series that are written or read in one transaction."""
BEGIN = int(pd.Timestamp("2021-01-01").value)
"""Stamp of the first day, in nanoseconds."""


def fill(url: str, bundle: Bundle, series: int, steps: int) -> None:
    """Write `series` series of `steps` days each into the log, `PART` series in a transaction."""
    rng = np.random.default_rng(0)
    log = ObservationLog(url)
    log.bind_calendar(bundle.calendar)
    for begin in range(0, series, PART):
        size = min(PART, series - begin)
        with log.write() as transaction:
            numbers = np.array(transaction.add_series(names(begin, begin + size), {}), np.int64)
            y = rng.poisson(rng.lognormal(0.5, 1.0, (size, 1)), (size, steps))
            rows = size * steps
            transaction.append(
                Observations(
                    numbers.repeat(steps),
                    np.tile(BEGIN + DAY * np.arange(steps), size),
                    y.ravel().astype(np.float64),
                    np.empty((rows, 0)),
                    np.zeros(rows, bool),
                )
            )
    log.close()


def names(begin: int, end: int) -> list[str]:
    """Return the names of the series."""
    return [f"series {i}" for i in range(begin, end)]


@contextmanager
def started(bundle: Bundle, url: str) -> Iterator[Writer]:
    """Yield the writer of an engine over a log, without any live series yet."""
    metrics = Metrics()
    log, executor = ObservationLog(url), BatchingExecutor(600.0, 1_000, metrics)
    log.bind_calendar(bundle.calendar)
    yield Writer(Engine(bundle, executor), log, metrics, unknown_series="create", limits=Limits())
    executor.close()
    log.close()

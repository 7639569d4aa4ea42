"""
What the log has of some series, laid out for a replay of them, and what one gives.

Nothing here changes a live state: a replay may be computed on any thread, and in any process.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Int

from forecast.bundle import Bundle
from forecast.inference.states import States
from service.engine.warm_up import replayed
from service.storage.log import ObservationLog
from service.storage.records import Observations, SeriesRecord
from service.storage.transaction import Transaction

_LEAST = 128
"""Series in a part of a replay."""


@dataclass(frozen=True, slots=True)
class History:
    """Steps of some series, and the states before them."""

    entries: Sequence[SeriesRecord]
    rows: Observations
    """Ordered by series and stamp; `series` counts through `entries`, each of which has rows."""
    bases: Mapping[int, States]
    """Of a model, by place in `entries`; a series without one begins with nothing observed."""

    @property
    def first_ds(self) -> Int[np.ndarray, " series"]:
        """Where the series begin."""
        begins = np.searchsorted(self.rows.series, np.arange(len(self.entries)))
        return self.rows.ds[begins]

    def states(self, bundle: Bundle) -> States:
        """The states after all of it, in one fused pass."""
        ids = [entry.unique_id for entry in self.entries]
        static = [entry.static for entry in self.entries]
        return replayed(bundle, ids, static, self.rows, self.bases)


@dataclass(frozen=True, slots=True)
class Replayed:
    """States after whole histories, to put in place once the log has them."""

    entries: Sequence[SeriesRecord]
    states: States
    first_ds: Int[np.ndarray, " series"]

    def those(self, chosen: Callable[[SeriesRecord], bool]) -> "Replayed":
        """Of some of the series."""
        kept = [row for row, entry in enumerate(self.entries) if chosen(entry)]
        if len(kept) == len(self.entries):
            return self
        entries = [self.entries[row] for row in kept]
        return Replayed(entries, self.states.take(kept), self.first_ds[kept])


@dataclass(frozen=True, slots=True)
class Replay:
    """What a replay of series that wait gives, as the log is at one moment."""

    asked: Mapping[str, int]
    """The series, with their numbers."""
    batch: int
    """The last one of the log then."""
    timeline: str
    """Which history of the log that was."""
    made: Replayed
    """Of those of them that the log has then."""


def history_of(transaction: Transaction, digest: str, rows: Observations) -> History:
    """
    Rows of the log with the series they are of, and the bases that a model has of these.

    Args:
        transaction: In which the rows were read.
        digest: Of the model.
        rows: Ordered by series and stamp; their `series` are numbers of the log.
    """
    found, series = np.unique(rows.series, return_inverse=True)
    numbers: list[int] = found.tolist()
    place = {number: i for i, number in enumerate(numbers)}
    bases = transaction.bases(numbers, digest)
    return History(
        transaction.entries(numbers),
        replace(rows, series=series.astype(np.int64)),
        {place[number]: state for number, state in bases.items()},
    )


def replay(
    log: ObservationLog,
    bundle: Bundle,
    asked: Mapping[str, int],
    reading: AbstractContextManager[Any] | None = None,
) -> Replay:
    """
    What a replay of series by a model gives now.

    Args:
        log: With the covariates of the model.
        bundle: The model.
        asked: The series, with their numbers.
        reading: Held while the log is read.

    Raises:
        LogError: The log cannot be read.
    """
    with reading or nullcontext(), log.read() as transaction:
        rows = transaction.history(list(asked.values()))
        history = history_of(transaction, bundle.digest, rows)
        batch, timeline = transaction.before, transaction.timeline
    made = Replayed(history.entries, history.states(bundle), history.first_ds)
    return Replay(asked, batch, timeline, made)


def next_part_size(some: int, took: float, wanted: float, most: int) -> int:
    """
    How many series the next part should have, if so many took so many seconds.

    A step of one series costs as much as a step of a hundred. Where histories are long, parts that
    became ever smaller would take ever longer in all; so they have no fewer than `_LEAST`.

    >>> paced(512, 4.0, 1.0, 2048), paced(512, 0.1, 1.0, 2048), paced(512, 9.0, 1.0, 2048)
    (128, 1024, 128)
    """
    return min(max(_LEAST, min(2 * some, int(some * wanted / max(took, 1e-3)))), most)

"""
Replays of series from the log: the history that is read, and the states that come of it.

Nothing here changes a live state, so a replay may be computed on any thread and in any process.
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
"""Fewest series in a part of a replay."""


@dataclass(frozen=True, slots=True)
class History:
    """Steps of series, and the states before them."""

    entries: Sequence[SeriesRecord]
    rows: Observations
    """Rows by series and stamp; `series` indexes `entries`, each of which has rows."""
    bases: Mapping[int, States]
    """States before the first row, by index in `entries`; other series start from nothing."""

    @property
    def first_ds(self) -> Int[np.ndarray, " series"]:
        """First stamp of each series."""
        begins = np.searchsorted(self.rows.series, np.arange(len(self.entries)))
        return self.rows.ds[begins]

    def states(self, bundle: Bundle) -> States:
        """Compute the states after the history in one fused pass."""
        ids = [entry.unique_id for entry in self.entries]
        static = [entry.static for entry in self.entries]
        return replayed(bundle, ids, static, self.rows, self.bases)


@dataclass(frozen=True, slots=True)
class Replayed:
    """States after whole histories, to be put in place once the log has them."""

    entries: Sequence[SeriesRecord]
    states: States
    first_ds: Int[np.ndarray, " series"]

    def those(self, chosen: Callable[[SeriesRecord], bool]) -> "Replayed":
        """Select the series for which `chosen` is true."""
        rows = [row for row, entry in enumerate(self.entries) if chosen(entry)]
        if len(rows) == len(self.entries):
            return self
        entries = [self.entries[row] for row in rows]
        return Replayed(entries, self.states.take(rows), self.first_ds[rows])


@dataclass(frozen=True, slots=True)
class Replay:
    """Result of a replay of waiting series, from the log at one moment."""

    requested: Mapping[str, int]
    """Names of the requested series, with their numbers."""
    batch: int
    """Last batch of the log at that moment."""
    timeline: str
    """History of the log at that moment."""
    replayed: Replayed
    """States of the requested series that the log has."""


def history_of(transaction: Transaction, digest: str, rows: Observations) -> History:
    """
    Add the series and a model's base states to rows of the log.

    Args:
        transaction: The transaction in which the rows were read.
        digest: Digest of the model.
        rows: Rows by series and stamp; their `series` are numbers of the log.
    """
    unique, series = np.unique(rows.series, return_inverse=True)
    numbers: list[int] = unique.tolist()
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
    requested: Mapping[str, int],
    reading: AbstractContextManager[Any] | None = None,
) -> Replay:
    """
    Replay series from the log as it is now.

    Args:
        log: The log, with the covariates of the model.
        bundle: The model.
        requested: Names of the series, with their numbers.
        reading: Context manager that is entered while the log is read.

    Raises:
        LogError: The log cannot be read.
    """
    with reading or nullcontext(), log.read() as transaction:
        rows = transaction.history(list(requested.values()))
        history = history_of(transaction, bundle.digest, rows)
        batch, timeline = transaction.before, transaction.timeline
    states = Replayed(history.entries, history.states(bundle), history.first_ds)
    return Replay(requested, batch, timeline, states)


def next_part_size(size: int, seconds: float, target: float, most: int) -> int:
    """
    Return how many series the next part of a replay should have.

    A step of one series costs as much as a step of a hundred. Parts of long histories must not
    become ever smaller, which would take longer in all, so they have at least `_LEAST` series.

    Args:
        size: Series in the last part.
        seconds: Time that the last part took.
        target: Time that a part should take, in seconds.
        most: Largest number of series in a part.

    >>> [next_part_size(512, seconds, 1.0, 2048) for seconds in (4.0, 0.1, 9.0)]
    [128, 1024, 128]
    """
    return min(max(_LEAST, min(2 * size, int(size * target / max(seconds, 1e-3)))), most)

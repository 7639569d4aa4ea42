"""What the log has of some series, laid out for a replay of them, and what one gives."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Int

from forecast.states import States
from service.engine import Engine
from service.rows import Entry, Rows
from service.transaction import Transaction


@dataclass(frozen=True, slots=True)
class History:
    """Steps of some series, and the states before them."""

    entries: Sequence[Entry]
    rows: Rows
    """Ordered by series and stamp; `series` counts through `entries`, each of which has rows."""
    bases: Mapping[int, States]
    """Of a model, by place in `entries`; a series without one begins with nothing observed."""

    @property
    def first_ds(self) -> Int[np.ndarray, " series"]:
        """Where the series begin."""
        begins = np.searchsorted(self.rows.series, np.arange(len(self.entries)))
        return self.rows.ds[begins]

    def states(self, engine: Engine) -> States:
        """The states after all of it, in one fused pass; it may be computed on any thread."""
        ids = [entry.unique_id for entry in self.entries]
        static = [entry.static for entry in self.entries]
        return engine.replayed(ids, static, self.rows, self.bases)


@dataclass(frozen=True, slots=True)
class Replayed:
    """States after whole histories, to put in place once the log has them."""

    entries: Sequence[Entry]
    states: States
    first_ds: Int[np.ndarray, " series"]

    def those(self, chosen: Callable[[Entry], bool]) -> "Replayed":
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
    made: Replayed
    """Of those of them that the log has then."""


def history_of(transaction: Transaction, digest: str, rows: Rows) -> History:
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
        transaction.entries(numbers), replace(rows, series=series.astype(np.int64)),
        {place[number]: state for number, state in bases.items()},
    )  # fmt: skip

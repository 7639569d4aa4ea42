"""
What the log has of some series, laid out for a replay of them, and what one gives.

Nothing here changes a live state: a replay may be computed on any thread, and in any process.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Int

from forecast.bundle import Bundle
from forecast.data.panel import Panel
from forecast.inference import observing
from forecast.inference.states import States, initial_states
from service.log import Log
from service.rows import Entry, Rows
from service.transaction import Transaction

_LEAST = 128
"""Series in a part of a replay."""


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

    def states(self, bundle: Bundle) -> States:
        """The states after all of it, in one fused pass."""
        ids = [entry.unique_id for entry in self.entries]
        static = [entry.static for entry in self.entries]
        return replayed(bundle, ids, static, self.rows, self.bases)


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
    timeline: str
    """Which history of the log that was."""
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


def replay(
    log: Log, bundle: Bundle, asked: Mapping[str, int],
    reading: AbstractContextManager[Any] | None = None,
) -> Replay:  # fmt: skip
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


def replayed(
    bundle: Bundle, ids: Sequence[str], static: Sequence[Mapping[str, Any]], rows: Rows,
    bases: Mapping[int, States] | None = None,
) -> States:  # fmt: skip
    """
    States after the whole history of some series, in one fused pass.

    Args:
        bundle: The model.
        ids: The series.
        static: Of each.
        rows: All that there is of them.
        bases: States before those rows, by their places in `ids`.
    """
    begun = _begin(bundle, ids, static)
    if bases:
        begun = begun.put(list(bases), States.concat(list(bases.values())))
    return observing.observe(bundle, begun, lay_out(bundle, ids, rows))


def lay_out(bundle: Bundle, ids: Sequence[str], rows: Rows) -> Panel:
    """
    Lay rows out for the library; `rows.series` counts through `ids` and is rising.

    Covariates that a step lacks are 0: only steps older than the model's own roles do.
    """
    lengths = np.bincount(rows.series, minlength=len(ids))
    observed = np.isfinite(rows.y)
    covariates = np.nan_to_num(rows.covariates).astype(np.float32)
    known = len(bundle.config.data.known_future)
    return Panel(
        ids=tuple(ids),
        indptr=np.r_[0, np.cumsum(lengths)].astype(np.int64),
        ds=rows.ds,
        values=np.where(observed, rows.y, 0.0),
        observed=observed,
        known_future=covariates[:, :known],
        past_only=covariates[:, known:],
    )


def _begin(bundle: Bundle, ids: Sequence[str], static: Sequence[Mapping[str, Any]]) -> States:
    """States of series of which nothing was observed yet."""
    spec = bundle.spec.static
    table = None
    if spec.columns and any(static):
        names = [column.name for column in spec.columns]
        told = [[facts.get(name) for name in names] for facts in static]
        known = [row for row, values in enumerate(told) if None not in values]
        table = pd.DataFrame(
            [told[row] for row in known], [ids[row] for row in known], columns=names
        )
    return initial_states(bundle, len(ids), spec.encode(table, ids))


def paced(some: int, took: float, wanted: float, most: int) -> int:
    """
    How many series the next part should have, if so many took so many seconds.

    A step of one series costs as much as a step of a hundred. Where histories are long, parts that
    became ever smaller would take ever longer in all; so they have no fewer than `_LEAST`.

    >>> paced(512, 4.0, 1.0, 2048), paced(512, 0.1, 1.0, 2048), paced(512, 9.0, 1.0, 2048)
    (128, 1024, 128)
    """
    return min(max(_LEAST, min(2 * some, int(some * wanted / max(took, 1e-3)))), most)

"""
Changes of live states: computed from observations first, then put in place together.

Computing a change leaves the live states as they are, so it may fail, or take long, while forecasts
are answered. `commit` then applies all changes of a batch in one step on the compute thread: a
forecast sees either none of the batch or the whole of it.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from jaxtyping import Int

from forecast.inference.states import States
from service.engine.engine import Engine
from service.engine.history import Replayed, history_of, next_part_size
from service.storage.base_states import PrunedSpans
from service.storage.records import Observations
from service.storage.transaction import Transaction

_MAX_SERIES = 4096
"""Most series computed at a time: as many as one call of the network takes."""
_FIRST_REPLAYED, _REPLAY_S = 256, 1.0
"""Series in the first part of a replay, and the seconds that each later part should take."""


@dataclass(frozen=True, slots=True)
class Advanced:
    """States of live series after new steps."""

    rows: Int[np.ndarray, " series"]
    """Rows of the engine."""
    states: States


StateChange = Advanced | Replayed


def advance(
    engine: Engine,
    steps: Observations,
    store: Callable[[Observations], None] = lambda observations: None,
) -> list[Advanced]:
    """
    Compute the states of live series after new steps.

    Args:
        engine: Holds the states.
        steps: New steps, each series in order; `series` are rows of the engine.
        store: Called with the same steps, by the numbers of the log, while states are computed.
    """
    steps = steps.take(np.argsort(steps.series, kind="stable"))
    rows, begins = np.unique(steps.series, return_index=True)
    changes = []
    for start in range(0, len(rows), _MAX_SERIES):  # Forecasts are computed between two parts.
        part = rows[start : start + _MAX_SERIES]
        first, last = np.r_[begins, len(steps)][[start, start + len(part)]]
        own = steps.take(np.arange(first, last))
        by_part = replace(own, series=np.searchsorted(part, own.series))
        states = engine.executor.begin(partial(engine.observed, part, by_part))
        store(replace(own, series=engine.numbers[own.series]))
        changes.append(Advanced(part, states()))
    return changes


def replay(engine: Engine, transaction: Transaction, numbers: Sequence[int]) -> list[Replayed]:
    """
    Compute the states of some series from everything that the log has of them.

    The series are replayed in parts, so that memory does not grow with their number, and not on
    the compute thread, so that forecasts are answered meanwhile.

    Args:
        engine: Its model replays.
        transaction: Reads the log.
        numbers: Numbers of the series in the log.
    """
    changes, done, size = [], 0, _FIRST_REPLAYED
    while done < len(numbers):
        start, part = time.perf_counter(), numbers[done : done + size]
        history = history_of(transaction, engine.digest, transaction.history(part))
        changes.append(Replayed(history.entries, history.states(engine.bundle), history.first_ds))
        done += len(part)
        size = next_part_size(size, time.perf_counter() - start, _REPLAY_S, _MAX_SERIES)
    return changes


def commit(
    engine: Engine, changes: Sequence[StateChange], batch: int, pruned: PrunedSpans | None = None
) -> None:
    """
    Put new states in place in one step, so that no forecast sees a part of a batch.

    Args:
        engine: Holds the live states.
        changes: The new states.
        batch: Last batch of the log that is in them.
        pruned: Where the logs of pruned series begin now.
    """

    def work() -> None:
        for change in changes:
            if isinstance(change, Advanced):
                engine.advance(change.rows, change.states)
            else:
                engine.commit(change.entries, change.states, change.first_ds)
        if pruned is not None:
            rows = engine.rows_of(pruned.series)
            engine.begin_at(rows[rows >= 0], pruned.first_ds[rows >= 0])
        engine.batch = batch

    engine.executor.run(work, patient=True)


def drop(engine: Engine, names: Sequence[str]) -> None:
    """Drop the live states of some series."""
    if names:
        engine.executor.run(lambda: engine.drop(names), patient=True)

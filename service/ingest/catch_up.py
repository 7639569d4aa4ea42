"""
Apply the batches of the log that the live states have not seen.

Another process may have written them, or the outcome of our own last commit may be unknown. If the
log was restored from a backup, or a standby became its primary, the states may hold what it lacks:
then every series is replayed.
"""

import logging
from dataclasses import replace

import numpy as np

from service.engine.engine import Engine
from service.errors import LogError
from service.ingest.state_changes import StateChange, advance, commit, drop, replay
from service.storage.database import STANDBY
from service.storage.log import ObservationLog
from service.storage.records import Observations
from service.storage.transaction import Changes, Transaction

logger = logging.getLogger("service.writer")


def is_behind(engine: Engine, log: ObservationLog, transaction: Transaction) -> bool:
    """
    Return whether the states differ from those that the log gives as the transaction sees it.

    Raises:
        LogError: The database is a standby, and its next history is not known yet.
    """
    if transaction.timeline == STANDBY:
        raise LogError(
            "the observation log cannot be used (the database is a standby)",
            where=log.place,
            help="try again; the primary takes what is sent",
        )
    return (transaction.before, transaction.timeline) != (engine.batch, engine.timeline)


def catch_up(
    engine: Engine, waiting: dict[str, int], log: ObservationLog, transaction: Transaction
) -> None:
    """
    Apply every batch that the states have not seen.

    Args:
        engine: Holds the states.
        waiting: Series without a live state, which wait for a replay: their numbers in the log, by
            name. It is brought up to date in place.
        log: The log.
        transaction: Reads the log.

    Raises:
        LogError: The log cannot be read, or its database is a standby.
    """
    if not is_behind(engine, log, transaction):
        return
    if transaction.before < engine.batch or transaction.timeline != engine.timeline:
        _start_over(engine, waiting, log, transaction)
        return
    unseen = transaction.changes(engine.batch)
    added, removed = {record.number for record in unseen.added}, set(unseen.removed)
    settled = added | removed
    for name in [name for name, number in waiting.items() if number in settled]:
        del waiting[name]
    rows = engine.rows_of(np.array(unseen.removed, np.int64))
    drop(engine, [engine.ids[row] for row in rows[rows >= 0].tolist()])
    stale = (_stale(engine, unseen) | added) - removed
    steps = _next_steps(engine, unseen.rows, stale)
    changes: list[StateChange] = []
    if len(steps):
        changes += advance(engine, steps)
    if stale:
        changes += replay(engine, transaction, sorted(stale))
    commit(engine, changes, transaction.before, unseen.pruned)


def _start_over(
    engine: Engine, waiting: dict[str, int], log: ObservationLog, transaction: Transaction
) -> None:
    """Drop all states: they may have seen batches that are not in this history of the log."""
    logger.warning(
        "%s was put back or has another primary (it ends with batch %d, and ended with %d "
        "before): every series is replayed",
        log.place,
        transaction.before,
        engine.batch,
    )
    names = transaction.names()
    drop(engine, [*engine.rows])
    waiting.clear()
    waiting.update((name, number) for number, name in names.items())
    engine.timeline = transaction.timeline
    commit(engine, [], transaction.before)


def _stale(engine: Engine, unseen: Changes) -> set[int]:
    """Return live series whose past changed: corrected, or pruned beyond what their state saw."""
    pruned = unseen.pruned.series[unseen.pruned.newest > engine.batch]
    numbers = np.r_[np.array(unseen.revised, np.int64), pruned]
    return set(numbers[engine.rows_of(numbers) >= 0].tolist())


def _next_steps(engine: Engine, rows: Observations, stale: set[int]) -> Observations:
    """Return the steps past the states of live series, by rows of the engine."""
    at = engine.rows_of(rows.series)
    _, ends = engine.spans(np.maximum(at, 0))
    ahead = (at >= 0) & ~np.isin(rows.series, [*stale]) & (rows.ds > ends)
    return replace(rows.take(ahead), series=at[ahead])

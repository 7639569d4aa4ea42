"""Prune the log and leave the states it needs."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from forecast.inference.states import States
from service.engine.engine import Engine
from service.engine.history import history_of
from service.storage.base_states import PrunedSpans
from service.storage.observation_table import Cuts
from service.storage.retention import Pruned, RetentionRule, look
from service.storage.transaction import Transaction


def prune(
    transaction: Transaction, numbers: Sequence[int], keep: RetentionRule, engines: Iterable[Engine]
) -> tuple[PrunedSpans, Pruned]:
    """
    Take the older steps of some series out of the log.

    Args:
        transaction: It may write.
        numbers: Of series; at most `bases.TOGETHER`.
        keep: What stays.
        engines: Of the models that are to go on from where the log begins then.
    """
    engines = list(engines)
    now, taken = look(transaction, numbers, keep, engines[0].bundle.calendar)
    if not taken.series:
        return now, taken
    cuts = Cuts(now.series, now.first_ds)
    states: dict[str, States] = {}
    for engine in engines:
        data = engine.bundle.config.data
        seen = transaction.seen_by((*data.known_future, *data.past_only))
        history = history_of(transaction, engine.digest, seen.history_before(cuts))
        work = partial(history.states, engine.bundle)
        states[engine.digest] = engine.executor.run(work, patient=True)
    earlier = transaction.begins(now.series.tolist())
    at = np.searchsorted(now.series, earlier.series)
    steps, newest = now.steps.copy(), now.newest.copy()
    steps[at] += earlier.steps
    newest[at] = np.maximum(newest[at], earlier.newest)
    now = replace(now, steps=steps, newest=newest)
    transaction.prune(now, states)
    return now, taken

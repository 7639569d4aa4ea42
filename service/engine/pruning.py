"""Prunes the log and keeps the base states from which later replays start."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from forecast.inference.states import States
from service.engine.engine import Engine
from service.engine.history import history_of
from service.storage.base_states import PrunedSpans
from service.storage.observation_table import Cuts
from service.storage.retention import Pruned, RetentionRule, plan_pruning
from service.storage.transaction import Transaction


def prune(
    transaction: Transaction, numbers: Sequence[int], keep: RetentionRule, engines: Iterable[Engine]
) -> tuple[PrunedSpans, Pruned]:
    """
    Remove the older steps of series from the log and store base states for each model.

    Args:
        transaction: A transaction that writes.
        numbers: Numbers of at most `base_states.TOGETHER` series.
        keep: The steps to keep.
        engines: Engines of the models whose replays are to start at the new beginning.

    Returns:
        Where the logs of the pruned series begin, and how much was removed.
    """
    engines = list(engines)
    spans, pruned = plan_pruning(transaction, numbers, keep, engines[0].bundle.calendar)
    if not pruned.series:
        return spans, pruned
    cuts = Cuts(spans.series, spans.first_ds)
    states: dict[str, States] = {}
    for engine in engines:
        data = engine.bundle.config.data
        seen = transaction.with_covariates((*data.known_future, *data.past_only))
        history = history_of(transaction, engine.digest, seen.history_before(cuts))
        work = partial(history.states, engine.bundle)
        states[engine.digest] = engine.executor.run(work, patient=True)
    before = transaction.begins(spans.series.tolist())
    rows = np.searchsorted(spans.series, before.series)
    steps, newest = spans.steps.copy(), spans.newest.copy()
    steps[rows] += before.steps
    newest[rows] = np.maximum(newest[rows], before.newest)
    spans = replace(spans, steps=steps, newest=newest)
    transaction.prune(spans, states)
    return spans, pruned

"""
Plans which older steps pruning removes from the log.

Pruning stores, in the same transaction, a base state for each model: its state before the first
step that is kept, from which replays start. A series is pruned whole or not at all. Series are
pruned in parts, so that writers wait only briefly.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from forecast.calendars.calendar import Calendar
from service.storage.base_states import TOGETHER, PrunedSpans
from service.storage.observation_table import Cuts
from service.storage.transaction import Transaction


@dataclass(frozen=True, slots=True)
class RetentionRule:
    """Steps to keep of each series: the last ones, or all from a stamp on; always the last step."""

    steps: int | None = None
    """Number of last steps, at least 1."""
    since: int | None = None
    """First stamp to keep (nanoseconds or integer step); exactly one of the two is set."""


@dataclass(frozen=True, slots=True)
class Pruned:
    """Amount that was removed, or would be."""

    series: int = 0
    """Series that lost steps."""
    steps: int = 0
    rows: int = 0
    """Rows, including revisions."""

    def __add__(self, other: "Pruned") -> "Pruned":
        return Pruned(self.series + other.series, self.steps + other.steps, self.rows + other.rows)


def plan_pruning(
    transaction: Transaction, numbers: Sequence[int], keep: RetentionRule, calendar: Calendar
) -> tuple[PrunedSpans, Pruned]:
    """
    Return where the logs of series would begin, and how much would be removed.

    A log begins with a value, so steps without a value at its new beginning are removed as well.

    Args:
        transaction: A transaction of the log.
        numbers: Numbers of at most `base_states.TOGETHER` series.
        keep: The steps to keep.
        calendar: Calendar of the log.
    """
    cuts = _cuts(transaction, numbers, keep, calendar)
    sums = transaction.sums_before(cuts)
    table = [(*amounts, number) for number, amounts in sums.items()]
    steps, rows, newest, series = np.array(table, np.int64).reshape(-1, 4).T
    first_ds = cuts.ds[np.isin(cuts.series, series)]
    spans = PrunedSpans(series, first_ds, steps, newest)
    return spans, Pruned(len(series), int(steps.sum()), int(rows.sum()))


def preview(transaction: Transaction, keep: RetentionRule, calendar: Calendar) -> Pruned:
    """Return how much pruning would remove from all series."""
    numbers = list(transaction.names())
    parts = (numbers[start : start + TOGETHER] for start in range(0, len(numbers), TOGETHER))
    return sum((plan_pruning(transaction, part, keep, calendar)[1] for part in parts), Pruned())


def _cuts(
    transaction: Transaction, numbers: Sequence[int], keep: RetentionRule, calendar: Calendar
) -> Cuts:
    """Return the new beginnings of the series that begin too early."""
    spans = transaction.spans(numbers)
    series = np.array(sorted(spans), np.int64)
    first, last = np.array([spans[n] for n in series.tolist()], np.int64).reshape(-1, 2).T
    starts = np.minimum(_first_kept(first, last, keep, calendar), last)
    late = starts > first
    cuts = Cuts(series[late], starts[late])
    if not len(cuts):
        return cuts
    observed = transaction.first_observed(cuts)
    ends = zip(cuts.series.tolist(), last[late].tolist(), strict=True)
    return Cuts(cuts.series, np.array([observed.get(n, end) for n, end in ends], np.int64))


def _first_kept(
    first: Int[np.ndarray, " series"],
    last: Int[np.ndarray, " series"],
    keep: RetentionRule,
    calendar: Calendar,
) -> Int[np.ndarray, " series"]:
    if keep.steps is None:
        assert keep.since is not None
        return np.full(len(first), keep.since)
    back = np.minimum(keep.steps - 1, calendar.steps_between(first, last))
    step, phase, _ = calendar.locate(last)
    return calendar.stamp_at(step - back, phase)

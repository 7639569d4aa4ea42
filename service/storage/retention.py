"""
Older steps are taken out of the log, and the states stay exact.

What is taken out of a series leaves, in the same transaction, a base for each model at hand: its
state before the first step that is kept. From there a replay goes on. Each series is pruned whole
or not at all, some at a time, so that those who write need not wait long in between.
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
    """What stays of each series: its last steps, or all from a stamp on; its last step always."""

    steps: int | None = None
    """At least 1."""
    since: int | None = None
    """Nanoseconds, or the integer step; exactly one of the two is given."""


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was taken out, or would be."""

    series: int = 0
    steps: int = 0
    rows: int = 0
    """Revisions included."""

    def __add__(self, other: "Pruned") -> "Pruned":
        return Pruned(self.series + other.series, self.steps + other.steps, self.rows + other.rows)


def look(
    transaction: Transaction, numbers: Sequence[int], keep: RetentionRule, calendar: Calendar
) -> tuple[PrunedSpans, Pruned]:
    """
    What would be taken out of some series, and where their logs would begin.

    A log begins with a value, so steps without one may go, too, at its beginning.

    Args:
        transaction: Of the log.
        numbers: Of series; at most `bases.TOGETHER`.
        keep: What stays.
        calendar: Of all series in the log.
    """
    cuts = _cuts(transaction, numbers, keep, calendar)
    found = transaction.doomed(cuts)
    told = [(*some, number) for number, some in found.items()]
    steps, rows, newest, series = np.array(told, np.int64).reshape(-1, 4).T
    first_ds = cuts.ds[np.isin(cuts.series, series)]
    now = PrunedSpans(series, first_ds, steps, newest)
    return now, Pruned(len(series), int(steps.sum()), int(rows.sum()))


def preview(transaction: Transaction, keep: RetentionRule, calendar: Calendar) -> Pruned:
    """What would be taken out of all series."""
    numbers = list(transaction.names())
    parts = (numbers[start : start + TOGETHER] for start in range(0, len(numbers), TOGETHER))
    return sum((look(transaction, part, keep, calendar)[1] for part in parts), Pruned())


def _cuts(
    transaction: Transaction, numbers: Sequence[int], keep: RetentionRule, calendar: Calendar
) -> Cuts:
    """Of the series that begin earlier than they should."""
    spans = transaction.spans(numbers)
    series = np.array(sorted(spans), np.int64)
    first, last = np.array([spans[n] for n in series.tolist()], np.int64).reshape(-1, 2).T
    wanted = np.minimum(_wanted(first, last, keep, calendar), last)
    late = wanted > first
    cuts = Cuts(series[late], wanted[late])
    if not len(cuts):
        return cuts
    observed = transaction.first_observed(cuts)
    ends = zip(cuts.series.tolist(), last[late].tolist(), strict=True)
    return Cuts(cuts.series, np.array([observed.get(n, end) for n, end in ends], np.int64))


def _wanted(
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

"""
Filling of steps that a regular series skips.

A table, a batch of observations and a panel that continues a state all use these functions: count
the steps missing before each row (`missing_before`), insert them (`insert_steps`), and give them
the value of the fill policy (`fill_values`). Covariates of inserted steps are chosen by the caller.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from forecast.calendars.calendar import Calendar
from forecast.config import Fill


@dataclass(frozen=True, slots=True)
class FilledRows:
    """Rows in order, with the missing steps inserted in front of the row that they precede."""

    source: Int[np.ndarray, " filled"]
    """Index of the original row; for an inserted step, of the first original row after it."""
    inserted: Bool[np.ndarray, " filled"]
    """True for a step that had no row."""
    stamps: Int[np.ndarray, " filled"]


def missing_before(
    calendar: Calendar, previous: Int[np.ndarray, " row"], stamps: Int[np.ndarray, " row"]
) -> Int[np.ndarray, " row"]:
    """
    Count the steps between each stamp and the previous one of its series.

    The count is 0 where the two stamps are equal, in reverse order, or not a whole number of steps
    apart.

    >>> missing_before(Calendar(1), np.array([1, 2, 7]), np.array([2, 5, 7])).tolist()
    [0, 2, 0]
    """
    step, phase, _ = calendar.locate(stamps)
    previous_step, previous_phase, _ = calendar.locate(previous)
    return np.where(phase == previous_phase, np.maximum(step - previous_step - 1, 0), 0)


def insert_steps(
    calendar: Calendar, stamps: Int[np.ndarray, " row"], missing: Int[np.ndarray, " row"]
) -> FilledRows:
    """
    Insert `missing[i]` steps in front of row `i`; they end one step before `stamps[i]`.

    >>> filled = insert_steps(Calendar(1), np.array([1, 4]), np.array([0, 2]))
    >>> filled.stamps.tolist(), filled.inserted.tolist()
    ([1, 2, 3, 4], [False, True, True, False])
    """
    source = np.repeat(np.arange(len(stamps)), missing + 1)
    steps_ahead = np.cumsum(missing + 1)[source] - 1 - np.arange(len(source))
    inserted = steps_ahead > 0
    filled = stamps[source]
    gaps = np.flatnonzero(missing)
    if len(gaps):
        step, phase, _ = calendar.locate(stamps[gaps])
        filled[inserted] = calendar.stamp_at(
            np.repeat(step, missing[gaps]) - steps_ahead[inserted],
            np.repeat(phase, missing[gaps]),
        )
    return FilledRows(source, inserted, filled)


def fill_values(policy: Fill, last: Float[np.ndarray, " row"]) -> Float[np.ndarray, " row"]:
    """
    Return the value of each missing step: 0, the last known value or, if not observed, NaN.

    Args:
        policy: `zero`, `forward` or `mask`; under `refuse` nothing is filled.
        last: Last known value before each missing step.

    >>> fill_values("forward", np.array([3.0])), fill_values("mask", np.array([3.0]))
    (array([3.]), array([nan]))
    """
    if policy == "forward":
        return last
    return np.full(len(last), 0.0 if policy == "zero" else np.nan)


def carry_forward(values: Float[np.ndarray, " row"]) -> Float[np.ndarray, " row"]:
    """
    Replace each NaN by the last number before it.

    Every series must begin with a number, or it gets the last one of the series before it.

    >>> carry_forward(np.array([1.0, np.nan, np.nan, 4.0])).tolist()
    [1.0, 1.0, 1.0, 4.0]
    """
    rows = np.where(np.isnan(values), 0, np.arange(len(values)))
    carried: Float[np.ndarray, " row"] = values[np.maximum.accumulate(rows)]
    return carried

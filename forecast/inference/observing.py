"""Bring states forward: `warm_up` from nothing, `observe` from where they are."""

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import replace
from typing import TypeVar

import numpy as np
import torch

from forecast.bundle import Bundle
from forecast.data.panel import Panel
from forecast.errors import ForeignState, LateValues, MissingSteps, StateError
from forecast.inference.states import States, initial_states
from forecast.models.recurrent import State

Result = TypeVar("Result")
MAX_SERIES, MAX_OBSERVATIONS = 2048, 2**14
"""Most series, and most steps of all series, in one call of the network: they fit the cache."""


def warm_up(bundle: Bundle, panel: Panel) -> States:
    """Return the states of all series of the panel, after observing the whole of it."""
    static = bundle.spec.static.encode(panel.static, panel.ids)
    return observe(bundle, initial_states(bundle, panel.num_series, static), panel)


def observe(
    bundle: Bundle, states: States, panel: Panel, *, pool: Executor | None = None
) -> States:
    """
    Return the states after new observations: state `i` takes all steps of the panel's series `i`.

    Observing a and then b gives the same states as observing ab, whatever series share the call.

    Args:
        bundle: The model that made the states.
        states: One row for each series of the panel.
        panel: Steps that follow the last one of each state without a gap; a series may have none.
        pool: Threads among which blocks of series are divided; None computes them in turn.

    Raises:
        ForeignState: The states were made by another model.
        MissingSteps: A series leaves a gap after its state.
        LateValues: A series begins at or before the last step of its state.
    """
    check_digest(bundle, states)
    _check_continues(bundle, states, panel)

    def observe_block(begin: int) -> States:
        part = states.between(begin, begin + MAX_SERIES)
        whole = len(part) == len(states)
        steps = panel if whole else panel.take(np.arange(begin, begin + len(part)))
        return observe_unchecked(bundle, part, steps)

    parts = map_blocks(observe_block, len(states), pool)
    return States.concat(parts) if len(parts) > 1 else parts[0] if parts else states


def map_blocks(
    function: Callable[[int], Result], num_series: int, pool: Executor | None
) -> list[Result]:
    """Call `function` with the first row of each block of `MAX_SERIES` series."""
    begins = range(0, num_series, MAX_SERIES)
    if pool is None or len(begins) < 2:
        return list(map(function, begins))
    return list(pool.map(function, begins))


@torch.inference_mode()
def observe_unchecked(bundle: Bundle, states: States, panel: Panel) -> States:
    """
    Observe as `observe` does, without checking that the states and the panel fit.

    Series are sorted by length, the longest first: those that still have steps are then the first
    rows, and each call of the network reads a rectangle of them.
    """
    after, encoded = bundle.spec.read(states.filters, panel)
    lengths = panel.lengths
    order = np.argsort(-lengths, kind="stable")
    begins = torch.from_numpy(panel.indptr[:-1][order].copy())
    features = torch.from_numpy(encoded.features)
    hidden = torch.from_numpy(states.hidden[order]).transpose(0, 1).contiguous()
    cell = torch.from_numpy(states.cell[order]).transpose(0, 1).contiguous()
    seen = torch.from_numpy(states.seen[order])
    static = torch.from_numpy(states.static[order])
    stops = np.unique(lengths)
    step = 0
    while step < stops.max(initial=0):
        n = int((lengths > step).sum())
        until = min(int(stops[stops > step][0]), step + max(1, MAX_OBSERVATIONS // n))
        inputs = features[begins[:n, None] + torch.arange(step, until)]
        before = State(hidden[:, :n], cell[:, :n])
        seen[:n], state = bundle.network.observe(inputs, static[:n], before)
        hidden[:, :n], cell[:, :n] = state.hidden, state.cell
        step = until
    original_order = np.argsort(order)
    moved = lengths > 0
    last_ds = states.last_ds.copy()
    last_ds[moved] = panel.ds[panel.indptr[1:][moved] - 1]
    return replace(
        states,
        last_ds=last_ds,
        count=after.count,
        scalars=after.scalars,
        rings=after.rings,
        hidden=hidden.transpose(0, 1).numpy()[original_order],
        cell=cell.transpose(0, 1).numpy()[original_order],
        seen=seen.numpy()[original_order],
    )


def check_digest(bundle: Bundle, states: States) -> None:
    """Raise `ForeignState` if another model made the states."""
    if states.digest != bundle.digest:
        raise ForeignState(
            f"the state was made by model {states.digest[:12]}, not by {bundle.digest[:12]}",
            help="rebuild it: warm the series up with this model",
        )


def _check_continues(bundle: Bundle, states: States, panel: Panel) -> None:
    if len(states) != panel.num_series:
        raise StateError(f"{len(states)} states for a panel of {panel.num_series} series")
    rows = np.flatnonzero((states.count > 0) & (panel.lengths > 0))
    first = panel.ds[panel.indptr[:-1][rows]]
    expected = bundle.calendar.after(states.last_ds[rows], 1)[:, 0]
    wrong = np.flatnonzero(first != expected)
    if len(wrong):
        i = wrong[0]
        text = bundle.calendar.text
        error = LateValues if first[i] < expected[i] else MissingSteps
        raise error(
            f"{len(wrong)} of {len(rows)} series do not continue after the last step: "
            f"expected {text(expected[i])}, found {text(first[i])}",
            where=f"series '{panel.ids[rows[i]]}' after {text(states.last_ds[rows[i]])}",
            help="send the steps between first, or rebuild the state from all observations",
        )

"""warm_up and observe: states move forward."""

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

T = TypeVar("T")
MAX_SERIES, MAX_OBSERVATIONS = 2048, 2**14
"""Most series, and steps of all of them, in one call of the network: what the cache holds."""


def warm_up(bundle: Bundle, panel: Panel) -> States:
    """Begin a state for each series of the panel and observe all of it."""
    static = bundle.spec.static.encode(panel.static, panel.ids)
    return observe(bundle, initial_states(bundle, panel.num_series, static), panel)


def observe(
    bundle: Bundle, states: States, panel: Panel, *, pool: Executor | None = None
) -> States:
    """
    Commit new observations: row `i` takes all steps of the panel's series `i`, in order.

    Observing a then b equals observing ab, whatever series share the call.

    Args:
        bundle: The model whose states these are.
        states: One row for each series of the panel.
        panel: Steps that follow each state's last one without a gap; a series may have none.
        pool: Threads that share many series; without it they take turns.

    Raises:
        ForeignState: The states were made by another model.
        MissingSteps: A series does not go on where its state stopped.
        LateValues: A series begins at or before its state's last step.
    """
    _check_digest(bundle, states)
    _check_continues(bundle, states, panel)

    def work(begin: int) -> States:
        part = states.between(begin, begin + MAX_SERIES)
        whole = len(part) == len(states)
        steps = panel if whole else panel.take(np.arange(begin, begin + len(part)))
        return _observe(bundle, part, steps)

    parts = _in_blocks(work, len(states), pool)
    return States.concat(parts) if len(parts) > 1 else parts[0] if parts else states


def _in_blocks(work: Callable[[int], T], series: int, pool: Executor | None) -> list[T]:
    """What `work` makes of each block of series, told where it begins."""
    begins = range(0, series, MAX_SERIES)
    return list(map(work, begins) if pool is None or len(begins) < 2 else pool.map(work, begins))


@torch.inference_mode()
def _observe(bundle: Bundle, states: States, panel: Panel) -> States:
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
    at = 0
    while at < stops.max(initial=0):
        n = int((lengths > at).sum())
        until = min(int(stops[stops > at][0]), at + max(1, MAX_OBSERVATIONS // n))
        inputs = features[begins[:n, None] + torch.arange(at, until)]
        before = State(hidden[:, :n], cell[:, :n])
        seen[:n], state = bundle.network.observe(inputs, static[:n], before)
        hidden[:, :n], cell[:, :n] = state.hidden, state.cell
        at = until
    back = np.argsort(order)
    moved = lengths > 0
    last_ds = states.last_ds.copy()
    last_ds[moved] = panel.ds[panel.indptr[1:][moved] - 1]
    return replace(
        states,
        last_ds=last_ds,
        count=after.count,
        scalars=after.scalars,
        rings=after.rings,
        hidden=hidden.transpose(0, 1).numpy()[back],
        cell=cell.transpose(0, 1).numpy()[back],
        seen=seen.numpy()[back],
    )


def _check_digest(bundle: Bundle, states: States) -> None:
    if states.digest != bundle.digest:
        raise ForeignState(
            f"the state was made by model {states.digest[:12]}, not by {bundle.digest[:12]}",
            help="rebuild it: warm the series up with this model",
        )


def _check_continues(bundle: Bundle, states: States, panel: Panel) -> None:
    if len(states) != panel.num_series:
        raise StateError(f"{len(states)} states for a panel of {panel.num_series} series")
    rows = np.flatnonzero((states.count > 0) & (panel.lengths > 0))
    found = panel.ds[panel.indptr[:-1][rows]]
    expected = bundle.calendar.after(states.last_ds[rows], 1)[:, 0]
    off = np.flatnonzero(found != expected)
    if len(off):
        i = off[0]
        text = bundle.calendar.text
        kind = LateValues if found[i] < expected[i] else MissingSteps
        raise kind(
            f"{len(off)} of {len(rows)} series do not go on where their state stopped: expected "
            f"{text(expected[i])}, found {text(found[i])}",
            where=f"series '{panel.ids[rows[i]]}' after {text(states.last_ds[rows[i]])}",
            help="send the steps between first, or rebuild the state from all observations",
        )

"""Norms of the loss gradient through time, and how often training clipped them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from forecast.bundle import Bundle
from forecast.data.panel import Panel
from forecast.diagnostics.attribution import networks_of
from forecast.errors import ConfigError, TooShort
from forecast.models.recurrent import RecurrentStack, State, run_cells
from forecast.training.dataset import TrainingSet
from forecast.training.lanes import Chunk
from forecast.training.objective import look_ahead
from forecast.training.progress import TrainEvent

EXPLODING = 10.0
"""A gradient explodes if its norm exceeds this multiple of the last step's within a chunk."""
VANISHING = 1e-3
"""A gradient vanishes if its norm falls below this share of the last step's within a chunk."""
MAX_WARM_UP = 512
"""Most steps that build the state before the steps that the gradient is followed through."""
Flow = Literal["steady", "exploding", "vanishing", "none"]
"""`none`: the forecast is shrunk to the best skip, so that no gradient reaches the network."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GradientProfile:
    """Gradient of a loss with respect to the state of each earlier step."""

    table: pd.DataFrame
    """
    `back` (steps before the loss), `layer` (1 is next to the inputs), `hidden` and, for an LSTM,
    `cell`: norm of the gradient with respect to that part of the state, mean over lanes; and
    `ratio`: norm with respect to the whole state, divided by the norm at `back` 0.
    """
    flow: dict[int, Flow]
    """Behaviour of the gradient within one chunk, by layer."""
    chunk_length: int
    """Steps through which training sends the gradient back."""


def state_gradients(
    stack: RecurrentStack,
    inputs: Float[Tensor, "lane step feature"],
    state: State,
    loss: Callable[[Float[Tensor, "lane hidden"]], Float[Tensor, " lane"]],
) -> tuple[Float[np.ndarray, "step layer"], Float[np.ndarray, "step layer"]]:
    """
    Return norms of the gradient of a final loss with respect to the state after each step.

    The cells run one step at a time, so that each state is a tensor of its own. Each lane has its
    own loss, and norms are means over lanes. Row 0 is the last step.

    Args:
        stack: The recurrent layers, in evaluation mode, so that dropout is not applied.
        inputs: Inputs of the stack.
        state: State of the lanes before the first step.
        loss: Maps the last layer's hidden state after the last step to a loss for each lane.

    Returns:
        Norms for the hidden state and for the cell state; the latter are 0 without a cell.
    """
    states: list[State] = []
    is_lstm, layers = stack.is_lstm, stack.layers.num_layers
    for step in range(inputs.shape[1]):
        _, state = run_cells(stack, inputs[:, step : step + 1], state)
        states.append(state)
    total = loss(states[-1].hidden[-1]).sum()
    tensors = [s.hidden for s in states] + ([s.cell for s in states] if is_lstm else [])
    grads = torch.autograd.grad(total, tensors, allow_unused=True)
    norms = np.array(
        [np.zeros(layers) if g is None else g.norm(dim=-1).mean(1).numpy() for g in grads]
    )
    hidden = norms[: len(states)][::-1]
    return hidden, norms[len(states) :][::-1] if is_lstm else np.zeros_like(hidden)


def gradient_profile(
    bundle: Bundle, panel: Panel, *, steps: int | None = None, num_series: int = 32
) -> GradientProfile:
    """
    Follow the gradient of the forecast error back through the states of the network.

    The loss is the mean absolute error of the point forecast, in units of the series, at the
    origin `horizon` steps before the end of each of the longest series. Up to 512 steps build the
    state before the followed steps. Of an ensemble, the first member is measured.

    Args:
        bundle: The model.
        panel: Series to measure on.
        steps: Number of steps to follow, as far as the longest series allows; None takes 4 chunks
            of the training.
        num_series: Most series to measure on.

    Raises:
        TooShort: No series has two steps before its last `horizon`.
        ConfigError: The model reads windows and carries no state.

    References:
        Pascanu, Mikolov & Bengio, On the difficulty of training recurrent neural networks, ICML
        2013; Hochreiter, The vanishing gradient problem, IJUFKS 6(2), 1998.
    """
    network, horizon = networks_of(bundle)[0], bundle.horizon
    if not isinstance(network.stack, RecurrentStack):
        raise ConfigError(
            f"a model that reads windows of {bundle.config.model.window} steps anew carries no "
            "state for a gradient to pass through",
            help="profile a model trained with stateful = true",
        )
    chunk_length = bundle.config.train.chunk_length
    rows = np.argsort(-panel.lengths, kind="stable")[:num_series]
    wanted = 4 * chunk_length if steps is None else steps
    longest = int(panel.lengths.max(initial=0)) - horizon
    if longest < 2:
        raise TooShort(
            f"no series has two steps before its last {horizon}", help="give longer series"
        )
    steps = min(wanted, longest)
    part = panel.take(rows[panel.lengths[rows] - horizon >= steps])
    known = part.lengths - horizon
    examples = TrainingSet.build(
        bundle.spec,
        part,
        bundle.spec.static.encode(part.static, part.ids),
        horizon=horizon,
        scale=np.ones(part.num_series),
    )
    warm = min(MAX_WARM_UP, int(known.min()) - steps)
    series, fresh = np.arange(part.num_series), np.ones(part.num_series, np.bool_)
    start = known - steps
    ahead = Chunk(series, start, np.full(len(series), steps), fresh)
    with torch.no_grad():
        static = examples.static_of(ahead)
        state = network.initial_state(len(series))
        if warm:
            before = Chunk(series, start - warm, np.full(len(series), warm), fresh)
            _, state = network.encode(examples.inputs(before, warm), static, state)
        inputs = network.embed_steps(examples.inputs(ahead, steps), static)
    origins = examples.origins(
        ahead, torch.tensor([steps - 1]), examples.lengths, torch.zeros_like(examples.lengths)
    )
    future = look_ahead(network, examples, ahead, origins)

    def loss(hidden: Float[Tensor, "lane hidden"]) -> Float[Tensor, " lane"]:
        memory = network.memory_at_end(State(hidden[None], hidden[None]), inputs[:, -1])
        point = network.point(memory[origins.lane], origins.skips, future)
        error = torch.where(origins.known, (point - origins.relative).abs(), 0.0)
        return error.sum(1) / origins.known.sum(1).clamp(min=1)

    hidden, cell = state_gradients(network.stack, inputs, state, loss)
    return profile(hidden, cell, chunk_length)


def profile(
    hidden: Float[np.ndarray, "step layer"],
    cell: Float[np.ndarray, "step layer"],
    chunk_length: int,
) -> GradientProfile:
    """
    Tabulate the norms and call each layer `exploding`, `vanishing` or `steady` within one chunk.

    Args:
        hidden: Norms for the hidden state as `state_gradients` returns them, the last step first.
        cell: Norms for the cell state.
        chunk_length: Steps of a chunk.

    References:
        Pascanu, Mikolov & Bengio, On the difficulty of training recurrent neural networks, ICML
        2013 (the norms of the gradient through time, exploding and vanishing).

    >>> fading = 0.1 ** np.arange(8.0)[:, None]
    >>> profile(fading, 0 * fading, chunk_length=8).flow
    {1: 'vanishing'}
    """
    whole = np.hypot(hidden, cell)
    ratio = whole / np.maximum(whole[:1], np.finfo(np.float64).tiny)
    steps, layers = hidden.shape
    table = pd.DataFrame(
        {
            "back": np.repeat(np.arange(steps), layers),
            "layer": np.tile(np.arange(1, layers + 1), steps),
            "hidden": hidden.ravel(),
        }
    )
    if cell.any():
        table["cell"] = cell.ravel()
    table["ratio"] = ratio.ravel()
    within = ratio[:chunk_length]
    flow = {i + 1: _flow(within[:, i], bool(whole.any())) for i in range(layers)}
    return GradientProfile(table=table, flow=flow, chunk_length=chunk_length)


def _flow(ratio: Float[np.ndarray, " step"], reached: bool) -> Flow:
    if not reached:
        return "none"
    if ratio.max() > EXPLODING:
        return "exploding"
    return "vanishing" if ratio[-1] < VANISHING else "steady"


@dataclass(frozen=True, slots=True, kw_only=True)
class Clipping:
    """Effect of gradient clipping in a training run."""

    table: pd.DataFrame
    """`step`, `grad_norm` (mean before clipping) and `clipped` (share of steps), by report."""
    limit: float
    """`train.max_grad_norm`."""
    clipped: float
    """Share of all steps whose gradient was clipped."""
    clipped_late: float
    """Share of the steps in the last quarter of the run whose gradient was clipped."""
    max_grad_norm: float
    """Largest reported norm before clipping."""


def clipping(history: Sequence[TrainEvent], limit: float) -> Clipping:
    """
    Summarise how often the gradient was clipped, and its norm before clipping.

    Args:
        history: Progress reports of a run; at least one.
        limit: `train.max_grad_norm` of the run.

    References:
        Pascanu, Mikolov & Bengio, ICML 2013 (clipping the norm).
    """
    table = pd.DataFrame(
        {
            "step": [event.step for event in history],
            "grad_norm": [event.grad_norm for event in history],
            "clipped": [event.clipped for event in history],
        }
    )
    weight = np.diff(table["step"], prepend=0)
    late = table["step"].to_numpy() > 0.75 * table["step"].iloc[-1]
    return Clipping(
        table=table,
        limit=limit,
        clipped=float(np.average(table["clipped"], weights=weight)),
        clipped_late=float(np.average(table["clipped"][late], weights=weight[late])),
        max_grad_norm=float(table["grad_norm"].max()),
    )

"""
Stacked recurrent cells over lanes: weights only, state in and out.

References:
    Elman, Finding structure in time, Cognitive Science 14(2), 1990.
    Hochreiter & Schmidhuber, Long short-term memory, Neural Computation 9(8), 1997.
    Cho et al., Learning phrase representations using RNN encoder-decoder, EMNLP 2014.
    Jozefowicz et al., An empirical exploration of recurrent network architectures, ICML 2015
    (the forget bias).
"""

import os
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from forecast.config import Cell

os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")
"""Limits the primitives that oneDNN caches, of up to 2 MB each, from 1,024 to 64."""
Layers = Callable[[int, int, int, float, bool], nn.RNNBase]
"""Input size, hidden size, layers, dropout, bidirectional."""
CELLS: dict[Cell, Layers] = {
    "lstm": lambda i, h, n, p, b: nn.LSTM(i, h, n, batch_first=True, dropout=p, bidirectional=b),
    "gru": lambda i, h, n, p, b: nn.GRU(i, h, n, batch_first=True, dropout=p, bidirectional=b),
    "rnn_tanh": lambda i, h, n, p, b: nn.RNN(i, h, n, batch_first=True, dropout=p, bidirectional=b),
    "rnn_relu": lambda i, h, n, p, b: nn.RNN(
        i, h, n, "relu", batch_first=True, dropout=p, bidirectional=b
    ),
}


@dataclass(frozen=True, slots=True)
class State:
    """Recurrent state of each lane. `cell` is empty (size 0) except for an LSTM."""

    hidden: Float[Tensor, "layer lane hidden"]
    cell: Float[Tensor, "layer lane cell"]

    def detach(self) -> "State":
        """Return the same numbers without gradient history: the cut between two BPTT chunks."""
        return type(self)(self.hidden.detach(), self.cell.detach())

    def drop(self, fresh: Bool[Tensor, " lane"]) -> "State":
        """Return the state with zeros in the lanes where a new series begins."""
        dropped = fresh[None, :, None]
        hidden, cell = (part.masked_fill(dropped, 0.0) for part in (self.hidden, self.cell))
        return type(self)(hidden, cell)


def initialise(layers: nn.RNNBase) -> None:
    """
    Initialise recurrent weights orthogonal, input weights Xavier-uniform and biases 0.

    The bias of the LSTM's forget gate starts at 1, so that memory is kept until learned otherwise.
    """
    for name, weight in layers.named_parameters():
        if "bias" in name:
            nn.init.zeros_(weight)
            if isinstance(layers, nn.LSTM) and "bias_ih" in name:
                nn.init.ones_(weight.data[layers.hidden_size : 2 * layers.hidden_size])
            continue
        init = nn.init.orthogonal_ if "weight_hh" in name else nn.init.xavier_uniform_
        for gate in weight.data.split(layers.hidden_size):
            init(gate)


class RecurrentStack(nn.Module):
    """LSTM, GRU or simple RNN layers with the state as argument and result."""

    def __init__(
        self, cell: Cell, input_size: int, hidden_size: int, num_layers: int, dropout: float
    ) -> None:
        super().__init__()
        self.is_lstm = cell == "lstm"
        self.layers: nn.RNNBase = CELLS[cell](input_size, hidden_size, num_layers, dropout, False)
        initialise(self.layers)

    def initial_state(self, num_lanes: int) -> State:
        """Return the state of lanes that have seen nothing: zeros on the device of the weights."""
        size = (self.layers.num_layers, num_lanes, self.layers.hidden_size)
        zeros = next(self.parameters()).new_zeros(size)
        return State(zeros, zeros if self.is_lstm else zeros[..., :0])

    def forward(
        self, inputs: Float[Tensor, "lane step feature"], state: State
    ) -> tuple[Float[Tensor, "lane step hidden"], State]:
        """Run all steps in order from `state`; also return the state after the last one."""
        if self.is_lstm:
            outputs, (hidden, cell) = self.layers(inputs, (state.hidden, state.cell))
            return outputs, State(hidden, cell)
        outputs, hidden = self.layers(inputs, state.hidden)
        return outputs, State(hidden, state.cell)


def run_cells(
    stack: RecurrentStack, inputs: Float[Tensor, "lane step feature"], state: State
) -> tuple[Float[Tensor, "lane step hidden"], State]:
    """
    Run the same computation step by step from the equations of the gates, as a reference.

    It is slow; tests compare the fused path with it. Dropout is not applied.
    """
    hidden, cell = list(state.hidden), list(state.cell)
    outputs = []
    for step in range(inputs.shape[1]):
        flow = inputs[:, step]
        for layer in range(stack.layers.num_layers):
            w_ih, w_hh, b_ih, b_hh = (
                getattr(stack.layers, f"{name}_l{layer}")
                for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            )
            a, b = flow @ w_ih.T + b_ih, hidden[layer] @ w_hh.T + b_hh
            if stack.is_lstm:
                i, f, g, o = (a + b).chunk(4, dim=1)
                cell[layer] = torch.sigmoid(f) * cell[layer] + torch.sigmoid(i) * torch.tanh(g)
                hidden[layer] = torch.sigmoid(o) * torch.tanh(cell[layer])
            elif isinstance(stack.layers, nn.GRU):
                (ar, az, an), (br, bz, bn) = a.chunk(3, dim=1), b.chunk(3, dim=1)
                new = torch.tanh(an + torch.sigmoid(ar + br) * bn)
                update = torch.sigmoid(az + bz)
                hidden[layer] = (1 - update) * new + update * hidden[layer]
            else:
                relu = stack.layers.mode == "RNN_RELU"
                hidden[layer] = torch.relu(a + b) if relu else torch.tanh(a + b)
            flow = hidden[layer]
        outputs.append(flow)
    return torch.stack(outputs, dim=1), State(torch.stack(hidden), torch.stack(cell))

"""
Stateless recurrent layers for comparison: every forecast reads its window again.

The state is the window itself, so such a model is observed, saved and served like any other. A
forecast costs a pass over the window, where a carried state costs one step.

References:
    Schuster & Paliwal, Bidirectional recurrent neural networks, IEEE Trans. Signal Processing
    45(11), 1997.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from forecast.config import Cell
from forecast.models.recurrent import CELLS, State, initialise


class WindowedStack(nn.Module):
    """
    LSTM, GRU or simple RNN layers over the last `window` steps, from the zero state.

    The output of a step is that of the layers at the end of its window (many to one). Nothing in a
    window lies in the future of its end, so backward layers are possible here, and only here.

    In training on whole chunks (`whole`), the chunk is the window of all its steps (many to many).

    `State.hidden` holds the window, one layer for each step, with zeros before the series began.
    """

    def __init__(
        self,
        cell: Cell,
        hidden_size: int,
        num_layers: int,
        dropout: float,
        window: int,
        *,
        bidirectional: bool,
    ) -> None:
        super().__init__()
        self.window, self.hidden_size, self.whole = window, hidden_size, False
        directions = 2 if bidirectional else 1
        self.layers: nn.RNNBase = CELLS[cell](
            hidden_size, hidden_size // directions, num_layers, dropout, bidirectional
        )
        initialise(self.layers)

    def initial_state(self, num_lanes: int) -> State:
        """Return windows without a step, on the device of the weights."""
        size = (self.window, num_lanes, self.hidden_size)
        zeros = next(self.parameters()).new_zeros(size)
        return State(zeros, zeros[:, :, :0])

    def forward(
        self, inputs: Float[Tensor, "lane step hidden"], state: State
    ) -> tuple[Float[Tensor, "lane step hidden"], State]:
        """Return the outputs of all steps, and the windows that end at the last one."""
        past = torch.cat([state.hidden.transpose(0, 1), inputs], dim=1)
        after = State(past[:, -self.window :].transpose(0, 1).contiguous(), state.cell)
        if self.training and self.whole:
            return self.layers(inputs)[0], after
        windows = past[:, 1:].unfold(1, self.window, 1).transpose(2, 3).flatten(0, 1)
        outputs, _ = self.layers(windows)
        if self.layers.bidirectional:  # Forward at its last step, backward at its first.
            half = outputs.shape[-1] // 2
            last = torch.cat([outputs[:, -1, :half], outputs[:, 0, half:]], dim=-1)
        else:
            last = outputs[:, -1]
        return last.unflatten(0, inputs.shape[:2]), after

"""Promise 6: the fused layers equal a loop over hand-written cells."""

import pytest
import torch

from forecast.config import Cell
from forecast.models.recurrent import CELLS, RecurrentStack, State, run_cells


@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("cell", CELLS)
def test_the_fused_path_equals_the_cell_loop(cell: Cell, num_layers: int):
    """Outputs and states of the fused call are those of the gates' equations, step by step."""
    torch.manual_seed(0)
    stack = RecurrentStack(cell, 5, 7, num_layers, 0.0)
    inputs = torch.randn(3, 11, 5)
    state = State(torch.randn(num_layers, 3, 7) * 0.3, stack.initial_state(3).cell + 0.1)

    outputs, after = stack(inputs, state)
    expected, expected_after = run_cells(stack, inputs, state)

    torch.testing.assert_close(outputs, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(after.hidden, expected_after.hidden, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(after.cell, expected_after.cell, atol=1e-5, rtol=1e-5)

"""The network: state as a value, the fused path, the skip before training."""

import pytest
import torch

from forecast.config import Cell, ModelConfig
from forecast.models.heads import PointHead, QuantileHead, num_skips
from forecast.models.network import Network
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


@pytest.mark.parametrize("cell", CELLS)
def test_chunking_does_not_change_what_the_network_computes(cell: Cell):
    """Steps cut in two with the state carried give what they give in one piece."""
    torch.manual_seed(0)
    network = Network(
        ModelConfig(cell=cell, hidden_size=8, horizon=2), num_features=4, num_seasons=0,
        num_future=0,
    ).eval()  # fmt: skip
    steps = torch.randn(3, 12, 4)

    whole, _ = network.remember(steps, network.stack.initial_state(3))
    first, state = network.remember(steps[:, :5], network.stack.initial_state(3))
    second, _ = network.remember(steps[:, 5:], state)

    torch.testing.assert_close(torch.cat([first, second], dim=1), whole)


def test_a_forward_call_leaves_no_trace_in_the_module():
    """Two calls with one state give one answer: nothing is remembered but in the state."""
    stack = RecurrentStack("lstm", 3, 4, 1, 0.0).eval()
    inputs, state = torch.randn(2, 6, 3), stack.initial_state(2)
    before = {name: value.clone() for name, value in stack.state_dict().items()}

    once, _ = stack(inputs, state)
    again, _ = stack(inputs, state)

    assert torch.equal(once, again)
    assert all(torch.equal(value, before[name]) for name, value in stack.state_dict().items())


def test_drop_zeroes_only_the_lanes_where_a_series_begins():
    """Fresh lanes start from nothing, the others go on from what they had."""
    state = State(torch.ones(1, 3, 2), torch.ones(1, 3, 2))

    dropped = state.drop(torch.tensor([False, True, False]))

    assert dropped.hidden[0, :, 0].tolist() == [1.0, 0.0, 1.0]
    assert dropped.cell[0, :, 0].tolist() == [1.0, 0.0, 1.0]


def test_before_training_the_point_forecast_is_the_mean_of_the_skips():
    """The correction starts at zero and the mix even: nothing is invented."""
    head = PointHead(6, 4, 3, 1, 2)
    skips = torch.randn(5, num_skips(1), 3)

    relative = head(torch.randn(5, 6), skips, torch.randn(5, 3, 2))

    torch.testing.assert_close(relative, skips.mean(1))


def test_quantiles_never_cross():
    """Distances grow away from the median for any weights."""
    torch.manual_seed(0)
    head = QuantileHead(6, 4, 3, (0.75, 0.9, 0.95))
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=2.0)

    distances = head(torch.randn(50, 6))

    assert bool((distances > 0).all())
    assert bool((distances.diff(dim=-1) >= 0).all())


def test_recurrent_weights_start_orthogonal_and_the_forget_gate_open():
    """Initialisation keeps norms through time and memory by default."""
    stack = RecurrentStack("lstm", 4, 8, 1, 0.0)

    gates = stack.layers.weight_hh_l0.detach().split(8)
    bias = (stack.layers.bias_ih_l0 + stack.layers.bias_hh_l0).detach()

    for gate in gates:
        torch.testing.assert_close(gate @ gate.T, torch.eye(8), atol=1e-5, rtol=0)
    assert bias[8:16].tolist() == [1.0] * 8
    assert bias[:8].tolist() == [0.0] * 8

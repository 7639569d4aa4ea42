"""Promise 1: `forward(inputs, state)` returns outputs and the next state; modules keep none."""

import torch

from forecast.models.recurrent import RecurrentStack


def test_a_forward_call_leaves_no_trace_in_the_module():
    """Two calls with the same state give equal outputs, and no weight or buffer changes."""
    stack = RecurrentStack("lstm", 3, 4, 1, 0.0).eval()
    inputs, state = torch.randn(2, 6, 3), stack.initial_state(2)
    before = {name: value.clone() for name, value in stack.state_dict().items()}

    once, _ = stack(inputs, state)
    again, _ = stack(inputs, state)

    assert torch.equal(once, again)
    assert all(torch.equal(value, before[name]) for name, value in stack.state_dict().items())

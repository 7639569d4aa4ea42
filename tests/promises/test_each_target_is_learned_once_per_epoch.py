"""Promise 7: lanes hold whole series in order, and state is dropped only where one begins."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from forecast.models.recurrent import RecurrentStack, State
from forecast.training.lanes import iter_chunks
from forecast.training.train import train
from tests.helpers.training import lengths, steps_of, weights


@given(lengths=lengths, lanes=st.integers(1, 5), size=st.integers(1, 9), seed=st.integers(0, 99))
def test_every_step_is_in_exactly_one_chunk(lengths, lanes, size, seed):
    """However series are distributed, no step is lost, repeated or invented."""
    rng = np.random.default_rng(seed)
    chunks = list(iter_chunks(lengths, num_lanes=lanes, chunk_length=size, rng=rng))

    seen = [step for c in chunks for lane in range(len(c.series)) for step in steps_of(c, lane)]

    assert sorted(seen) == [(i, t) for i, n in enumerate(lengths) for t in range(n)]


@given(lengths=lengths, lanes=st.integers(1, 5), size=st.integers(1, 9), seed=st.integers(0, 99))
def test_each_lane_continues_where_it_stopped_unless_it_is_fresh(lengths, lanes, size, seed):
    """A chunk of a lane begins one step after its last chunk, or at step 0 and marked fresh."""
    rng = np.random.default_rng(seed)
    last_steps: dict[int, tuple[int, int]] = {}

    for chunk in iter_chunks(lengths, num_lanes=lanes, chunk_length=size, rng=rng):
        for lane in range(len(chunk.series)):
            if not chunk.length[lane]:
                continue
            series, step = steps_of(chunk, lane)[0]
            assert chunk.fresh[lane] == (step == 0)
            if not chunk.fresh[lane]:
                assert last_steps[lane] == (series, step - 1)
            last_steps[lane] = steps_of(chunk, lane)[-1]


def test_each_chunk_starts_from_the_state_that_the_last_one_left(panel, config):
    """The state is detached: zero where a series begins, and the last result elsewhere."""
    states: list[tuple[State, State]] = []

    def record(module: nn.Module, inputs: tuple[Tensor, State], outputs: tuple[Tensor, State]):
        if isinstance(module, RecurrentStack) and torch.is_grad_enabled():
            states.append((inputs[1], outputs[1]))

    hook = register_module_forward_hook(record)
    try:
        train(panel, replace(config, train=replace(config.train, max_steps=25, batch_size=5)))
    finally:
        hook.remove()

    carried = 0
    for (_, last), (start, _) in pairwise(states):
        assert start.hidden.grad_fn is None
        if start.hidden.shape != last.hidden.shape:
            continue
        same = (start.hidden == last.hidden.detach()).all(-1).all(0)
        zero = (start.hidden == 0).all(-1).all(0)
        assert bool((same | zero).all())
        carried += int((same & ~zero).sum())
    assert carried > 50


def test_validation_does_not_change_what_is_learned(panel, config):
    """The weights do not depend on how often a run validates."""
    rare = replace(config, train=replace(config.train, max_steps=10, val_size=6))
    often = replace(rare, train=replace(rare.train, check_every=1))

    assert weights(train(panel, rare).bundle) == weights(train(panel, often).bundle)

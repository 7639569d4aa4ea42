"""Ordered batches: nothing lost, nothing repeated, time never shuffled."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from forecast.training.lanes import iter_chunks, iter_windows
from tests.helpers.training import lengths, steps_of


@given(lengths=lengths, size=st.integers(1, 9), stride=st.integers(1, 9), seed=st.integers(0, 99))
def test_windows_cover_every_step(lengths, size, stride, seed):
    """Windows cover all steps; if the stride is their length, each step exactly once."""
    rng = np.random.default_rng(seed)
    stride = min(stride, size)
    chunks = list(iter_windows(lengths, num_lanes=3, chunk_length=size, stride=stride, rng=rng))

    seen = [step for c in chunks for lane in range(len(c.series)) for step in steps_of(c, lane)]

    assert set(seen) == {(i, t) for i, n in enumerate(lengths) for t in range(n)}
    if stride == size:
        assert len(seen) == lengths.sum()


def test_lanes_are_balanced():
    """Less than a tenth of the batch is padding."""
    lengths = np.random.default_rng(0).integers(10, 200, 300)

    chunks = list(iter_chunks(lengths, num_lanes=16, chunk_length=12))

    real = sum(int(c.length.sum()) for c in chunks)
    assert real / (len(chunks) * 16 * 12) > 0.9

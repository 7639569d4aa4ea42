"""Ordered batches: nothing lost, nothing repeated, time never shuffled."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from forecast.training.lanes import Chunk, iter_chunks, iter_windows

lengths = st.lists(st.integers(0, 40), min_size=1, max_size=12).map(np.array)


def steps_of(chunk: Chunk, lane: int) -> list[tuple[int, int]]:
    """Return (series, step) for each real step of a lane."""
    start, length = int(chunk.start[lane]), int(chunk.length[lane])
    return [(int(chunk.series[lane]), start + k) for k in range(length)]


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

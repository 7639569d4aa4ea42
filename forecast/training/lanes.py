"""
Ordered batches for stateful models.

A *lane* is one row of the batch. It carries whole series end to end, so that lane `i` of chunk
`k + 1` begins at the step where lane `i` of chunk `k` stopped, and the state the model left
behind is the right one to start from. Where a new series begins, `fresh` says so. Every series
begins at the start of a chunk, so that the fused recurrent call is never cut in two; its last
chunk is padded and `length` says how much of it is real.
"""

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive time steps of every lane: the unit of truncated back-propagation."""

    series: Int[np.ndarray, " lane"]
    """Index of the series that each lane is in; -1 where the lane has run out."""
    start: Int[np.ndarray, " lane"]
    """Step of that series at which the chunk begins."""
    length: Int[np.ndarray, " lane"]
    """Number of real steps in the chunk; 0 where the lane has run out."""
    fresh: Bool[np.ndarray, " lane"]
    """True where a series begins at the chunk's first step, so the carried state is dropped."""


def assign_lanes(lengths: Sequence[int] | np.ndarray, num_lanes: int) -> list[list[int]]:
    """
    Distribute series over lanes so that no lane is much longer than another.

    The longest series goes first, each to the lane that is shortest so far; ties keep their order.

    >>> assign_lanes([5, 3, 3, 1], num_lanes=2)
    [[0, 3], [1, 2]]
    """
    lanes: list[list[int]] = [[] for _ in range(num_lanes)]
    totals = [(0, lane) for lane in range(num_lanes)]
    for series in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        total, lane = heapq.heappop(totals)
        lanes[lane].append(series)
        heapq.heappush(totals, (total + int(lengths[series]), lane))
    return lanes


def iter_chunks(
    lengths: Int[np.ndarray, " series"],
    *,
    num_lanes: int,
    chunk_length: int,
    rng: np.random.Generator | None = None,
) -> Iterator[Chunk]:
    """
    Yield the chunks of one epoch in time order; each step of each series is in exactly one.

    Args:
        lengths: Steps of each series.
        num_lanes: Rows of the batch; fewer are used if there are fewer series.
        chunk_length: Steps between two gradient cuts.
        rng: Draws the order of the series; None keeps it. Time is never shuffled.
    """
    order = np.arange(len(lengths)) if rng is None else rng.permutation(len(lengths))
    order = order[lengths[order] > 0]
    blocks = -(-lengths[order] // chunk_length)
    lanes = assign_lanes(blocks, min(num_lanes, max(len(order), 1)))
    if rng is not None:
        for lane in lanes:
            rng.shuffle(lane)
    num_chunks = max((sum(int(blocks[i]) for i in lane) for lane in lanes), default=0)
    series = np.full((num_chunks, len(lanes)), -1, np.int64)
    start = np.zeros((num_chunks, len(lanes)), np.int64)
    for column, lane in enumerate(lanes):
        row = 0
        for i in lane:
            end = row + int(blocks[i])
            series[row:end, column] = order[i]
            start[row:end, column] = chunk_length * np.arange(blocks[i])
            row = end
    remaining = np.where(series >= 0, lengths[series] - start, 0)
    for k in range(num_chunks):
        length = np.minimum(remaining[k], chunk_length)
        yield Chunk(series[k], start[k], length, (series[k] >= 0) & (start[k] == 0))


def iter_windows(
    lengths: Int[np.ndarray, " series"],
    *,
    num_lanes: int,
    chunk_length: int,
    stride: int,
    rng: np.random.Generator,
) -> Iterator[Chunk]:
    """
    Yield chunks in random order, each from the zero state: the stateless mode, for comparison.

    Args:
        lengths: Steps of each series.
        num_lanes: Chunks in a batch.
        chunk_length: Steps of a chunk.
        stride: Steps from the start of one chunk of a series to the next. Chunks overlap if it is
            smaller than `chunk_length`.
        rng: Draws the order of the chunks.
    """
    counts = np.maximum(-(-np.maximum(lengths - chunk_length, 0) // stride) + 1, 0)
    counts = np.where(lengths > 0, counts, 0)
    series = np.repeat(np.arange(len(lengths)), counts)
    start = stride * (np.arange(len(series)) - np.repeat(np.cumsum(counts) - counts, counts))
    order = rng.permutation(len(series))
    for rows in np.split(order, range(num_lanes, len(order), num_lanes)):
        length = np.minimum(lengths[series[rows]] - start[rows], chunk_length)
        yield Chunk(series[rows], start[rows], length, np.ones(len(rows), np.bool_))

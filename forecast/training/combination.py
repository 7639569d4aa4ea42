"""
The simple forecasts: which one to start from, how to combine them, when to fall back on them.

What is measured here is measured on training steps, or on the steps kept for validation.

References:
    Granger & Ramanathan, Improved methods of combining forecasts, J. of Forecasting 3(2), 1984.
    Huber, Robust estimation of a location parameter, Ann. Math. Statist. 35(1), 1964.
"""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from forecast.models.network import Network
from forecast.training.dataset import Origins, TrainingSet
from forecast.training.lanes import iter_chunks
from forecast.training.objective import LossScale, evaluate, origin_point_loss

MAX_ORIGINS, MAX_SERIES = 100_000, 2000
"""Most origins that a combination is learned from, and series that the guard looks at."""
RIDGE, ROUNDS, OUTLIER = 1e-3, 4, 3.0
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
BLOCKS = 8


@torch.no_grad()
def learn_combination(
    network: Network, examples: TrainingSet, until: Int[Tensor, " series"]
) -> None:
    """
    Set the linear combination of the skip forecasts: robust least squares, horizon by horizon.

    A residual above three times the median one has the weight of one that is not. With fewer than
    fifty origins a coefficient it stays the mean.
    """
    parts = list(_sample(examples, until))
    total = sum(len(part.series) for part in parts)
    skips = parts[0].skips.shape[1] if parts else 0
    if total < 50 * (skips + 1):
        return
    x = torch.cat([part.skips for part in parts]).double().clamp(-100, 100)
    y = torch.cat([part.relative for part in parts]).double().clamp(-100, 100)
    known = torch.cat([part.known for part in parts])
    for h in range(examples.horizon):
        rows = known[:, h]
        if int(rows.sum()) < 50 * (skips + 1):
            network.point.slopes[:, h] = network.point.slopes[:, h - 1]
            network.point.intercept[h] = network.point.intercept[h - 1]
            continue
        design = torch.cat([x[rows, :, h], torch.ones(int(rows.sum()), 1).double()], dim=1)
        weight = torch.ones(len(design)).double()
        for _ in range(ROUNDS):
            gram = design.T @ (weight[:, None] * design)
            gram += RIDGE * gram.diagonal().mean() * torch.eye(len(gram)).double()
            found = torch.linalg.solve(gram, design.T @ (weight * y[rows, h]))
            if examples.spec.filters.space == "ratio":
                break  # a mean is wanted: large values count in full
            miss = (y[rows, h] - design @ found).abs()
            weight = (OUTLIER * miss.median() / miss.clamp(min=1e-12)).clamp(max=1.0)
        network.point.slopes[:, h], network.point.intercept[h] = found[:-1], found[-1]


@torch.no_grad()
def prefer_best(
    network: Network, examples: TrainingSet, yardstick: LossScale, until: Int[Tensor, " series"]
) -> None:
    """Start the mix from the simple forecast that does best on the training part."""
    totals: dict[int, float] = {}
    for origins in _sample(examples, until):
        candidates = network.point.candidates(origins.skips).clamp(-100, 100)
        for i, skip in enumerate(candidates.unbind(1)):
            loss = origin_point_loss(skip, origins, yardstick, examples)
            totals[i] = totals.get(i, 0.0) + float(torch.where(origins.known, loss, 0.0).sum())
    best = min(totals, key=lambda i: totals[i]) if totals else 0
    network.point.anchor.fill_(best)
    network.point.mix.bias[best] = 2.0


def learn_shrinkage(
    network: Network,
    examples: TrainingSet,
    yardstick: LossScale,
    *,
    first: Int[Tensor, " series"],
    until: Int[Tensor, " series"],
) -> None:
    """
    Set how far forecasts may leave the anchor, from steps that were not learned from.

    Origins are cut by date into blocks. Each block finds the share of the way from anchor to
    network that would have done best; their mean is trusted, so that no single date decides.
    """
    network.point.trust.fill_(1.0)
    rng = np.random.default_rng(0)
    rows = rng.permutation(len(examples.lengths))[:MAX_SERIES]
    chosen = torch.zeros_like(until)
    chosen[rows] = until[rows]
    span = int((until - first).max()) if len(until) else 1
    sums = np.zeros((BLOCKS, len(SHARES)))
    for origins, _, relative in evaluate(network, examples, first=first, until=chosen):
        block = ((origins.at - first[origins.series]) * BLOCKS // max(span, 1)).clamp(0, BLOCKS - 1)
        anchor = network.point.anchored(origins.skips)
        for i, share in enumerate(SHARES):
            mixed = anchor + share * (relative - anchor)
            loss = origin_point_loss(mixed, origins, yardstick, examples)
            loss = torch.where(origins.known, loss, 0.0).sum(1)
            sums[:, i] += np.bincount(block.numpy(), loss.numpy(), minlength=BLOCKS)
    seen = sums.any(axis=1)
    if seen.any():
        network.point.trust.fill_(float(np.take(SHARES, sums[seen].argmin(axis=1)).mean()))


def _sample(examples: TrainingSet, until: Int[Tensor, " series"]) -> Iterator[Origins]:
    """Origins spread over series and time, drawn without chance."""
    lengths = until.numpy()
    every = max(1, -(-int(lengths.sum()) // MAX_ORIGINS))
    rows = np.flatnonzero(lengths > 0)
    rows = rows[:: max(1, every // 8)]
    subset = np.zeros_like(lengths)
    subset[rows] = lengths[rows]
    earliest = torch.minimum(torch.full_like(until, 4), (until - 2).clamp(min=0))
    for chunk in iter_chunks(subset, num_lanes=min(len(rows), 512), chunk_length=64):
        steps = torch.arange(0, int(chunk.length.max()), min(every, 8))
        origins = examples.origins(chunk, steps, until, earliest)
        if len(origins.series):
            yield origins

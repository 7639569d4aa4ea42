"""
Learn how the skip forecasts are used: their combination, the best one, shrinkage towards it.

Combination and best skip are learned from training steps, the shrinkage from held-out steps.

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
"""Most origins for learning the combination, and most series for learning the shrinkage."""
RIDGE, ROUNDS, OUTLIER = 1e-3, 4, 3.0
"""Ridge penalty, rounds of reweighting, and the multiple of the median residual to clip at."""
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Shrinkage factors that are tried: 0 gives the simple forecast, 1 the network's."""
BLOCKS = 8
"""Blocks of dates over which the best factor is averaged."""


@torch.no_grad()
def learn_combination(
    network: Network, training_set: TrainingSet, until: Int[Tensor, " series"]
) -> None:
    """
    Set the linear combination of the skip forecasts by robust least squares, per horizon.

    Huber weights limit the influence of residuals above three times the median one. With fewer
    than 50 origins per coefficient the combination stays the mean.

    Args:
        network: The network whose combination is set.
        training_set: All series.
        until: First step of each series whose target may not be used.
    """
    parts = list(_sample_origins(training_set, until))
    total = sum(len(part.series) for part in parts)
    num_skips = parts[0].skips.shape[1] if parts else 0
    if total < 50 * (num_skips + 1):
        return
    x = torch.cat([part.skips for part in parts]).double().clamp(-100, 100)
    y = torch.cat([part.relative for part in parts]).double().clamp(-100, 100)
    known = torch.cat([part.known for part in parts])
    for h in range(training_set.horizon):
        rows = known[:, h]
        if int(rows.sum()) < 50 * (num_skips + 1):
            network.point.slopes[:, h] = network.point.slopes[:, h - 1]
            network.point.intercept[h] = network.point.intercept[h - 1]
            continue
        design = torch.cat([x[rows, :, h], torch.ones(int(rows.sum()), 1).double()], dim=1)
        weight = torch.ones(len(design)).double()
        for _ in range(ROUNDS):
            gram = design.T @ (weight[:, None] * design)
            gram += RIDGE * gram.diagonal().mean() * torch.eye(len(gram)).double()
            coefficients = torch.linalg.solve(gram, design.T @ (weight * y[rows, h]))
            if training_set.spec.filters.space == "ratio":
                break  # counts are forecast by their mean, so large values keep full weight
            residual = (y[rows, h] - design @ coefficients).abs()
            weight = (OUTLIER * residual.median() / residual.clamp(min=1e-12)).clamp(max=1.0)
        network.point.slopes[:, h] = coefficients[:-1]
        network.point.intercept[h] = coefficients[-1]


@torch.no_grad()
def choose_best_skip(
    network: Network,
    training_set: TrainingSet,
    loss_scale: LossScale,
    until: Int[Tensor, " series"],
) -> None:
    """Choose the simple forecast with the least loss on the training part and start from it."""
    totals: dict[int, float] = {}
    for origins in _sample_origins(training_set, until):
        candidates = network.point.candidates(origins.skips).clamp(-100, 100)
        for i, skip in enumerate(candidates.unbind(1)):
            loss = origin_point_loss(skip, origins, loss_scale, training_set)
            totals[i] = totals.get(i, 0.0) + float(torch.where(origins.known, loss, 0.0).sum())
    best = min(totals, key=lambda i: totals[i]) if totals else 0
    network.point.best_skip.fill_(best)
    network.point.mix.bias[best] = 2.0


def learn_shrinkage(
    network: Network,
    training_set: TrainingSet,
    loss_scale: LossScale,
    *,
    first: Int[Tensor, " series"],
    until: Int[Tensor, " series"],
) -> None:
    """
    Set how far forecasts are shrunk towards the best skip, from steps that were not learned from.

    Origins are split by time into blocks. The factor is the mean over the blocks of the one in
    `SHARES` with the least loss, so that no single date decides.

    Args:
        network: The network whose shrinkage is set.
        training_set: All series.
        loss_scale: Scale of the losses.
        first: First origin of each series that is used.
        until: Targets at or past this step of their series are not used.
    """
    network.point.shrinkage.fill_(1.0)
    rng = np.random.default_rng(0)
    rows = rng.permutation(len(training_set.lengths))[:MAX_SERIES]
    sampled = torch.zeros_like(until)
    sampled[rows] = until[rows]
    span = int((until - first).max()) if len(until) else 1
    sums = np.zeros((BLOCKS, len(SHARES)))
    for origins, _, relative in evaluate(network, training_set, first=first, until=sampled):
        block = (origins.position - first[origins.series]) * BLOCKS // max(span, 1)
        block = block.clamp(0, BLOCKS - 1)
        best = network.point.best_skip_forecast(origins.skips)
        for i, share in enumerate(SHARES):
            mixed = best + share * (relative - best)
            loss = origin_point_loss(mixed, origins, loss_scale, training_set)
            loss = torch.where(origins.known, loss, 0.0).sum(1)
            sums[:, i] += np.bincount(block.numpy(), loss.numpy(), minlength=BLOCKS)
    seen = sums.any(axis=1)
    if seen.any():
        network.point.shrinkage.fill_(float(np.take(SHARES, sums[seen].argmin(axis=1)).mean()))


def _sample_origins(training_set: TrainingSet, until: Int[Tensor, " series"]) -> Iterator[Origins]:
    """Yield at most about `MAX_ORIGINS` origins, spread evenly over series and time."""
    lengths = until.numpy()
    every = max(1, -(-int(lengths.sum()) // MAX_ORIGINS))
    rows = np.flatnonzero(lengths > 0)
    rows = rows[:: max(1, every // 8)]
    subset = np.zeros_like(lengths)
    subset[rows] = lengths[rows]
    earliest = torch.minimum(torch.full_like(until, 4), (until - 2).clamp(min=0))
    for chunk in iter_chunks(subset, num_lanes=min(len(rows), 512), chunk_length=64):
        steps = torch.arange(0, int(chunk.length.max()), min(every, 8))
        origins = training_set.origins(chunk, steps, until, earliest)
        if len(origins.series):
            yield origins

"""
Calibration of the quantiles and shrinkage of the network, both learned from held-out steps.

The first phase of training does not learn from the last steps of each series. The network has not
seen their targets, so its errors there are like those it will make in service.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from forecast.models.conformal import (
    apply_factors,
    fit_factors,
    neighbour_correlation,
    normal_scores,
)
from forecast.models.contract import ForecastNetwork
from forecast.models.ensemble import Ensemble
from forecast.models.network import Network
from forecast.models.quantile_head import QuantileHead, Quantiles
from forecast.training.combination import SHARES, learn_shrinkage
from forecast.training.losses import pinball
from forecast.training.objective import TrainingTask, evaluate

MAX_CALIBRATED, MAX_TARGETS, MAX_ORIGINS = 4000, 8_000_000, 10_000
"""Most series and targets used for calibration, and most origins used for spread shrinkage."""
LEAST_GAIN = 0.03
"""Least relative gain in quantile loss for which the spread of the network is shrunk."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """Conformal calibration of the quantiles' distances from the median."""

    factors: Float[np.ndarray, "two horizon upper"]
    """Factors of the distances: [0] below the median, [1] above it."""
    log_widths: Float[np.ndarray, "two horizon upper"] | None = None
    """Mean logarithms of the distances that the factors were fitted to; None if there are none."""
    correlation: float = 0.0
    """Correlation of the normal scores of neighbouring steps ahead."""


class HeldOut(NamedTuple):
    """Inputs of the quantile head at held-out origins, and the targets that came true."""

    series: Int[Tensor, " origin"]
    memory: Float[Tensor, "origin memory"]
    point: Float[Tensor, "origin horizon"]
    """Relative point forecasts."""
    target: Float[Tensor, "origin horizon"]
    """Relative targets."""
    known: Bool[Tensor, "origin horizon"]


@torch.no_grad()
def calibrate(network: Network, task: TrainingTask, until: Int[Tensor, " series"]) -> Calibration:
    """
    Learn the shrinkage of a network and calibrate its quantiles.

    Both use the held-out steps. Without any (`val_size` is 0) the network is not shrunk, and the
    quantiles are calibrated on the last steps that it learned from.

    Args:
        network: The network, whose shrinkage of point forecast and spread is set.
        task: Data and settings, held-out steps included.
        until: First held-out step of each series.
    """
    training_set = task.training_set
    if task.train.val_size and task.config.data.kind != "price":
        learn_shrinkage(
            network, training_set, task.loss_scale, first=until - 1, until=training_set.lengths
        )
    held_out = _held_out(network, task, until)
    if held_out is not None and task.train.val_size and bool(held_out.known.any()):
        learn_spread_shrinkage(
            network.quantiles, held_out, task.upper, _num_independent(task, until)
        )
    return _fit_calibration(network, held_out, task, until)


@torch.no_grad()
def calibrate_ensemble(
    network: Ensemble, calibrated: Ensemble, task: TrainingTask, until: Int[Tensor, " series"]
) -> Calibration:
    """
    Calibrate the members of an ensemble as one model: their mean errs less than each of them.

    Args:
        network: The members at the end of training.
        calibrated: The members as they were when each was calibrated.
        task: The task of any member.
        until: First held-out step of each series.
    """
    held_out = _held_out(calibrated, task, until)
    calibration = _fit_calibration(calibrated, held_out, task, until)
    return rescale_widths(network, task, until, calibration)


def _fit_calibration(
    network: ForecastNetwork,
    held_out: HeldOut | None,
    task: TrainingTask,
    until: Int[Tensor, " series"],
) -> Calibration:
    if held_out is None:
        return Calibration(np.ones((2, task.training_set.horizon, len(task.upper))))
    residual, distances = _residual_and_distances(network.quantiles, held_out)
    known = held_out.known.numpy()
    factors = fit_factors(residual, distances, known, task.upper, _num_independent(task, until))
    scores = normal_scores(residual, apply_factors(distances, factors), task.upper)
    return Calibration(factors, _mean_logs(distances), neighbour_correlation(scores, known))


def _num_independent(task: TrainingTask, until: Int[Tensor, " series"]) -> float:
    """Return how many forecasts that do not overlap the held-out steps hold."""
    horizons = (task.training_set.lengths - until) / task.training_set.horizon
    return float(horizons.clamp(min=1).sum())


@torch.no_grad()
def rescale_widths(
    network: ForecastNetwork,
    task: TrainingTask,
    until: Int[Tensor, " series"],
    calibration: Calibration,
) -> Calibration:
    """
    Rescale the factors so that intervals stay as wide, at the same origins, as when calibrated.

    The network may have learned from the held-out steps since, so that its errors there no longer
    tell how wide the intervals should be.
    """
    if calibration.log_widths is None:
        return calibration
    held_out = _held_out(network, task, until)
    assert held_out is not None  # the origins are those that gave the widths
    _, distances = _residual_and_distances(network.quantiles, held_out)
    factors = calibration.factors * np.exp(calibration.log_widths - _mean_logs(distances))
    return replace(calibration, factors=factors)


def learn_spread_shrinkage(
    head: QuantileHead, held_out: HeldOut, upper: tuple[float, ...], independent: float
) -> None:
    """
    Set how far the spread may depend on memory: the share with the least quantile loss.

    At 0 the spread is the usual one of its horizon, at 1 that of the network. The spreads of a few
    overfitted series say nothing about other steps. Each share is calibrated before it is scored,
    so that only differences between origins count. Losses are compared series by series, and a
    gain below `LEAST_GAIN` is ignored, since it may hold for these steps alone.

    Args:
        head: The quantile head whose shrinkage is set.
        held_out: Origins that were not learned from.
        upper: Quantiles above the median.
        independent: Number of forecasts that do not overlap, as in `fit_factors`.
    """
    held_out = HeldOut(*(part[:: -(-len(part) // MAX_ORIGINS)] for part in held_out))
    losses = []
    for share in SHARES:
        head.shrinkage.fill_(share)
        residual, distances = _residual_and_distances(head, held_out)
        factors = fit_factors(residual, distances, held_out.known.numpy(), upper, independent)
        widened = torch.from_numpy(apply_factors(distances, factors))
        loss = pinball(torch.from_numpy(residual), widened, upper, with_median=True)
        loss = torch.where(held_out.known, loss, 0.0).sum(1)
        losses.append(np.bincount(held_out.series, loss))
    by_series = np.array(losses)[:, losses[-1] > 0]
    gains = 1 - np.exp(np.log(by_series / by_series[-1]).mean(axis=1))
    best = int(gains.argmax())
    head.shrinkage.fill_(SHARES[best] if gains[best] >= LEAST_GAIN else 1.0)


def _held_out(
    network: ForecastNetwork, task: TrainingTask, until: Int[Tensor, " series"]
) -> HeldOut | None:
    """
    Run the network and return its held-out origins, or None if there are none with a target.

    Without held-out steps the origins are the last ones that were learned from. The seed draws at
    most `MAX_CALIBRATED` series; their origins are thinned evenly to at most `MAX_TARGETS` targets.
    """
    training_set, lengths = task.training_set, task.sample_lengths(MAX_CALIBRATED)
    if task.train.val_size:
        first = until - 1
    else:
        first = (training_set.lengths - 2 * training_set.horizon - 1).clamp(min=0)
    num_targets = int((lengths - first).clamp(min=0).sum()) * training_set.horizon
    every = max(1, -(-num_targets // MAX_TARGETS))
    parts = [
        HeldOut(
            *(
                part[::every]
                for part in (origins.series, memory, point, origins.relative, origins.known)
            )
        )
        for origins, memory, point in evaluate(network, training_set, first=first, until=lengths)
    ]
    return HeldOut(*(torch.cat(column) for column in zip(*parts, strict=True))) if parts else None


def _residual_and_distances(
    head: Callable[..., Quantiles], held_out: HeldOut
) -> tuple[Float[np.ndarray, "origin horizon"], Float[np.ndarray, "origin two horizon upper"]]:
    """Return target minus median, and the quantiles' distances from the median."""
    quantiles = head(held_out.memory, held_out.point)
    return (held_out.target - quantiles.median).numpy(), quantiles.distances.numpy()


def _mean_logs(
    distances: Float[np.ndarray, "origin two horizon upper"],
) -> Float[np.ndarray, "two horizon upper"]:
    """Return the mean logarithm of each distance over the origins."""
    logs: np.ndarray = np.log(np.maximum(distances, 1e-9), dtype=np.float64).mean(axis=0)
    return logs

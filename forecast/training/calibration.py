"""
What the steps that were kept back decide: how far to trust the network, how wide intervals are.

A leg of training leaves the last steps of each series alone. Their targets are new to the
network, so its errors there are those it will make.
"""

from collections.abc import Callable
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
from forecast.models.ensemble import Ensemble
from forecast.models.network import Network
from forecast.models.quantile_head import QuantileHead, Quantiles
from forecast.training.combination import SHARES, learn_shrinkage
from forecast.training.losses import pinball
from forecast.training.objective import TrainingTask, evaluate
from forecast.training.progress import Progress

MAX_CALIBRATED, MAX_TARGETS, MAX_ORIGINS = 4000, 8_000_000, 10_000
"""Most series and targets calibrated on, and origins that the guard of the spread looks at."""
LEAST_GAIN = 0.03
"""Of the quantile loss, for which the network's spread is left."""


class HeldOut(NamedTuple):
    """What the quantiles are read from at the origins a leg kept back, and what came true."""

    series: Int[Tensor, " origin"]
    memory: Float[Tensor, "origin memory"]
    point: Float[Tensor, "origin horizon"]
    target: Float[Tensor, "origin horizon"]
    known: Bool[Tensor, "origin horizon"]


@torch.no_grad()
def calibrate(
    network: Network, lesson: TrainingTask, until: Int[Tensor, " series"], progress: Progress
) -> None:
    """
    Guard and calibrate: on the steps that were kept back, else on the last of those learned.

    Leaves in `progress` the calibration factors, the mean logarithms of the distances they are
    for, and the correlation of neighbouring steps.

    Args:
        network: Its trust, in the point and in the spread, is set.
        lesson: All steps, those kept as well.
        until: The first step of each series that was kept.
        progress: Of the run.
    """
    if lesson.train.val_size and lesson.config.data.kind != "price":
        learn_shrinkage(
            network,
            lesson.examples,
            lesson.yardstick,
            first=until - 1,
            until=lesson.examples.lengths,
        )
    late = _late(network, lesson, until)
    if late is not None and lesson.train.val_size and bool(late.known.any()):
        learn_spread_shrinkage(network.quantiles, late, lesson.upper, _independent(lesson, until))
    _fit_calibration(network, late, lesson, until, progress)
    progress.settled = {name: value.clone() for name, value in network.state_dict().items()}


@torch.no_grad()
def calibrate_ensemble(
    network: Ensemble, before: Ensemble, lesson: TrainingTask, until: Int[Tensor, " series"]
) -> Progress:
    """
    Calibrate members as the one model they are: their mean errs less than each of them.

    Args:
        network: The members as they are now.
        before: As they were when each was calibrated.
        lesson: Of any of them.
        until: The first step of each series that was kept.

    Returns:
        What `calibrate` leaves, and `rescale_widths` after it.
    """
    progress = Progress()
    _fit_calibration(before, _late(before, lesson, until), lesson, until, progress)
    if progress.widths is not None:
        rescale_widths(network, lesson, until, progress)
    return progress


def _fit_calibration(
    network: Network | Ensemble,
    late: HeldOut | None,
    lesson: TrainingTask,
    until: Int[Tensor, " series"],
    progress: Progress,
) -> None:
    if late is None:
        progress.factors = np.ones((2, lesson.examples.horizon, len(lesson.upper)))
        return
    missed, distances = _spread(network.quantiles, late)
    known = late.known.numpy()
    independent = _independent(lesson, until)
    progress.factors = fit_factors(missed, distances, known, lesson.upper, independent)
    progress.widths = _logs(distances)
    scores = normal_scores(missed, apply_factors(distances, progress.factors), lesson.upper)
    progress.correlation = neighbour_correlation(scores, known)


def _independent(lesson: TrainingTask, until: Int[Tensor, " series"]) -> float:
    """How many forecasts the steps kept hold that do not overlap."""
    whole = (lesson.examples.lengths - until) / lesson.examples.horizon
    return float(whole.clamp(min=1).sum())


@torch.no_grad()
def rescale_widths(
    network: Network | Ensemble,
    lesson: TrainingTask,
    until: Int[Tensor, " series"],
    progress: Progress,
) -> None:
    """
    Make up for how the distances changed, at the same origins, since they were calibrated.

    What was learned since is in them: the errors there can no longer tell how wide to be.
    """
    assert progress.factors is not None
    assert progress.widths is not None
    late = _late(network, lesson, until)
    assert late is not None  # or there would be no widths
    _, distances = _spread(network.quantiles, late)
    progress.factors = progress.factors * np.exp(progress.widths - _logs(distances))


def learn_spread_shrinkage(
    head: QuantileHead, late: HeldOut, upper: tuple[float, ...], independent: float
) -> None:
    """
    Set how far a spread may leave what is usual at its step: the share that costs least.

    Each share is calibrated first: what is compared is whether memory tells one spread from
    another. A few series learned by heart have spreads that say nothing of other steps. Costs are
    compared series by series, and a small gain is not enough: it may be of these steps alone.

    Args:
        head: Its trust is set.
        late: What was not learned from.
        upper: The quantiles above the median.
        independent: As in `fit_factors`.
    """
    late = HeldOut(*(part[:: -(-len(part) // MAX_ORIGINS)] for part in late))
    costs = []
    for share in SHARES:
        head.trust.fill_(share)
        missed, distances = _spread(head, late)
        factors = fit_factors(missed, distances, late.known.numpy(), upper, independent)
        wide = torch.from_numpy(apply_factors(distances, factors))
        loss = pinball(torch.from_numpy(missed), wide, upper, with_median=True)
        loss = torch.where(late.known, loss, 0.0).sum(1)
        costs.append(np.bincount(late.series, loss))
    of_all = np.array(costs)[:, costs[-1] > 0]
    gains = 1 - np.exp(np.log(of_all / of_all[-1]).mean(axis=1))
    best = int(gains.argmax())
    head.trust.fill_(SHARES[best] if gains[best] >= LEAST_GAIN else 1.0)


def _late(
    network: Network | Ensemble, lesson: TrainingTask, until: Int[Tensor, " series"]
) -> HeldOut | None:
    """Series are drawn by the seed, origins spread evenly; None where nothing can be forecast."""
    examples, some = lesson.examples, lesson.some(MAX_CALIBRATED)
    kept = bool(lesson.train.val_size)
    first = until - 1 if kept else (examples.lengths - 2 * examples.horizon - 1).clamp(min=0)
    targets = int((some - first).clamp(min=0).sum()) * examples.horizon
    every = max(1, -(-targets // MAX_TARGETS))
    parts = [
        HeldOut(
            *(
                part[::every]
                for part in (origins.series, memory, point, origins.relative, origins.known)
            )
        )
        for origins, memory, point in evaluate(network, examples, first=first, until=some)
    ]
    return HeldOut(*(torch.cat(column) for column in zip(*parts, strict=True))) if parts else None


def _spread(head: Callable[..., Quantiles], late: HeldOut) -> tuple[np.ndarray, np.ndarray]:
    """Target minus median, and the distances from it."""
    made = head(late.memory, late.point)
    return (late.target - made.median).numpy(), made.distances.numpy()


def _logs(distances: np.ndarray) -> Float[np.ndarray, "two horizon upper"]:
    """Mean logarithms."""
    logs: np.ndarray = np.log(np.maximum(distances, 1e-9), dtype=np.float64).mean(axis=0)
    return logs

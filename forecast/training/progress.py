"""Progress of a training run: its position, and the events it reports."""

import time
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from forecast.models.recurrent import State
from forecast.training.calibration import Calibration


@dataclass(frozen=True, slots=True)
class TrainEvent:
    """A report of a training run, made about a hundred times."""

    step: int
    steps: int
    epoch: int
    loss: float
    """
    Mean point loss since the last report.

    A loss of 1 is that of the seasonal naive on the training part.
    """
    quantile_loss: float
    """Mean quantile loss since the last report."""
    grad_norm: float
    """Mean gradient norm before clipping."""
    clipped: float
    """Share of the steps whose gradient was clipped."""
    epoch_loss: float | None
    """Mean point loss of the last epoch that ended since the last report; None if none ended."""
    val_loss: float | None
    """Validation loss; None if this step was not validated."""
    observations_per_s: float
    seconds: float
    """Seconds since the run began or was resumed."""


@dataclass(slots=True)
class Progress:
    """Everything a run needs to go on, beside the weights and the optimiser."""

    step: int = 0
    """Optimiser steps done."""
    epoch: int = 0
    chunk: int = 0
    """Chunks of this epoch that were already learned from."""
    best_loss: float = float("inf")
    """Best validation loss so far."""
    bad_checks: int = 0
    """Validations in a row that did not improve on it."""
    state: State | None = None
    """State carried to the next chunk; None at the start of an epoch."""
    phase: int = 0
    """Index of the current phase."""
    phase_start: int = 0
    """Step at which the current phase began."""
    calibration: Calibration | None = None
    """Calibration of the quantiles, set at the end of the first phase."""
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    """Weights with the best validation loss, kept if the run has a `patience`."""
    calibrated_weights: dict[str, Tensor] = field(default_factory=dict)
    """Weights at the end of the first phase, for which `calibration` was measured."""
    history: list[TrainEvent] = field(default_factory=list)

    def next_phase(self) -> None:
        """Begin the next phase, with a new epoch and the zero state."""
        self.phase, self.phase_start = self.phase + 1, self.step
        self.epoch, self.chunk, self.state = self.epoch + 1, 0, None
        self.best_weights, self.bad_checks = {}, 0


class RunningMeans:
    """
    Averages losses and gradient norms over the steps since the last report.

    If no step since then had a target, the report repeats the last means.
    """

    def __init__(self, max_grad_norm: float) -> None:
        self.max_grad_norm = max_grad_norm
        self.run_start = self.last_report = time.perf_counter()
        self.means = np.zeros(4)
        self.sums, self.count, self.observations = np.zeros(4), 0, 0
        self.epoch, self.epoch_losses = -1, list[float]()
        self.epoch_loss: float | None = None

    def add(self, losses: tuple[Tensor, Tensor], norm: Tensor, epoch: int) -> None:
        """
        Add one optimiser step.

        Args:
            losses: Point loss and quantile loss.
            norm: Norm of the gradient before clipping.
            epoch: Epoch that the step belongs to.
        """
        point, quantile, grad_norm = losses[0].item(), losses[1].item(), norm.item()
        if epoch != self.epoch:
            if self.epoch_losses:
                self.epoch_loss = sum(self.epoch_losses) / len(self.epoch_losses)
            self.epoch, self.epoch_losses = epoch, []
        self.epoch_losses.append(point)
        self.sums += [point, quantile, grad_norm, grad_norm > self.max_grad_norm]
        self.count += 1

    def event(self, progress: Progress, steps: int, val_loss: float | None) -> TrainEvent:
        """Return the report and start new means."""
        now = time.perf_counter()
        if self.count:
            self.means = self.sums / self.count
        loss, quantile_loss, norm, clipped = self.means.tolist()
        if progress.step == steps and self.epoch_losses:
            self.epoch_loss = sum(self.epoch_losses) / len(self.epoch_losses)
        event = TrainEvent(
            step=progress.step,
            steps=steps,
            epoch=progress.epoch,
            loss=loss,
            quantile_loss=quantile_loss,
            grad_norm=norm,
            clipped=clipped,
            epoch_loss=self.epoch_loss,
            val_loss=val_loss,
            observations_per_s=self.observations / (now - self.last_report),
            seconds=now - self.run_start,
        )
        self.last_report, self.sums, self.count, self.observations = now, np.zeros(4), 0, 0
        self.epoch_loss = None
        return event

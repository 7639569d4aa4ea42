"""What a training run reports: means since the last report."""

import time
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float
from torch import Tensor

from forecast.models.recurrent import State


@dataclass(frozen=True, slots=True)
class TrainEvent:
    """Where a run is: reported about a hundred times."""

    step: int
    steps: int
    epoch: int
    loss: float
    """Mean point loss since the last report; 1 is the seasonal naive on the training part."""
    quantile_loss: float
    grad_norm: float
    """Mean gradient norm before clipping."""
    clipped: float
    """Share of the steps whose gradient was clipped."""
    epoch_loss: float | None
    """Mean point loss of the last epoch that ended since then, if one did."""
    val_loss: float | None
    observations_per_s: float
    seconds: float


@dataclass(slots=True)
class Progress:
    """What a run knows beside weights and optimiser."""

    step: int = 0
    epoch: int = 0
    chunk: int = 0
    """Chunks of this epoch already learned from."""
    best_loss: float = float("inf")
    bad_checks: int = 0
    state: State | None = None
    """The state carried to the next chunk; None at the start of an epoch."""
    leg: int = 0
    leg_begin: int = 0
    """Step at which the leg began."""
    factors: Float[np.ndarray, "two horizon upper"] | None = None
    """Of the calibration, once measured."""
    widths: Float[np.ndarray, "two horizon upper"] | None = None
    """Mean logarithms of the distances that were calibrated."""
    correlation: float = 0.0
    """Of neighbouring steps ahead, measured with them."""
    best: dict[str, Tensor] = field(default_factory=dict)
    settled: dict[str, Tensor] = field(default_factory=dict)
    """The weights that were calibrated, before those that learned from the steps kept back."""
    history: list[TrainEvent] = field(default_factory=list)

    def turn(self) -> None:
        """End a leg: the next one begins a new epoch, from the zero state."""
        self.leg, self.leg_begin = self.leg + 1, self.step
        self.epoch, self.chunk, self.state = self.epoch + 1, 0, None
        self.best, self.bad_checks = {}, 0


class RunningMeans:
    """Adds up what each step gave; where nothing had a target, the last means stand."""

    def __init__(self, max_grad_norm: float) -> None:
        self.max_grad_norm = max_grad_norm
        self.begin = self.since = time.perf_counter()
        self.means = np.zeros(4)
        self.sums, self.count, self.observations = np.zeros(4), 0, 0
        self.epoch, self.of_epoch = -1, list[float]()
        self.epoch_loss: float | None = None

    def add(self, losses: tuple[Tensor, Tensor], norm: Tensor, epoch: int) -> None:
        """One optimiser step: point and quantile loss, and the gradient's norm before clipping."""
        point, quantile, size = losses[0].item(), losses[1].item(), norm.item()
        if epoch != self.epoch:
            if self.of_epoch:
                self.epoch_loss = sum(self.of_epoch) / len(self.of_epoch)
            self.epoch, self.of_epoch = epoch, []
        self.of_epoch.append(point)
        self.sums += [point, quantile, size, size > self.max_grad_norm]
        self.count += 1

    def event(self, progress: Progress, steps: int, val_loss: float | None) -> TrainEvent:
        """The report, and a fresh start."""
        now = time.perf_counter()
        if self.count:
            self.means = self.sums / self.count
        loss, quantile_loss, norm, clipped = self.means.tolist()
        if progress.step == steps and self.of_epoch:
            self.epoch_loss = sum(self.of_epoch) / len(self.of_epoch)
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
            observations_per_s=self.observations / (now - self.since),
            seconds=now - self.begin,
        )
        self.since, self.sums, self.count, self.observations = now, np.zeros(4), 0, 0
        self.epoch_loss = None
        return event

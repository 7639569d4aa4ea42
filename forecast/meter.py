"""What a training run reports: means since the last report."""

import time

import numpy as np
from torch import Tensor

from forecast.checkpoints import Progress, TrainEvent


class Meter:
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
            step=progress.step, steps=steps, epoch=progress.epoch, loss=loss,
            quantile_loss=quantile_loss, grad_norm=norm, clipped=clipped,
            epoch_loss=self.epoch_loss, val_loss=val_loss,
            observations_per_s=self.observations / (now - self.since), seconds=now - self.begin,
        )  # fmt: skip
        self.since, self.sums, self.count, self.observations = now, np.zeros(4), 0, 0
        self.epoch_loss = None
        return event

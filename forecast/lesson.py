"""What a training run learns from: the same at every step."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from forecast.config import Config, TrainConfig
from forecast.evaluation import Yardstick
from forecast.examples import Examples


@dataclass(frozen=True, slots=True)
class Lesson:
    """The examples of a run and how its losses are taken."""

    examples: Examples
    config: Config
    yardstick: Yardstick

    @property
    def train(self) -> TrainConfig:
        return self.config.train

    @property
    def upper(self) -> tuple[float, ...]:
        """The quantiles above the median."""
        return tuple(q for q in self.config.model.quantiles if q > 0.5)

    def some(self, most: int) -> Int[Tensor, " series"]:
        """The lengths of some series, drawn by the seed; 0 for the others, which are not read."""
        lengths = self.examples.lengths
        rows = np.random.default_rng(self.train.seed).permutation(len(lengths))[:most]
        until = torch.zeros_like(lengths)
        until[rows] = lengths[rows]
        return until

"""The quantile head: quantiles as distances from the median."""

import itertools
import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from forecast.features.filter_spec import FilterSpec
from forecast.models.skip import LEAST

NEUTRAL = math.log(math.e - 1)
"""Argument for which softplus is 1."""


def softplus(x: Float[Tensor, "*size"]) -> Float[Tensor, "*size"]:
    """
    Compute softplus with the same bits wherever in a tensor a value lies, unlike torch's.

    >>> softplus(torch.tensor([-100.0, 0.0, 100.0])).round(decimals=3)
    tensor([ 0.0000,  0.6930, 80.0000])
    """
    return x.clamp(max=80).exp().log1p()


class Quantiles(NamedTuple):
    """Quantiles of a forecast."""

    median: Float[Tensor, "*origin horizon"]
    distances: Float[Tensor, "*origin two horizon upper"]
    """Positive distances from the median, below ([0]) and above ([1]), growing outwards."""


class QuantileHead(nn.Module):
    """
    Forecasts the distances of the quantiles above and below the median.

    A distance is a width, which depends on memory and horizon, times a shape learned for each
    horizon. Shapes increase with the quantile by construction, so quantiles never cross. The start
    is a normal distribution that widens with the square root of the horizon. The point forecast is
    the median, unless it is a mean (`shifted`): then the median is learned as well.

    `shrinkage` is the share of its distance from the usual width of its horizon that a width keeps.
    It also holds during training.
    """

    def __init__(
        self,
        spec: FilterSpec,
        memory: int,
        hidden: int,
        horizon: int,
        upper: tuple[float, ...],
        *,
        shifted: bool,
    ) -> None:
        super().__init__()
        self.ratio, self.shifted = spec.space == "ratio", shifted
        self.inner = nn.Linear(memory + (horizon if self.ratio else 0), hidden)
        self.outer = nn.Linear(hidden, (3 if shifted else 2) * horizon)
        normal = torch.distributions.Normal(0.0, 1.0).icdf(torch.tensor(upper))
        steps = torch.diff(normal, prepend=torch.zeros(1))
        shape = (steps.expm1().log()).repeat(2, horizon, 1)
        self.shape = nn.Parameter(shape)
        growth = torch.arange(1, horizon + 1, dtype=torch.float32).sqrt()
        growth = growth / growth[-1] * math.sqrt(min(horizon, 12))
        self.register_buffer("growth", torch.ones(horizon) if self.ratio else growth)
        self.growth: Tensor
        self.register_buffer("trust", torch.ones(()))
        self.trust: Tensor
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)
        if self.ratio:  # For counts, how a shape depends on the memory is learned as well.
            self.tilt = nn.Linear(hidden, 2 * len(upper))
            nn.init.zeros_(self.tilt.weight)
            nn.init.zeros_(self.tilt.bias)

    @property
    def shrinkage(self) -> Tensor:
        """Shrinkage factor of the widths; stored in bundles as `trust`."""
        return self.trust

    def forward(
        self,
        memory: Float[Tensor, "*origin memory"],
        point: Float[Tensor, "*origin horizon"],
        nearest: int | None = None,
    ) -> Quantiles:
        """
        Return median and distances.

        Args:
            memory: Memory of the network at each origin.
            point: Relative point forecast.
            nearest: Number of distances, from the median outwards; None returns all.
        """
        seen = memory
        if self.ratio:
            seen = torch.cat([memory, point.clamp(min=LEAST).log()], dim=-1)
        inner = functional.silu(self.inner(seen))
        parts = self.outer(inner).unflatten(-1, (-1, self.growth.shape[0]))
        widths = parts[..., :2, :]
        if bool(self.shrinkage < 1):
            usual = self.outer.bias.unflatten(0, (-1, self.growth.shape[0]))[:2]
            widths, inner = torch.lerp(usual, widths, self.shrinkage), self.shrinkage * inner
        width = softplus(widths) * self.growth
        # Long rows of horizons are faster than short rows of quantiles.
        shape = self.shape[..., :nearest].mT.contiguous()
        if self.ratio:
            width = width * point.clamp(min=0.05).sqrt()[..., None, :]
            tilt = self.tilt(inner).unflatten(-1, (2, -1, 1))
            shape = shape + tilt[..., :nearest, :]
        grown = torch.stack([*itertools.accumulate(softplus(shape).unbind(-2))], dim=-2)
        distances = (width[..., None, :] * grown).mT
        median = point
        if self.shifted and self.ratio:
            median = point * softplus(parts[..., 2, :] + NEUTRAL)
        elif self.shifted:
            median = point + parts[..., 2, :]
        return Quantiles(median, distances)

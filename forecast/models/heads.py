"""
From what the network remembers to forecasts: a learned mix of simple ones, and a correction.

All values are *relative*: distance from the running level at the origin, in units of the series.

References:
    Wen et al., A multi-horizon quantile recurrent forecaster, 2017 (direct, forking sequences).
    Bates & Granger, The combination of forecasts, Operational Research Quarterly 20(4), 1969.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from forecast.filters import TRENDS, UNIT, VALUE

CORRECTION = 3.0
"""Units that one unit of the correction head stands for."""


def skip_forecasts(
    columns: Float[Tensor, "*origin column"],
    seasons: Float[Tensor, "*origin season two horizon"],
    horizon: int,
) -> Float[Tensor, "*origin skip horizon"]:
    """
    The simple forecasts at each origin: naive, smoothed, damped trends, and two a season.

    Args:
        columns: As `filters` lays them out: value, level, unit, smooth, (level, slope) a trend.
        seasons: Value and profile at the target's phase of the last season; NaN where unknown.
        horizon: Steps ahead.
    """
    level, unit = columns[..., 1:2], columns[..., UNIT : UNIT + 1]
    flat = [
        ((columns[..., i : i + 1] - level) / unit).expand(*columns.shape[:-1], horizon)
        for i in (VALUE, 3)
    ]
    for i, (_, _, damping) in enumerate(TRENDS):
        start, slope = columns[..., 4 + 2 * i, None], columns[..., 5 + 2 * i, None]
        grown = damping ** torch.arange(1, horizon + 1, device=columns.device)
        flat.append((start - level + slope * grown.cumsum(0)) / unit)
    for i in range(seasons.shape[-3]):
        flat.append(((seasons[..., i, 0, :] - level) / unit).nan_to_num(0.0))
        flat.append((seasons[..., i, 1, :] / unit).nan_to_num(0.0))
    return torch.stack(flat, dim=-2)


def num_skips(num_seasons: int) -> int:
    """How many simple forecasts there are."""
    return 2 + len(TRENDS) + 2 * num_seasons


class PointHead(nn.Module):
    """
    Mixes the skip forecasts and corrects the mix, all horizons at once.

    Zero-initialised: before training it gives the softmax of `preference` over the skips.
    Known-future covariates of the target step enter as a product of what the network remembers
    and what the target's covariates say, the same map for every horizon.
    """

    def __init__(
        self, memory: int, hidden: int, horizon: int, num_seasons: int, num_future: int
    ) -> None:
        super().__init__()
        self.mix = nn.Linear(memory, num_skips(num_seasons))
        self.inner = nn.Linear(memory + 2 * num_seasons * horizon, 2 * hidden)
        self.outer = nn.Linear(2 * hidden, horizon)
        zeroed = [self.mix, self.outer]
        self.num_future = num_future
        if num_future:
            self.future = nn.Sequential(
                nn.Linear(num_future, hidden), nn.SiLU(), nn.Linear(hidden, hidden // 2)
            )
            self.effect = nn.Linear(memory, hidden // 2)
            zeroed.append(self.effect)
        for layer in zeroed:
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(
        self,
        memory: Float[Tensor, "*origin memory"],
        skips: Float[Tensor, "*origin skip horizon"],
        future: Float[Tensor, "*origin horizon future"],
    ) -> Float[Tensor, "*origin horizon"]:
        """The relative point forecast of each horizon."""
        mixed = (self.mix(memory).softmax(-1)[..., None] * skips).sum(-2)
        seasonal = (skips[..., 2 + len(TRENDS) :, :] / CORRECTION).clamp(-6, 6)
        seen = torch.cat([memory, seasonal.flatten(-2)], dim=-1)
        correction = self.outer(functional.silu(self.inner(seen)))
        if self.num_future:
            effect = self.effect(memory)[..., None, :] * self.future(future)
            correction = correction + effect.sum(-1) / math.sqrt(effect.shape[-1])
        relative: Tensor = mixed + CORRECTION * correction
        return relative.clamp(-100, 100)


class QuantileHead(nn.Module):
    """
    Distances of the quantiles above and below the point forecast, which is the median.

    Each is a width that depends on memory and horizon, times a shape learned for each horizon:
    rising in the quantile by construction, so that quantiles never cross. It starts as a normal
    distribution that widens with the square root of the horizon.
    """

    def __init__(self, memory: int, hidden: int, horizon: int, upper: tuple[float, ...]) -> None:
        super().__init__()
        self.inner = nn.Linear(memory, hidden)
        self.outer = nn.Linear(hidden, 2 * horizon)
        normal = torch.distributions.Normal(0.0, 1.0).icdf(torch.tensor(upper))
        steps = torch.diff(normal, prepend=torch.zeros(1))
        shape = (steps.expm1().log()).repeat(2, horizon, 1)
        self.shape = nn.Parameter(shape)
        growth = torch.arange(1, horizon + 1, dtype=torch.float32).sqrt()
        self.register_buffer("growth", growth / growth[-1] * math.sqrt(min(horizon, 12)))
        self.growth: Tensor
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def forward(
        self, memory: Float[Tensor, "*origin memory"]
    ) -> Float[Tensor, "*origin two horizon upper"]:
        """Distances, all positive: [0] below and [1] above, growing away from the median."""
        width: Tensor = functional.softplus(self.outer(functional.silu(self.inner(memory))))
        width = width.unflatten(-1, (2, -1)) * self.growth
        return width[..., None] * functional.softplus(self.shape).cumsum(-1)

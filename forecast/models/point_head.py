"""
The point head: a learned mix of the skip forecasts, and a correction.

All values are *relative*: distances from the centre at the origin, in units of the series. The
centre of counts is 0, so their values are multiples of the unit, and the correction is a factor.

References:
    Wen et al., A multi-horizon quantile recurrent forecaster, 2017 (direct, forking sequences).
    Bates & Granger, The combination of forecasts, Operational Research Quarterly 20(4), 1969.
    Granger & Ramanathan, Improved methods of combining forecasts, J. of Forecasting 3(2), 1984.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from forecast.features.filter_spec import FilterSpec
from forecast.models.skip import LEAST

CORRECTION = 3.0
"""Units of the series for one unit of the correction."""
MAX_LOG_RATIO = 6.0
"""Largest logarithm of the factor by which counts are corrected."""


class Parts(NamedTuple):
    """The parts of a point forecast; for counts, correction and effect are logarithms."""

    mixed: Float[Tensor, "*origin horizon"]
    """Learned mix of the skip forecasts."""
    correction: Float[Tensor, "*origin horizon"]
    """Correction from the memory of the network."""
    effect: Float[Tensor, "*origin horizon"]
    """Effect of the known-future covariates and the date of the target."""
    best_skip: Float[Tensor, "*origin horizon"]
    """Skip forecast towards which the forecast is shrunk."""


class Future(NamedTuple):
    """What is known of the steps to forecast."""

    dates: Float[Tensor, "*#origin horizon date"]
    """Output of `PointHead.embed_future`; a single row is used for all origins."""
    distance: Float[Tensor, "*origin horizon amount"]
    """Scaled distance of each known-future amount from its running mean at the origin."""
    at: tuple[Int[Tensor, " origin"], Int[Tensor, " origin"]] | None = None
    """Lane and step of each origin; `dates` then has rows for lanes and steps."""


class PointHead(nn.Module):
    """
    Mixes the skip forecasts and corrects the mix, for all horizons at once.

    The weights start at zero, so before training the mix is a softmax that prefers the skip set in
    the bias. One more candidate is a linear combination of the skips, the same for all series; it
    is their mean until it is learned.

    Known-future covariates and the calendar of a target enter as a product of the memory with an
    embedding of the target, the same for every horizon. Amounts also enter by their distance from
    the running mean, with one slope upwards and one downwards.

    After training, the forecast is shrunk towards the best single skip by `shrinkage`. With a
    shrinkage of 0 from the start, the forecast is the best skip throughout.
    """

    def __init__(
        self, spec: FilterSpec, memory: int, hidden: int, horizon: int, num_dates: int
    ) -> None:
        super().__init__()
        self.num_amounts = len(spec.known_amounts)
        self.ratio = spec.space == "ratio"
        self.first_seasonal = spec.first_seasonal
        self.mix = nn.Linear(memory, spec.num_skips + 1)
        self.inner = nn.Linear(memory + 2 * len(spec.seasons) * horizon, 2 * hidden)
        self.outer = nn.Linear(2 * hidden, horizon)
        zeroed = [self.mix, self.outer]
        self.num_dates = num_dates
        if num_dates:
            self.dates = nn.Sequential(
                nn.Linear(num_dates, hidden), nn.SiLU(), nn.Linear(hidden, hidden // 2)
            )
            self.effect = nn.Linear(memory, hidden // 2 + 2 * self.num_amounts)
            zeroed.append(self.effect)
        for layer in zeroed:
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.register_buffer("slopes", torch.full((spec.num_skips, horizon), 1 / spec.num_skips))
        self.register_buffer("intercept", torch.zeros(horizon))
        self.register_buffer("anchor", torch.zeros((), dtype=torch.int64))
        self.register_buffer("trust", torch.ones(horizon))
        self.slopes: Tensor
        self.intercept: Tensor
        self.anchor: Tensor
        self.trust: Tensor

    @property
    def best_skip(self) -> Tensor:
        """Index of the best single candidate; stored in bundles as `anchor`."""
        return self.anchor

    @property
    def shrinkage(self) -> Tensor:
        """
        Shrinkage factor of each horizon; stored in bundles as `trust`.

        The forecast keeps this share of its distance from the best skip: 1 leaves it as it is, 0
        makes it the best skip.
        """
        return self.trust

    def candidates(
        self, skips: Float[Tensor, "*origin skip horizon"]
    ) -> Float[Tensor, "*origin candidate horizon"]:
        """Return the skips and, as the last candidate, their linear combination."""
        combined = (skips * self.slopes).sum(-2) + self.intercept
        if self.ratio:
            combined = combined.clamp(min=LEAST)
        return torch.cat([skips, combined[..., None, :]], dim=-2)

    def best_skip_forecast(
        self, skips: Float[Tensor, "*origin skip horizon"]
    ) -> Float[Tensor, "*origin horizon"]:
        """Return the forecast of the best single candidate."""
        return self.candidates(skips)[..., int(self.best_skip), :]

    def embed_future(self, dates: Float[Tensor, "*step date"]) -> Float[Tensor, "*step seen"]:
        """Embed what is known of each target step; width 0 if nothing is."""
        if not self.num_dates:
            return dates
        embedded: Tensor = self.dates(dates)
        return embedded / math.sqrt(embedded.shape[-1])

    def parts(
        self,
        memory: Float[Tensor, "*origin memory"],
        skips: Float[Tensor, "*origin skip horizon"],
        future: Future,
    ) -> Parts:
        """Return mix, correction, covariate effect and best skip, before the shrinkage."""
        candidates = self.candidates(skips)
        # Softmax over the contiguous axis is 9x faster; restore the layout so that results stay
        # bit-identical.
        shares = self.mix(memory).mT.softmax(-2).mT.contiguous()
        mixed = (shares[..., None] * candidates).sum(-2)
        seasonal = skips[..., self.first_seasonal :, :]
        seasonal = (
            (seasonal + LEAST).clamp(min=LEAST).log() if self.ratio else seasonal / CORRECTION
        ).clamp(-6, 6)
        seen = torch.cat([memory, seasonal.flatten(-2)], dim=-1)
        correction = self.outer(functional.silu(self.inner(seen)))
        effect = torch.zeros_like(correction)
        if self.num_dates:
            dates, up, down = self.effect(memory).split(
                [future.dates.shape[-1], self.num_amounts, self.num_amounts], dim=-1
            )
            effect = _along(dates, future)
        if self.num_amounts:
            effect = effect + (future.distance.clamp(min=0) @ up[..., None])[..., 0]
            effect = effect + (future.distance.clamp(max=0) @ down[..., None])[..., 0]
        scale = 1.0 if self.ratio else CORRECTION
        best = candidates[..., int(self.best_skip), :]
        return Parts(mixed, scale * correction, scale * effect, best)

    def forward(
        self,
        memory: Float[Tensor, "*origin memory"],
        skips: Float[Tensor, "*origin skip horizon"],
        future: Future,
    ) -> Float[Tensor, "*origin horizon"]:
        """Return the relative point forecast of each horizon."""
        mixed, correction, effect, best_skip = self.parts(memory, skips, future)
        if self.ratio:
            bounded = (correction + effect).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
            relative = mixed.clamp(min=LEAST) * bounded.exp()
        else:
            relative = (mixed + correction + effect).clamp(-100, 100)
        if self.training and bool(self.shrinkage.any()):
            return relative
        return self.shrink(relative, best_skip)

    def shrink(
        self,
        relative: Float[Tensor, "*origin horizon"],
        best_skip: Float[Tensor, "*origin horizon"],
    ) -> Float[Tensor, "*origin horizon"]:
        """Shrink a forecast towards the best skip."""
        return best_skip + self.shrinkage * (relative - best_skip)


def _along(
    dates: Float[Tensor, "*origin date"], future: Future
) -> Float[Tensor, "*origin horizon"]:
    """
    Return the products of each origin's vector with the embeddings of its targets.

    Origins of a lane share most of their targets. So all steps of a lane are multiplied with all
    its targets once, and the products are read along the diagonals; no embedding is copied.
    """
    if future.at is None and len(future.dates) == 1:
        return dates @ future.dates[0].mT  # All origins have the same targets.
    if future.at is None:
        return (future.dates @ dates[..., None])[..., 0]
    lane, step = future.at
    horizon = future.distance.shape[-2]
    steps = future.dates.shape[1] - horizon
    by_step = dates.new_zeros((len(future.dates), steps, dates.shape[-1]))
    products = by_step.index_put((lane, step), dates) @ future.dates.mT
    ahead = step[:, None] + torch.arange(1, horizon + 1, device=step.device)
    return products[lane, step].gather(1, ahead)

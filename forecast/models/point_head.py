"""
From what the network remembers to forecasts: a learned mix of simple ones, and a correction.

All values are *relative*: distance from the centre at the origin, in units of the series. The
centre of counts is 0, so that theirs are multiples, which a correction multiplies.

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
"""Units that one unit of the correction head stands for."""
MAX_LOG_RATIO = 6.0


class Parts(NamedTuple):
    """What a point forecast is made of; for counts correction and effect are logarithms."""

    mixed: Float[Tensor, "*origin horizon"]
    """The learned mix of the skip forecasts."""
    correction: Float[Tensor, "*origin horizon"]
    """What the network adds from its memory."""
    effect: Float[Tensor, "*origin horizon"]
    """What it adds from the known-future covariates and the date of the target."""
    anchor: Float[Tensor, "*origin horizon"]
    """The simple forecast that the guard draws it back towards."""


class Future(NamedTuple):
    """What is known beforehand of the steps to forecast."""

    dates: Float[Tensor, "*#origin horizon date"]
    """Covariates and calendar as `PointHead.look` reads them; a single row stands for all."""
    distance: Float[Tensor, "*origin horizon amount"]
    """How far each known-future amount lies from its running mean at the origin, scaled."""
    at: tuple[Int[Tensor, " origin"], Int[Tensor, " origin"]] | None = None
    """Lane and step of each origin; `dates` are then those of each lane and step."""


class PointHead(nn.Module):
    """
    Mixes the skip forecasts and corrects the mix, all horizons at once.

    Zero-initialised: before training it gives a softmax over the skips that prefers the one in
    the bias. One more skip is a linear combination of the others, the same for all series: the
    mean until it is learned.
    Known-future covariates of the target step enter as a product of what the network remembers
    and what the target's date says, the same map for every horizon; amounts also by their
    distance from the running mean, with a slope upwards and one downwards.

    Once trained, the forecast is drawn back towards the anchor, the best single skip, as far as
    `trust` is below 1: the guard. With a trust of 0 from the start it is the anchor throughout.
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

    def candidates(
        self, skips: Float[Tensor, "*origin skip horizon"]
    ) -> Float[Tensor, "*origin candidate horizon"]:
        """The skips and, last, their linear combination."""
        combined = (skips * self.slopes).sum(-2) + self.intercept
        if self.ratio:
            combined = combined.clamp(min=LEAST)
        return torch.cat([skips, combined[..., None, :]], dim=-2)

    def anchored(
        self, skips: Float[Tensor, "*origin skip horizon"]
    ) -> Float[Tensor, "*origin horizon"]:
        """The best single one of the candidates."""
        return self.candidates(skips)[..., int(self.anchor), :]

    def embed_future(self, dates: Float[Tensor, "*step date"]) -> Float[Tensor, "*step seen"]:
        """Read what is known of each step; width 0 if nothing is."""
        if not self.num_dates:
            return dates
        seen: Tensor = self.dates(dates)
        return seen / math.sqrt(seen.shape[-1])

    def parts(
        self,
        memory: Float[Tensor, "*origin memory"],
        skips: Float[Tensor, "*origin skip horizon"],
        future: Future,
    ) -> Parts:
        """Skip, correction and covariate effect, before the guard."""
        candidates = self.candidates(skips)
        # nine times as fast along the long side; laid out as ever, so that sums keep their order
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
        anchor = candidates[..., int(self.anchor), :]
        return Parts(mixed, scale * correction, scale * effect, anchor)

    def forward(
        self,
        memory: Float[Tensor, "*origin memory"],
        skips: Float[Tensor, "*origin skip horizon"],
        future: Future,
    ) -> Float[Tensor, "*origin horizon"]:
        """The relative point forecast of each horizon."""
        mixed, correction, effect, anchor = self.parts(memory, skips, future)
        if self.ratio:
            bounded = (correction + effect).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
            relative = mixed.clamp(min=LEAST) * bounded.exp()
        else:
            relative = (mixed + correction + effect).clamp(-100, 100)
        if self.training and bool(self.trust.any()):
            return relative
        return self.guard(relative, anchor)

    def guard(
        self, relative: Float[Tensor, "*origin horizon"], anchor: Float[Tensor, "*origin horizon"]
    ) -> Float[Tensor, "*origin horizon"]:
        """Draw a forecast back to the anchor as far as it is not trusted."""
        return anchor + self.trust * (relative - anchor)


def _along(
    dates: Float[Tensor, "*origin date"], future: Future
) -> Float[Tensor, "*origin horizon"]:
    """
    Products of what an origin remembers and what the dates of its targets say.

    Origins of a lane share most of their targets: one product of all steps of a lane with all
    dates of it is read off along the diagonal, and no date is copied once an origin.
    """
    if future.at is None and len(future.dates) == 1:
        return dates @ future.dates[0].mT  # the same targets for all: one product for all
    if future.at is None:
        return (future.dates @ dates[..., None])[..., 0]
    lane, step = future.at
    horizon = future.distance.shape[-2]
    steps = future.dates.shape[1] - horizon
    asked = dates.new_zeros((len(future.dates), steps, dates.shape[-1]))
    products = asked.index_put((lane, step), dates) @ future.dates.mT
    ahead = step[:, None] + torch.arange(1, horizon + 1, device=step.device)
    return products[lane, step].gather(1, ahead)

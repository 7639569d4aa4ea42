"""
From what the network remembers to forecasts: a learned mix of simple ones, and a correction.

All values are *relative*: distance from the centre at the origin, in units of the series. The
centre of counts is 0, so that theirs are multiples, which a correction multiplies.

References:
    Wen et al., A multi-horizon quantile recurrent forecaster, 2017 (direct, forking sequences).
    Bates & Granger, The combination of forecasts, Operational Research Quarterly 20(4), 1969.
    Granger & Ramanathan, Improved methods of combining forecasts, J. of Forecasting 3(2), 1984.
"""

import itertools
import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from forecast.filters import CENTRE, FIRST_TREND, SLOW, UNIT, VALUE, FilterSpec
from forecast.smoothers import DAMPING

CORRECTION = 3.0
"""Units that one unit of the correction head stands for."""
MAX_LOG_RATIO = 6.0
LEAST = 0.01
"""Of the unit: no mean of counts is forecast below it."""
NEUTRAL = math.log(math.e - 1)
"""Where softplus is 1."""


def skip_forecasts(
    spec: FilterSpec,
    columns: Float[Tensor, "*origin column"],
    seasons: Float[Tensor, "*origin season two horizon"],
    horizon: int,
) -> Float[Tensor, "*origin skip horizon"]:
    """
    The simple forecasts at each origin: naive, smoothed, trends, smoothers, and two a season.

    Args:
        spec: Of the filters that made the columns.
        columns: As `filters` lays them out: value, centre, unit, smooth, (level, slope) a trend and
            of the smoothers.
        seasons: Value and profile at the target's phase of the last season; NaN where unknown:
            the level stands for it, for counts the next shorter season if there is one.
        horizon: Steps ahead.
    """
    centre, unit = columns[..., CENTRE, None], columns[..., UNIT, None]
    shape = (*columns.shape[:-1], horizon)
    skips = [((columns[..., i, None] - centre) / unit).expand(shape) for i in (VALUE, 3)]
    for i, (_, gain, damping) in enumerate(spec.trends):
        start, slope = (columns[..., FIRST_TREND + 2 * i + j, None] for j in (0, 1))
        flat = (start - centre) / unit
        if gain == 0:
            skips.append(flat.expand(shape))
            continue
        grown = damping ** torch.arange(1, horizon + 1, device=columns.device)
        skips.append(flat + slope / unit * grown.cumsum(0))
    if spec.smoothers:
        place = FIRST_TREND + 2 * len(spec.trends)
        start, slope = (columns[..., place + j, None] for j in (0, 1))
        grown = DAMPING ** torch.arange(1, horizon + 1, device=columns.device)
        usual = seasons[..., -1, 1, :].nan_to_num()
        skips.append((start - centre + slope * grown.cumsum(0) + usual) / unit)
    ratio = spec.space == "ratio"
    unknown = [skips[2 + SLOW] if ratio else torch.zeros((), device=columns.device)] * 2
    gaps = bool(seasons.sum().isnan())
    for i in range(len(spec.seasons)):
        pair = [(seasons[..., i, 0, :] - centre) / unit, seasons[..., i, 1, :] / unit]
        if gaps:
            pair = [torch.where(v.isnan(), u, v) for v, u in zip(pair, unknown, strict=True)]
        if ratio:  # until a long season has been seen, the shorter one stands for it
            unknown = pair
        skips += pair
    made = columns.new_empty((*shape[:-1], len(skips), horizon))
    for i, skip in enumerate(skips):  # twice as fast as to stack them
        made[..., i, :] = skip
    return made


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

    def look(self, dates: Float[Tensor, "*step date"]) -> Float[Tensor, "*step seen"]:
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
        seasonal = ((seasonal + LEAST).clamp(min=LEAST).log() if self.ratio
                    else seasonal / CORRECTION).clamp(-6, 6)  # fmt: skip
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


def softplus(x: Float[Tensor, "*size"]) -> Float[Tensor, "*size"]:
    """
    As that of torch, but the same to the last bit wherever in a tensor a value lies.

    >>> softplus(torch.tensor([-100.0, 0.0, 100.0])).round(decimals=3)
    tensor([ 0.0000,  0.6930, 80.0000])
    """
    return x.clamp(max=80).exp().log1p()


class Quantiles(NamedTuple):
    """Where the quantiles of a forecast lie."""

    median: Float[Tensor, "*origin horizon"]
    distances: Float[Tensor, "*origin two horizon upper"]
    """From the median, all positive: [0] below and [1] above, growing away from it."""


class QuantileHead(nn.Module):
    """
    Distances of the quantiles above and below the median.

    Each is a width that depends on memory and horizon, times a shape learned for each horizon:
    rising in the quantile by construction, so that quantiles never cross. It starts as a normal
    distribution that widens with the square root of the horizon. The point forecast is the
    median, unless it is a mean (`shifted`): then the median is learned beside it.

    `trust` says how far a width may leave what is usual at its horizon, whatever the memory: the
    guard of the spread. It holds in learning as well.
    """

    def __init__(
        self, spec: FilterSpec, memory: int, hidden: int, horizon: int,
        upper: tuple[float, ...], *, shifted: bool,
    ) -> None:  # fmt: skip
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
        if self.ratio:  # how a width depends on the mean is learned for each count by itself
            self.tilt = nn.Linear(hidden, 2 * len(upper))
            nn.init.zeros_(self.tilt.weight)
            nn.init.zeros_(self.tilt.bias)

    def forward(
        self, memory: Float[Tensor, "*origin memory"], point: Float[Tensor, "*origin horizon"],
        nearest: int | None = None,
    ) -> Quantiles:  # fmt: skip
        """
        Median and distances.

        Args:
            memory: What the network remembers at each origin.
            point: The relative point forecast.
            nearest: How many of the distances, from the median outwards; None gives all.
        """
        seen = memory
        if self.ratio:
            seen = torch.cat([memory, point.clamp(min=LEAST).log()], dim=-1)
        inner = functional.silu(self.inner(seen))
        parts = self.outer(inner).unflatten(-1, (-1, self.growth.shape[0]))
        widths = parts[..., :2, :]
        if bool(self.trust < 1):
            usual = self.outer.bias.unflatten(0, (-1, self.growth.shape[0]))[:2]
            widths, inner = torch.lerp(usual, widths, self.trust), self.trust * inner
        width = softplus(widths) * self.growth
        # long rows of horizons, not short ones of quantiles
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

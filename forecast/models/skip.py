"""Simple forecasts from filter state: the skip connection."""

import torch
from jaxtyping import Float
from torch import Tensor

from forecast.features.filter_spec import CENTRE, FIRST_TREND, SLOW, UNIT, VALUE, FilterSpec
from forecast.features.smoothing import DAMPING

LEAST = 0.01
"""Of the unit: no mean of counts is forecast below it."""


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

"""The skip forecasts: simple forecasts from the state of the filters, which the network mixes."""

import torch
from jaxtyping import Float
from torch import Tensor

from forecast.features.filter_spec import FIRST_TREND_COLUMN, SLOW, Column, FilterSpec
from forecast.features.smoothing import DAMPING

LEAST = 0.01
"""Smallest forecast of the mean of counts, in units."""


def skip_forecasts(
    spec: FilterSpec,
    columns: Float[Tensor, "*origin column"],
    seasons: Float[Tensor, "*origin season two horizon"],
    horizon: int,
) -> Float[Tensor, "*origin skip horizon"]:
    """
    Return the skip forecasts at each origin: naive, smoothed, trends, smoothers, two per season.

    Args:
        spec: The filters that returned the columns.
        columns: Columns of the origins, as `Column` names them.
        seasons: Value and profile at the target's phase of the last season. Where they are NaN, the
            level takes their place; for counts the next shorter season, if there is one.
        horizon: Steps ahead.
    """
    centre, unit = columns[..., Column.CENTRE, None], columns[..., Column.UNIT, None]
    shape = (*columns.shape[:-1], horizon)
    skips = [
        ((columns[..., i, None] - centre) / unit).expand(shape)
        for i in (Column.VALUE, Column.SMOOTH)
    ]
    for i, (_, gain, damping) in enumerate(spec.trends):
        start, slope = (columns[..., FIRST_TREND_COLUMN + 2 * i + j, None] for j in (0, 1))
        flat = (start - centre) / unit
        if gain == 0:
            skips.append(flat.expand(shape))
            continue
        grown = damping ** torch.arange(1, horizon + 1, device=columns.device)
        skips.append(flat + slope / unit * grown.cumsum(0))
    if spec.smoothers:
        pooled = FIRST_TREND_COLUMN + 2 * len(spec.trends)
        start, slope = (columns[..., pooled + j, None] for j in (0, 1))
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
        if ratio:  # Until a long season has been seen, the shorter one takes its place.
            unknown = pair
        skips += pair
    stacked = columns.new_empty((*shape[:-1], len(skips), horizon))
    for i, skip in enumerate(skips):  # Twice as fast as torch.stack.
        stacked[..., i, :] = skip
    return stacked

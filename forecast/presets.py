"""What a setting left open becomes, from frequency, kind and lengths: no switch by data set."""

from dataclasses import replace

import numpy as np
from jaxtyping import Int

from forecast.calendars import Calendar
from forecast.config import Config
from forecast.errors import TooShort

MAX_LANES = 256
CHUNK_LENGTHS = (8, 48)
"""Shortest and longest chunk: short chunks give more updates a second, and the state remembers."""


def resolve(config: Config, calendar: Calendar, lengths: Int[np.ndarray, " series"]) -> Config:
    """
    Fill in every setting that was left open, so that the bundle says what was done.

    Args:
        config: `data.kind` is no longer `auto`.
        calendar: Of the series.
        lengths: Steps of each training series.

    Raises:
        TooShort: No series has a target one horizon ahead or less to learn from.
    """
    horizon = config.model.horizon or calendar.default_horizon
    seasons = config.data.season_lengths
    if seasons is None:
        typical = float(np.quantile(lengths, 0.75)) if len(lengths) else 0.0
        seasons = tuple(s for s in calendar.season_lengths if typical >= 2 * s)
    if len(lengths) == 0 or lengths.max() - config.train.val_size < 2:
        raise TooShort(
            "no series has two steps to learn from"
            + (f" once val_size={config.train.val_size} are kept" if config.train.val_size else ""),
            help="give longer series, or a smaller val_size",
        )
    shortest, longest = CHUNK_LENGTHS
    chunk = min(seasons[0], longest) if seasons else 24
    if seasons and seasons[0] < 24:
        chunk = min(2 * seasons[0], 24)
    rounds = -(-len(lengths) // MAX_LANES)
    lanes = config.train.batch_size or -(-len(lengths) // rounds)
    return Config(
        data=replace(
            config.data, freq=calendar.freq, season_lengths=tuple(sorted(set(seasons)))
        ),
        model=replace(config.model, horizon=horizon),
        train=replace(
            config.train,
            batch_size=min(lanes, len(lengths)),
            chunk_length=config.train.chunk_length or max(shortest, chunk),
        ),
    )

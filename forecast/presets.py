"""What a setting left open becomes, from frequency, kind and lengths: no switch by data set."""

from dataclasses import replace

import numpy as np
from jaxtyping import Int

from forecast.calendars import Calendar
from forecast.config import Config
from forecast.errors import TooShort

MAX_LANES = 256
EPOCHS, STEPS = 12, (200, 3000)
"""Passes over the data, and the least and most optimiser steps they may come to."""
CHUNK_LENGTH, CHUNK_LENGTHS = 12, range(8, 17)
"""Short chunks give more updates a second; the state remembers across them."""


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
    rounds = -(-len(lengths) // MAX_LANES)
    lanes = min(config.train.batch_size or -(-len(lengths) // rounds), len(lengths))
    chunk = config.train.chunk_length or usual_chunk_length(seasons)
    blocks = -(-np.maximum(lengths - config.train.val_size, 0) // chunk)
    epoch = max(int(blocks.max()), -(-int(blocks.sum()) // lanes))
    return Config(
        data=replace(config.data, freq=calendar.freq, season_lengths=tuple(sorted(set(seasons)))),
        model=replace(config.model, horizon=horizon),
        train=replace(
            config.train,
            batch_size=lanes,
            chunk_length=chunk,
            max_steps=config.train.max_steps or int(np.clip(EPOCHS * epoch, *STEPS)),
        ),
    )


def usual_chunk_length(seasons: tuple[int, ...]) -> int:
    """
    A whole multiple or fraction of the shortest season, near 12 steps.

    >>> [usual_chunk_length((season,)) for season in (4, 5, 7, 12, 24, 52, 96)]
    [12, 10, 14, 12, 12, 13, 12]
    """
    fits = [n for n in CHUNK_LENGTHS if seasons and (n % seasons[0] == 0 or seasons[0] % n == 0)]
    return min(fits, key=lambda n: abs(n - CHUNK_LENGTH), default=CHUNK_LENGTH)

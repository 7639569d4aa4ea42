"""What a setting left open becomes, from frequency, kind and lengths: no switch by data set."""

from dataclasses import replace

import numpy as np
from jaxtyping import Int

from forecast.calendars.calendar import Calendar
from forecast.config import Config, DataConfig
from forecast.errors import TooShort
from forecast.training.lanes import assign_lanes

MIN_LANES, MAX_LANES = 32, 256
"""Narrow batches give more updates a second; the updates are what counts."""
EPOCHS, STEPS = 16, (400, 12_000)
"""Passes over the data, and the least and most optimiser steps they may come to."""
SEASONLESS_EPOCHS = 8
"""Without a season there is less to learn: on M4 Yearly 9 passes were best, 31 the worst."""
NOISY_EPOCHS = 4
"""Passes over prices and volatilities: all series share their shocks, soon learned by heart."""
COUNT_STEPS = 2_000
"""Least steps for counts: a few large series own their loss, so each step tells less."""
MAX_OBSERVATIONS = 40_000_000
"""Observations after which a large panel has been learned from enough."""
MEMBERS, FEW_OBSERVATIONS = 4, 500_000
"""Networks in an ensemble, and the largest panel that gets one: each learns within minutes."""
MANY_OBSERVATIONS = 80_000
"""Fewer are read more than `EPOCHS` times in the least steps, and learned by heart."""
CHUNK_LENGTH, CHUNK_LENGTHS = 12, range(8, 17)
"""Without a season, and with one. Short chunks give more updates; the state remembers across."""


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
    if seasons is None and config.data.kind == "price":
        seasons = ()  # a random walk has none; a missing close is the one before
    if seasons is None:
        seasons = tuple(s for s in calendar.season_lengths if _times_seen(s, lengths) >= 2)
    val_size = config.train.val_size
    if val_size is None:
        val_size = usual_val_size(lengths, horizon)
    if len(lengths) == 0 or lengths.max() - val_size < 2:
        raise TooShort(
            "no series has two steps to learn from"
            + (f" once val_size={val_size} are kept" if val_size else ""),
            help="give longer series, or a smaller val_size",
        )
    chunk = config.train.chunk_length or usual_chunk_length(seasons)
    kept = np.maximum(lengths - val_size, 0)
    epochs = EPOCHS if seasons else SEASONLESS_EPOCHS
    if config.data.kind in ("price", "volatility"):
        epochs = NOISY_EPOCHS
    passes = min(epochs, MAX_OBSERVATIONS / max(int(kept.sum()), 1))
    blocks = -(-kept // chunk)
    lanes = min(config.train.batch_size or usual_batch_size(blocks), len(lengths))
    epoch = max(int(blocks.max()), -(-int(blocks.sum()) // lanes))
    window = config.model.window
    if window is None and not config.train.stateful:
        window = chunk
    least, most = STEPS
    if config.data.kind == "count":
        least = COUNT_STEPS
    steps = config.train.max_steps or int(np.clip(passes * epoch, least, most))
    return Config(
        data=replace(config.data, freq=calendar.freq, season_lengths=tuple(sorted(set(seasons)))),
        model=replace(
            config.model,
            horizon=horizon,
            window=window,
            members=config.model.members or usual_members(config, lengths),
        ),
        train=replace(
            config.train,
            batch_size=lanes,
            chunk_length=chunk,
            val_size=val_size,
            max_steps=steps,
            check_every=config.train.check_every or max(1, steps // 5),
        ),
    )


def usual_members(config: Config, lengths: Int[np.ndarray, " series"]) -> int:
    """
    Four networks where the panel is small; one where it is not, or where steps were told.

    What comes of the seed is a few percent of the error, of which a mean of four leaves a
    quarter. Three would take two cores as long.

    >>> usual_members(Config(), np.array([100])), usual_members(Config(), np.full(1_000, 900))
    (4, 1)
    """
    small = config.train.max_steps is None and int(lengths.sum()) <= FEW_OBSERVATIONS
    return MEMBERS if small else 1


def wants_smoothers(data: DataConfig, lengths: Int[np.ndarray, " series"]) -> bool:
    """
    Whether smoothers of what the season leaves are of use: with no season, or two, they did harm.

    What a season adds is noise until it was seen twice, and errors tell who suits after that.

    >>> sales = DataConfig(kind="positive", season_lengths=(12,))
    >>> wants_smoothers(sales, np.array([60])), wants_smoothers(sales, np.array([35]))
    (True, False)
    """
    seasons = data.season_lengths or ()
    if data.kind not in ("positive", "real") or len(seasons) != 1:
        return False
    return _times_seen(seasons[0], lengths) >= 3


def _times_seen(season: int, lengths: Int[np.ndarray, " series"]) -> float:
    """By a usual series."""
    return float(np.quantile(lengths, 0.75)) / season if len(lengths) else 0.0


def usual_val_size(lengths: Int[np.ndarray, " series"], horizon: int) -> int:
    """
    About a seventh of a usual series: one to four horizons.

    Of series shorter than three horizons a third, or nothing in a large panel.

    >>> [usual_val_size(np.array([n]), 12) for n in (9, 24, 48, 180, 900)]
    [3, 8, 12, 24, 48]
    >>> usual_val_size(np.full(5_000, 24), 12)
    0
    """
    typical = int(np.median(lengths)) if len(lengths) else 0
    if typical < 3 * horizon and lengths.sum() >= MANY_OBSERVATIONS:
        return 0
    horizons = min(max(round(typical / (7 * horizon)), 1), 4)
    return min(max(horizons * horizon, min(20, typical // 7)), -(-typical // 3))


def usual_batch_size(blocks: Int[np.ndarray, " series"]) -> int:
    """
    Lanes that are full to the end of an epoch, in rounds of equal size.

    Where a few series are much longer than the rest, more lanes would run dry early and leave
    the last steps of each epoch to the long ones. At least 32, or all.

    Args:
        blocks: Chunks of each series.

    >>> [usual_batch_size(np.array(n)) for n in ([10] * 400, [10] * 400 + [100], [9] * 9 + [7])]
    [200, 41, 10]
    """
    rounds = -(-len(blocks) // MAX_LANES)
    most = -(-len(blocks) // rounds)
    least = max(-(-int(blocks.sum()) // max(int(blocks.max(initial=1)), 1)), MIN_LANES)
    tried = np.unique(np.linspace(min(least, most), most, 8).astype(int)).tolist()

    def steps(lanes: int) -> int:
        return max(int(blocks[lane].sum()) for lane in assign_lanes(blocks, lanes))

    best: int = min(reversed(tried), key=lambda lanes: lanes * steps(lanes))
    return best


def usual_chunk_length(seasons: tuple[int, ...]) -> int:
    """
    The shortest of 8 to 16 steps that is a whole multiple or fraction of the shortest season.

    >>> [usual_chunk_length((season,)) for season in (4, 5, 7, 12, 24, 52, 96)]
    [8, 10, 14, 12, 8, 13, 8]
    """
    fits = (n for n in CHUNK_LENGTHS if seasons and (n % seasons[0] == 0 or seasons[0] % n == 0))
    return min(fits, default=CHUNK_LENGTH)

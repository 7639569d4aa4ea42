"""Choose the settings that were left open, from the frequency, kind and lengths of the data."""

from dataclasses import replace

import numpy as np
from jaxtyping import Int

from forecast.calendars.calendar import Calendar
from forecast.config import Config, DataConfig
from forecast.errors import TooShort
from forecast.resolved_config import ResolvedConfig
from forecast.training.lanes import assign_lanes

MIN_LANES, MAX_LANES = 32, 256
"""Least and most lanes. Narrow batches allow more updates per second, which matter most."""
EPOCHS, STEPS = 16, (400, 12_000)
"""Passes over the data, and the least and most optimiser steps."""
SEASONLESS_EPOCHS = 8
"""Passes without a season: on M4 Yearly 9 passes were best and 31 the worst."""
NOISY_EPOCHS = 4
"""Passes over prices and volatilities: all series share their shocks, which are soon overfitted."""
COUNT_STEPS = 2_000
"""Least steps for counts: a few large series dominate their loss, so each step tells less."""
MAX_OBSERVATIONS = 40_000_000
"""Observations to learn from, all passes together, that are enough for a large panel."""
MEMBERS, FEW_OBSERVATIONS = 4, 500_000
"""Members of an ensemble, and the largest panel that gets one: each member trains in minutes."""
MANY_OBSERVATIONS = 80_000
"""A smaller panel is read more than `EPOCHS` times in the least steps, so it may be overfitted."""
CHUNK_LENGTH, CHUNK_LENGTHS = 12, range(8, 17)
"""
Chunk length without a season, and the candidates with one.

Short chunks give more updates per pass; the state carries the memory across them.
"""


def resolve(
    config: Config, calendar: Calendar, lengths: Int[np.ndarray, " series"]
) -> ResolvedConfig:
    """
    Choose every setting that was left open, so that the bundle records them all.

    Args:
        config: Settings; `data.kind` is not `auto`.
        calendar: Calendar of the series.
        lengths: Steps of each training series.

    Raises:
        TooShort: No series has two steps to learn from.
    """
    horizon = config.model.horizon or calendar.default_horizon
    seasons = config.data.season_lengths
    if seasons is None and config.data.kind == "price":
        seasons = ()  # a random walk has no season
    if seasons is None:
        seasons = tuple(s for s in calendar.season_lengths if _times_seen(s, lengths) >= 2)
    val_size = config.train.val_size
    if val_size is None:
        val_size = usual_val_size(lengths, horizon)
    if len(lengths) == 0 or lengths.max() - val_size < 2:
        raise TooShort(
            "no series has two steps to learn from"
            + (f" beside val_size={val_size} held-out steps" if val_size else ""),
            help="give longer series, or a smaller val_size",
        )
    chunk = config.train.chunk_length or usual_chunk_length(seasons)
    learned = np.maximum(lengths - val_size, 0)
    epochs = EPOCHS if seasons else SEASONLESS_EPOCHS
    if config.data.kind in ("price", "volatility"):
        epochs = NOISY_EPOCHS
    passes = min(epochs, MAX_OBSERVATIONS / max(int(learned.sum()), 1))
    blocks = -(-learned // chunk)
    lanes = min(config.train.batch_size or usual_batch_size(blocks), len(lengths))
    epoch = max(int(blocks.max()), -(-int(blocks.sum()) // lanes))
    window = config.model.window
    if window is None and not config.train.stateful:
        window = chunk
    least, most = STEPS
    if config.data.kind == "count":
        least = COUNT_STEPS
    steps = config.train.max_steps or int(np.clip(passes * epoch, least, most))
    resolved = Config(
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
    return ResolvedConfig.from_dict(resolved.to_dict())


def usual_members(config: Config, lengths: Int[np.ndarray, " series"]) -> int:
    """
    Return four members for a small panel, one for a large panel or if `max_steps` is set.

    The seed accounts for a few percent of the error, and the mean of four members keeps a quarter
    of that. Three members would take as long on two cores.

    >>> usual_members(Config(), np.array([100])), usual_members(Config(), np.full(1_000, 900))
    (4, 1)
    """
    small = config.train.max_steps is None and int(lengths.sum()) <= FEW_OBSERVATIONS
    return MEMBERS if small else 1


def wants_smoothers(data: DataConfig, lengths: Int[np.ndarray, " series"]) -> bool:
    """
    Return whether the seasonally adjusted values are smoothed for a further simple forecast.

    They are if there is one season and it was seen three times. With no season or two, smoothers
    did harm. Seasonal effects are noise until a season was seen twice, and one more season of
    errors is needed to weight the smoothers.

    >>> sales = DataConfig(kind="positive", season_lengths=(12,))
    >>> wants_smoothers(sales, np.array([60])), wants_smoothers(sales, np.array([35]))
    (True, False)
    """
    seasons = data.season_lengths or ()
    if data.kind not in ("positive", "real") or len(seasons) != 1:
        return False
    return _times_seen(seasons[0], lengths) >= 3


def _times_seen(season: int, lengths: Int[np.ndarray, " series"]) -> float:
    """Return how many times a series of the upper quartile of lengths covers the season."""
    return float(np.quantile(lengths, 0.75)) / season if len(lengths) else 0.0


def usual_val_size(lengths: Int[np.ndarray, " series"], horizon: int) -> int:
    """
    Return the steps to hold out: about a seventh of the median series, in one to four horizons.

    Series shorter than three horizons hold out a third, or nothing in a large panel.

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
    Return the number of lanes that keeps the batch full to the end of an epoch.

    It is at least 32, or the number of series if that is smaller. If a few series are much longer
    than the rest, more lanes would run out early and leave the last steps of each epoch to the
    long series.

    Args:
        blocks: Number of chunks of each series.

    >>> [usual_batch_size(np.array(n)) for n in ([10] * 400, [10] * 400 + [100], [9] * 9 + [7])]
    [200, 41, 10]
    """
    rounds = -(-len(blocks) // MAX_LANES)
    most = -(-len(blocks) // rounds)
    least = max(-(-int(blocks.sum()) // max(int(blocks.max(initial=1)), 1)), MIN_LANES)
    candidates = np.unique(np.linspace(min(least, most), most, 8).astype(int)).tolist()

    def steps(lanes: int) -> int:
        return max(int(blocks[lane].sum()) for lane in assign_lanes(blocks, lanes))

    best: int = min(reversed(candidates), key=lambda lanes: lanes * steps(lanes))
    return best


def usual_chunk_length(seasons: tuple[int, ...]) -> int:
    """
    Return the least of 8 to 16 steps that is a whole multiple or fraction of the shortest season.

    If none is, or there is no season, it is 12.

    >>> [usual_chunk_length((season,)) for season in (4, 5, 7, 12, 24, 52, 96)]
    [8, 10, 14, 12, 8, 13, 8]
    """
    fits = (n for n in CHUNK_LENGTHS if seasons and (n % seasons[0] == 0 or seasons[0] % n == 0))
    return min(fits, default=CHUNK_LENGTH)

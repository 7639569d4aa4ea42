"""
Baselines: statistical models of statsforecast, gradient boosting on lags, and Naive2 of M4.

statsforecast comes with the `trainer` extra and is imported when one of its models is used. It
gets the values of one series at a time, without stamps, so that every calendar works. The boosted
model (`forecast.evaluation.boosting`) learns from all series at once and is the only one that
reads covariates.
"""

import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from forecast.calendars.calendar import Calendar
from forecast.errors import ConfigError, MissingFuture, TooShort
from forecast.evaluation.boosting import Steps, forecast_boosted
from forecast.features.calendar import features

logger = logging.getLogger(__name__)
STATISTICAL = ("SeasonalNaive", "Drift", "AutoETS", "AutoTheta")
INTERMITTENT = ("CrostonOptimized", "TSB")
"""For demand with many zeros: they forecast a flat mean, without intervals."""
BOOSTED = "HistGradientBoosting"
"""Learns from all series at once: its forecast of one series depends on the others."""
MODELS = (*STATISTICAL, *INTERMITTENT, BOOSTED)
_SMOOTHING = 0.2  # TSB's size and probability: the middle of the range its authors examine
_SIGNIFICANT = 1.645  # 90 %, two-sided: M4's test of seasonality


def forecast(
    frame: pd.DataFrame,
    calendar: Calendar,
    *,
    horizon: int,
    season_length: int,
    models: Sequence[str] = STATISTICAL,
    levels: Sequence[int] = (),
    known_future: Sequence[str] = (),
    future: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """
    Forecast the next `horizon` steps of every series.

    A step without a value repeats the value before it. Where a model fails, for instance on a
    history that is too short for it, the naive forecast and its interval take its place and a
    warning is logged, so that no baseline is weakened silently.

    Args:
        frame: `unique_id`, `ds`, `y`, sorted, one row a step.
        calendar: The calendar of the stamps.
        horizon: Steps ahead.
        season_length: Steps in one season, 1 for none.
        models: Any of `MODELS`.
        levels: Central intervals in percent, such as 80 and 95.
        known_future: Columns of `frame` that the boosted model reads; the others read `y` alone.
        future: `unique_id`, `ds` and those columns, for each step to forecast.

    Returns:
        `unique_id`, `ds`, one column a model, `MODEL-lo-80`, `MODEL-hi-80`, ...; no NaN. The
        models of `INTERMITTENT` have no columns for intervals.

    Raises:
        ConfigError: A model is none of `MODELS`.
        MissingFuture: `future` lacks a series or a step.

    References:
        Croston, Forecasting and stock control for intermittent demands, ORQ 23(3), 1972.
        Teunter, Syntetos & Babai, Intermittent demand: linking forecasting to inventory
        obsolescence, EJOR 214(3), 2011 (TSB).
    """
    begins = np.flatnonzero(~frame["unique_id"].duplicated().to_numpy())
    lengths = np.diff(np.r_[begins, len(frame)])
    ids = frame["unique_id"].to_numpy()[begins]
    last = frame["ds"].to_numpy()[begins + lengths - 1]
    ahead = calendar.after(last.astype(np.int64), horizon).ravel()
    stamps = pd.DataFrame(
        {
            "unique_id": np.repeat(ids, horizon),
            "ds": ahead if calendar.is_integer else ahead.astype("datetime64[ns]"),
        }
    )
    values = frame.groupby("unique_id", sort=False, observed=True)["y"]
    y = values.ffill().fillna(values.bfill()).fillna(0.0).to_numpy(dtype=np.float64)
    statistical = {name: _model(name, season_length) for name in models if name != BOOSTED}
    with warnings.catch_warnings():
        # Where the caller turns warnings into errors, a warning would look like a failed model.
        warnings.simplefilter("ignore")
        parts = [
            _forecast_series(part, statistical, horizon, levels)
            for part in np.split(y, np.cumsum(lengths)[:-1])
        ]
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    if BOOSTED in models:
        steps = Steps(
            y=y,
            indptr=np.r_[begins, len(frame)].astype(np.int64),
            known=_known_columns(frame, calendar, known_future),
            ahead=np.stack(
                np.split(_future_columns(stamps, calendar, known_future, future), len(ids))
            ),
        )
        columns |= _forecast_boosted(steps, season_length, levels)
    names = [name for model in models for name in columns if name.split("-")[0] == model]
    return pd.concat([stamps, pd.DataFrame(columns)[names]], axis=1)


def cross_validate(
    frame: pd.DataFrame,
    calendar: Calendar,
    *,
    horizon: int,
    n_windows: int = 1,
    step_size: int = 1,
    season_length: int,
    models: Sequence[str] = STATISTICAL,
    levels: Sequence[int] = (),
    known_future: Sequence[str] = (),
) -> pd.DataFrame:
    """
    Forecast from `n_windows` cutoffs of every series, fitting each model anew at each cutoff.

    The last cutoff of a series lies `horizon` steps before its end, and each earlier one
    `step_size` steps before the next; series need not end together. Of the steps to forecast,
    only the columns `known_future` are read, never `y`.

    Args:
        frame: `unique_id`, `ds`, `y`, sorted, one row a step.
        calendar: The calendar of the stamps.
        horizon: Steps ahead.
        n_windows: Number of cutoffs.
        step_size: Steps from one cutoff to the next.
        season_length: Steps in one season, 1 for none.
        models: Any of `MODELS`.
        levels: Central intervals in percent.
        known_future: Columns of `frame` that the boosted model reads.

    Returns:
        `unique_id`, `ds`, `cutoff`, `y` and the columns of `forecast`, sorted by the first three.

    Raises:
        ConfigError: A model is none of `MODELS`.
        TooShort: A series has nothing before its first cutoff.
    """
    steps_after = frame.groupby("unique_id", sort=False, observed=True).cumcount(ascending=False)
    most = horizon + step_size * (n_windows - 1)
    lengths = steps_after[~frame["unique_id"].duplicated()] + 1
    short = lengths[lengths <= most]
    if len(short):
        row, length = short.index[0], int(short.iloc[0])
        raise TooShort(
            f"{len(short)} of {len(lengths)} series have nothing before the "
            f"first cutoff: {n_windows} windows of {horizon} steps, {step_size} apart, need more "
            f"than {most} steps",
            where=f"series {frame['unique_id'].loc[row]!r} with {length} steps",
            help="ask for fewer windows or a shorter horizon, or leave those series out",
        )
    parts = []
    for back in range(most, horizon - 1, -step_size):
        known = frame[steps_after >= back]
        targets = frame[(steps_after < back) & (steps_after >= back - horizon)]
        part = forecast(
            known,
            calendar,
            horizon=horizon,
            season_length=season_length,
            models=models,
            levels=levels,
            known_future=known_future,
            future=targets if known_future else None,
        )
        cutoffs = known["ds"][steps_after[known.index] == back].to_numpy()
        part.insert(2, "cutoff", np.repeat(cutoffs, horizon))
        part.insert(3, "y", targets["y"].to_numpy())
        parts.append(part)
    return pd.concat(parts).sort_values(["unique_id", "cutoff", "ds"], ignore_index=True)


def _forecast_boosted(
    steps: Steps, season_length: int, levels: Sequence[int]
) -> dict[str, Float[np.ndarray, " row"]]:
    """Return the columns of the boosted model: the last value if there is nothing to learn from."""
    outputs = forecast_boosted(steps, season_length=season_length, levels=sorted(levels))
    if outputs is None:
        logger.warning("%s has nothing to learn from, naive instead", BOOSTED)
        last = steps.y[steps.indptr[1:] - 1]
        shape = (*steps.ahead.shape[:2], 1 + 2 * len(levels))
        outputs = np.broadcast_to(last[:, None, None], shape)
    suffixes = ["", *(f"-{end}-{level}" for level in sorted(levels) for end in ("lo", "hi"))]
    return {BOOSTED + suffix: outputs[..., i].ravel() for i, suffix in enumerate(suffixes)}


def _known_columns(
    frame: pd.DataFrame, calendar: Calendar, names: Sequence[str]
) -> Float[np.ndarray, "row covariate"]:
    """Return what is known of each row in advance: its covariates and its calendar features."""
    stamps = frame["ds"].to_numpy().astype(np.int64)
    unique, inverse = np.unique(stamps, return_inverse=True)
    dates = features(unique, calendar.freq)[0][inverse]
    return np.column_stack([frame[list(names)].to_numpy(dtype=np.float32), dates])


def _future_columns(
    stamps: pd.DataFrame, calendar: Calendar, names: Sequence[str], future: pd.DataFrame | None
) -> Float[np.ndarray, "row covariate"]:
    """Return the columns of `_known_columns` for the steps to forecast."""
    keys = ["unique_id", "ds"]
    if names:
        table = pd.DataFrame(columns=[*keys, *names]) if future is None else future
        rows = pd.MultiIndex.from_frame(table[keys]).get_indexer(pd.MultiIndex.from_frame(stamps))
        missing = rows < 0
        if missing.any():
            first = stamps.iloc[int(np.argmax(missing))]
            raise MissingFuture(
                f"{int(missing.sum())} of {len(rows)} steps to forecast have no {', '.join(names)}",
                where=f"series {first['unique_id']!r} at {first['ds']}",
                help="give their values in `future`, or leave known_future out",
            )
        stamps = pd.concat([stamps, table[list(names)].iloc[rows].reset_index(drop=True)], axis=1)
    return _known_columns(stamps, calendar, names)


def naive2(
    history: Float[np.ndarray, " time"], *, horizon: int, season_length: int
) -> Float[np.ndarray, " horizon"]:
    """
    Forecast one series by Naive2 of M4: its last value, seasonally adjusted if it is seasonal.

    A history is seasonal if its autocorrelation at `season_length` exceeds the 90 % bound; the
    adjustment is the classical multiplicative decomposition. The forecast has the unit of the
    history.

    References:
        Makridakis, Spiliotis & Assimakopoulos, The M4 Competition, IJF 36(1), 2020, appendix A.

    >>> naive2(np.array([1.0, 2.0, 3.0]), horizon=2, season_length=1).tolist()
    [3.0, 3.0]
    """
    season = np.ones(season_length)
    if _is_seasonal(history, season_length):
        indices = _seasonal_indices(history, season_length)
        season = indices if np.isfinite(indices).all() and (indices > 0).all() else season
    step = np.arange(len(history), len(history) + horizon)
    last = history[-1] / season[(len(history) - 1) % season_length]
    return np.asarray(last * season[step % season_length])


def _is_seasonal(history: Float[np.ndarray, " time"], season_length: int) -> bool:
    if season_length < 2 or len(history) < 3 * season_length:
        return False
    centred = history - history.mean()
    power = centred @ centred
    if power == 0:
        return False
    correlation = [centred[k:] @ centred[:-k] / power for k in range(1, season_length + 1)]
    bound = np.sqrt((1 + 2 * np.square(correlation[:-1]).sum()) / len(history))
    return bool(abs(correlation[-1]) > _SIGNIFICANT * bound)


def _seasonal_indices(
    history: Float[np.ndarray, " time"], season_length: int
) -> Float[np.ndarray, " season"]:
    """Return the index of each position in a season, mean 1: classical decomposition."""
    weights = np.ones(season_length)
    if season_length % 2 == 0:
        weights = np.r_[0.5, np.ones(season_length - 1), 0.5]
    trend = np.convolve(history, weights / season_length, mode="valid")
    offset = len(weights) // 2
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = history[offset : offset + len(trend)] / trend
        position = (np.arange(len(trend)) + offset) % season_length
        indices = np.bincount(position, ratio, season_length) / np.bincount(position)
        return np.asarray(indices / indices.mean())


def _forecast_series(
    y: Float[np.ndarray, " time"], models: Mapping[str, Any], horizon: int, levels: Sequence[int]
) -> dict[str, Float[np.ndarray, " horizon"]]:
    """
    Return the columns of each model for one series; where a model fails, those of the naive one.

    Models are called one by one: the engine of statsforecast names the intervals of all series in
    the order that the last model gave them, but models and their fallbacks order them differently.
    """
    from statsforecast.models import Naive

    ends = [f"-{end}-{level}" for level in sorted(levels) for end in ("lo", "hi")]
    level = sorted(levels) or None
    naive = _columns(Naive().forecast(y=y, h=horizon, level=level), ends)
    columns: dict[str, Float[np.ndarray, " horizon"]] = {}
    for name, model in models.items():
        flat = name in INTERMITTENT
        try:
            outputs = (
                _columns(model.forecast(y=y, h=horizon), ())
                if flat
                else _columns(model.forecast(y=y, h=horizon, level=level), ends)
            )
        except Exception as error:  # noqa: BLE001 - a short or odd series raises anything
            logger.warning("%s failed on %d values, naive instead: %s", name, len(y), error)
            outputs = {"": naive[""]} if flat else naive
        if not all(np.isfinite(values).all() for values in outputs.values()):
            logger.warning("%s is not finite on %d values, naive instead", name, len(y))
            outputs = {"": naive[""]} if flat else naive
        columns |= {name + end: values for end, values in outputs.items()}
    return columns


def _columns(
    outputs: Mapping[str, Any], ends: Sequence[str]
) -> dict[str, Float[np.ndarray, " horizon"]]:
    """Return the point forecast and the interval ends, by suffix; the point where an end is NaN."""
    point = np.asarray(outputs["mean"], dtype=np.float64)
    values = {end: np.asarray(outputs[end.removeprefix("-")], dtype=np.float64) for end in ends}
    return {"": point} | {end: np.where(np.isfinite(v), v, point) for end, v in values.items()}


def _model(name: str, season_length: int) -> Any:
    from statsforecast import models

    factories: dict[str, Callable[[], Any]] = {
        "SeasonalNaive": lambda: models.SeasonalNaive(season_length=season_length),
        "Drift": lambda: models.RandomWalkWithDrift(),
        "AutoETS": lambda: models.AutoETS(season_length=season_length),
        "AutoTheta": lambda: models.AutoTheta(season_length=season_length),
        "CrostonOptimized": lambda: models.CrostonOptimized(),
        "TSB": lambda: models.TSB(alpha_d=_SMOOTHING, alpha_p=_SMOOTHING),
    }
    if name not in factories:
        raise ConfigError(f"{name!r} is not a baseline", help=f"known: {', '.join(MODELS)}")
    return factories[name]()

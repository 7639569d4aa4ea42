"""
Forecasts to beat: seasonal naive, drift, AutoETS and AutoTheta by statsforecast, and Naive2 of M4.

statsforecast comes with the `trainer` extra and is imported when a baseline is asked for. It sees
one series of plain values at a time, so every calendar works; stamps come from ours.
"""

import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from forecast.calendars import Calendar
from forecast.errors import ConfigError, TooShort

logger = logging.getLogger(__name__)

MODELS = ("SeasonalNaive", "Drift", "AutoETS", "AutoTheta")
_SIGNIFICANT = 1.645  # 90 %, two-sided: M4's test of seasonality


def forecast(
    frame: pd.DataFrame,
    calendar: Calendar,
    *,
    horizon: int,
    season_length: int,
    models: Sequence[str] = MODELS,
    levels: Sequence[int] = (),
) -> pd.DataFrame:
    """
    Forecast the next `horizon` steps of every series.

    A step without a value repeats the one before it. Where a model cannot speak (a history
    shorter than it needs, or one it fails on), the last value stands in, with its interval, and
    a warning is logged: a baseline is never weakened in silence.

    Args:
        frame: `unique_id`, `ds`, `y`, sorted, one row a step.
        calendar: What the stamps after the last are.
        horizon: Steps ahead.
        season_length: Steps in one season, 1 for none.
        models: Any of `MODELS`.
        levels: Central intervals to give, such as 80 and 95.

    Returns:
        `unique_id`, `ds`, one column a model, `MODEL-lo-80`, `MODEL-hi-80`, ...; no NaN.

    Raises:
        ConfigError: A model that is none of `MODELS`.
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
    chosen = {name: _model(name, season_length) for name in models}
    with warnings.catch_warnings():
        # Were warnings errors for the caller, they would decide which model answers.
        warnings.simplefilter("ignore")
        parts = [
            _forecast_series(part, chosen, horizon, levels)
            for part in np.split(y, np.cumsum(lengths)[:-1])
        ]
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return pd.concat([stamps, pd.DataFrame(columns)], axis=1)


def cross_validate(
    frame: pd.DataFrame,
    calendar: Calendar,
    *,
    horizon: int,
    n_windows: int = 1,
    step_size: int = 1,
    season_length: int,
    models: Sequence[str] = MODELS,
    levels: Sequence[int] = (),
) -> pd.DataFrame:
    """
    Forecast from `n_windows` cutoffs of every series, each model fitted anew at each cutoff.

    The last cutoff of a series leaves exactly `horizon` steps, each earlier one is `step_size`
    steps before; series need not end together.

    Returns:
        `unique_id`, `ds`, `cutoff`, `y` and the columns of `forecast`, sorted by the first three.

    Raises:
        ConfigError: A model that is none of `MODELS`.
        TooShort: A series has nothing before its first cutoff.
    """
    left = frame.groupby("unique_id", sort=False, observed=True).cumcount(ascending=False)
    most = horizon + step_size * (n_windows - 1)
    longest = left[~frame["unique_id"].duplicated()] + 1
    if (longest <= most).any():
        row = int(longest[longest <= most].index[0])
        raise TooShort(
            f"{int((longest <= most).sum())} of {len(longest)} series have nothing before the "
            f"first cutoff: {n_windows} windows of {horizon} steps, {step_size} apart, need more "
            f"than {most} steps",
            where=f"series {frame['unique_id'].loc[row]!r} with {int(longest.loc[row])} steps",
            help="ask for fewer windows or a shorter horizon, or leave those series out",
        )
    parts = []
    for back in range(most, horizon - 1, -step_size):
        known = frame[left >= back]
        made = forecast(
            known,
            calendar,
            horizon=horizon,
            season_length=season_length,
            models=models,
            levels=levels,
        )
        cutoffs = known["ds"][left[known.index] == back].to_numpy()
        actual = frame["y"][(left < back) & (left >= back - horizon)].to_numpy()
        made.insert(2, "cutoff", np.repeat(cutoffs, horizon))
        made.insert(3, "y", actual)
        parts.append(made)
    return pd.concat(parts).sort_values(["unique_id", "cutoff", "ds"], ignore_index=True)


def naive2(
    history: Float[np.ndarray, " time"], *, horizon: int, season_length: int
) -> Float[np.ndarray, " horizon"]:
    """
    Naive2 of M4: the last value, seasonally adjusted when the history is seasonal.

    Seasonal means that the autocorrelation at `season_length` exceeds its 90 % bound; the
    adjustment is the classical multiplicative decomposition. Unit of the history.

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
    """Classical multiplicative decomposition: indices of the positions in a season, mean 1."""
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
    Column and values of each model for one series without NaN, the naive standing in.

    Models are called one by one: the engine of statsforecast labels the intervals of all series
    by the order of the last one's, which is another for each model and for its fallback.
    """
    from statsforecast.models import Naive

    ends = [f"-{end}-{level}" for level in sorted(levels) for end in ("lo", "hi")]
    level = sorted(levels) or None
    spare = _columns(Naive().forecast(y=y, h=horizon, level=level), ends)
    columns: dict[str, Float[np.ndarray, " horizon"]] = {}
    for name, model in models.items():
        try:
            made = _columns(model.forecast(y=y, h=horizon, level=level), ends)
        except Exception as error:  # noqa: BLE001 - a short or odd series raises anything
            logger.warning("%s failed on %d values, naive instead: %s", name, len(y), error)
            made = spare
        if not all(np.isfinite(values).all() for values in made.values()):
            logger.warning("%s is not finite on %d values, naive instead", name, len(y))
            made = spare
        columns |= {name + end: values for end, values in made.items()}
    return columns


def _columns(
    made: Mapping[str, Any], ends: Sequence[str]
) -> dict[str, Float[np.ndarray, " horizon"]]:
    """Point and interval ends by their suffix; ends that could not be computed are the point."""
    point = np.asarray(made["mean"], dtype=np.float64)
    values = {end: np.asarray(made[end.removeprefix("-")], dtype=np.float64) for end in ends}
    return {"": point} | {end: np.where(np.isfinite(v), v, point) for end, v in values.items()}


def _model(name: str, season_length: int) -> Any:
    from statsforecast import models

    known: dict[str, Callable[[], Any]] = {
        "SeasonalNaive": lambda: models.SeasonalNaive(season_length=season_length),
        "Drift": lambda: models.RandomWalkWithDrift(),
        "AutoETS": lambda: models.AutoETS(season_length=season_length),
        "AutoTheta": lambda: models.AutoTheta(season_length=season_length),
    }
    if name not in known:
        raise ConfigError(f"{name!r} is not a baseline", help=f"known: {', '.join(known)}")
    return known[name]()

"""
Daily variance from the range of prices, the linear models to beat, and how they are scored.

Variances are of daily log returns, with no unit: 1e-4 is 1 % a day. A frame is long, `unique_id`,
`ds`, `y` and more, a row a trading day, sorted by the first two: `BadStamps` where it is not. A
day whose range cannot be trusted has `y` NaN and no part in any mean, fit or score.

The target `y_h` is the mean variance of the `h` days after an origin.
"""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float, Shaped

from forecast.data.ohlc import DECAY, _ema
from forecast.errors import BadStamps, ConfigError

HORIZONS = (1, 5, 22)
"""A day, a trading week and a trading month."""


def targets(frame: pd.DataFrame, horizons: Sequence[int] = HORIZONS) -> pd.DataFrame:
    """
    Mean variance of the next `h` days at each row, columns `y_1`, `y_5`, ...

    Days without a variance are left out of the mean. NaN where fewer than `h` rows follow.

    >>> days = pd.DataFrame({"unique_id": "a", "ds": [1, 2, 3], "y": [1.0, 2.0, 4.0]})
    >>> targets(days, [1, 2])["y_2"].tolist()
    [3.0, nan, nan]
    """
    codes = _series(frame)
    y = frame["y"].to_numpy(np.float64)
    return pd.DataFrame(
        {f"y_{h}": _window(y[::-1], codes[::-1], h, shift=1)[::-1] for h in horizons},
        index=frame.index,
    )


def ewma(frame: pd.DataFrame, *, decay: float = DECAY) -> Float[np.ndarray, " row"]:
    """
    Exponentially weighted mean of the variances up to each row: the forecast of RiskMetrics.

    The same for every horizon. Starts as the plain mean of what there is.

    >>> days = pd.DataFrame({"unique_id": "a", "ds": [1, 2], "y": [1.0, 4.0]})
    >>> ewma(days, decay=0.5).tolist()
    [1.0, 3.0]
    """
    codes = _series(frame)
    return _ema(frame["y"].to_numpy(np.float64), codes, decay)


def log_har(
    frame: pd.DataFrame,
    *,
    until: object,
    horizons: Sequence[int] = HORIZONS,
    lags: Sequence[int] = (1, 5, 22),
    market: bool = False,
) -> pd.DataFrame:
    """
    Heterogeneous autoregression in logarithms, one fit for all series: columns `y_1`, `y_5`, ...

    `log y_h` is regressed on the logarithms of the mean variance of the last day, week and month
    (`lags`). The exponential of a mean logarithm is too low for a mean: each forecast is times
    the mean of `y / forecast` in the training part.

    Args:
        frame: As `from_ohlc` makes it.
        until: Last stamp that training may see; the targets of a row must end by then.
        horizons: Days ahead that the target is the mean of.
        lags: Days of each mean; add 66 for a quarter.
        market: Also regress on the mean logarithm of all series, of the day and of `lags[1]` days.

    Returns:
        A forecast at each row from what is known on its day; NaN in the first days of a series,
        before the longest mean.

    References:
        Corsi, A simple approximate long-memory model of realized volatility, Journal of
        Financial Econometrics 7(2), 2009.
    """
    codes = _series(frame)
    y = frame["y"].to_numpy(np.float64)
    columns = [np.ones(len(y)), *(np.log(_window(y, codes, lag)) for lag in lags)]
    if market:
        index = frame["market_log_variance"].to_numpy(np.float64)
        columns += [index, _window(index, codes, lags[1])]
    inputs = np.stack(columns, axis=1)
    usable = np.isfinite(inputs).all(axis=1)
    ahead = targets(frame, horizons)
    made = {}
    for h in horizons:
        goal = ahead[f"y_{h}"].to_numpy()
        learn = usable & np.isfinite(goal) & _ends_by(frame["ds"].to_numpy(), codes, h, until)
        if learn.sum() <= inputs.shape[1]:
            raise ConfigError(
                f"{int(learn.sum())} rows to fit {inputs.shape[1]} coefficients on, {h} days ahead "
                f"and up to {until}",
                help="give a longer history, or a later end of training",
            )
        weights = np.linalg.lstsq(inputs[learn], np.log(goal[learn]), rcond=None)[0]
        f = np.exp(np.where(usable, inputs @ np.nan_to_num(weights), np.nan))
        made[f"y_{h}"] = f * np.mean(goal[learn] / f[learn])
    return pd.DataFrame(made, index=frame.index)


def qlike(y: Float[np.ndarray, " row"], f: Float[np.ndarray, " row"]) -> Float[np.ndarray, " row"]:
    """
    Loss of a forecast of variance: `y/f - log(y/f) - 1`, 0 when exact, else above.

    A forecast too low costs more than one too high. It ranks forecasts as the true variance
    would, although `y` is only a noisy measure of it.

    References:
        Patton, Volatility forecast comparison using imperfect volatility proxies, Journal of
        Econometrics 160(1), 2011.

    >>> qlike(np.array([1.0, 1.0]), np.array([1.0, 0.5])).round(4).tolist()
    [0.0, 0.3069]
    """
    ratio = y / f
    return np.asarray(ratio - np.log(ratio) - 1)


def diebold_mariano(
    loss: Float[np.ndarray, " row"],
    reference: Float[np.ndarray, " row"],
    days: Shaped[np.ndarray, " row"],
    *,
    horizon: int,
) -> tuple[float, float]:
    """
    Whether a model's losses are lower than a reference's, over days of many series.

    Series share their days, so what counts as one observation is the mean difference of a day.
    Targets overlap, so these are correlated. The variance of their mean is Newey & West's with
    `2 (horizon - 1)` lags at least or, if that is larger, the plain sum of the covariances within
    the horizon: Newey & West's alone is too small for a moving sum, and rejects at 5 % twice as
    often as it should. The correction of Harvey et al. is for few days.

    Args:
        loss: Of the model, a row a series and day; rows with NaN are left out.
        reference: Of the other one.
        days: Stamp of each row.
        horizon: Days that a target spans.

    Returns:
        The statistic, negative when the model is better, and the one-sided p value of a model
        that is no better scoring so well.

    Raises:
        ConfigError: No more days than a target spans.

    References:
        Diebold & Mariano, Comparing predictive accuracy, Journal of Business & Economic
        Statistics 13(3), 1995. Newey & West, A simple, positive semi-definite ... covariance
        matrix, Econometrica 55(3), 1987. Harvey, Leybourne & Newbold, Testing the equality of
        prediction mean squared errors, IJF 13(2), 1997.

    >>> days = np.arange(200)
    >>> statistic, p = diebold_mariano(days % 3.0, days % 3.0 + days % 2.0, days, horizon=1)
    >>> statistic < -5, p < 0.001
    (True, True)
    """
    daily = pd.Series(loss - reference).groupby(days, sort=True).mean().dropna().to_numpy()
    count = len(daily)
    if count <= horizon:
        raise ConfigError(
            f"{count} days with both losses cannot compare forecasts of {horizon} days",
            help="score a longer period",
        )
    centred = daily - daily.mean()
    lags = min(max(2 * (horizon - 1), int(4 * (count / 100) ** (2 / 9))), count - 1)
    own = centred @ centred / count
    covariance = np.array([centred[k:] @ centred[:-k] / count for k in range(1, lags + 1)])
    newey_west = own + 2 * (1 - np.arange(1, lags + 1) / (lags + 1)) @ covariance
    flat = own + 2 * covariance[: horizon - 1].sum()
    few = (count + 1 - 2 * horizon + horizon * (horizon - 1) / count) / count
    variance = max(newey_west, flat) / few
    if variance <= 0:  # the same difference on every day, or none at all
        sign = float(np.sign(daily.mean()))
        return (math.inf * sign if sign else 0.0), 0.5 * (1 + sign)
    statistic = float(daily.mean() / math.sqrt(variance / count))
    return statistic, 0.5 * math.erfc(-statistic / math.sqrt(2))


def _series(frame: pd.DataFrame) -> np.ndarray:
    """The number of each row's series; refused where rows are not in order."""
    codes = pd.factorize(frame["unique_id"])[0]
    ds = frame["ds"].to_numpy()
    wrong = (np.diff(codes) < 0) | ((np.diff(codes) == 0) & (ds[1:] <= ds[:-1]))
    if wrong.any():
        row = int(np.argmax(wrong)) + 1
        raise BadStamps(
            f"series {str(frame['unique_id'].iat[row])!r} has {ds[row]} after {ds[row - 1]}: "
            "expected the rows of a series together, in order of time",
            where=f"row {row} (counted from 0)",
            help='frame.sort_values(["unique_id", "ds"])',
        )
    return codes


def _window(
    values: Float[np.ndarray, " row"], codes: np.ndarray, length: int, *, shift: int = 0
) -> Float[np.ndarray, " row"]:
    """Mean of `length` rows, the last one `shift` before each; NaN where the series is short."""
    known = np.isfinite(values)
    total = np.r_[0.0, np.cumsum(np.where(known, values, 0.0))]
    count = np.r_[0, np.cumsum(known)]
    begins = np.flatnonzero(np.r_[True, codes[1:] != codes[:-1]])
    first = np.repeat(begins, np.diff(np.r_[begins, len(codes)]))
    end = np.arange(1, len(values) + 1) - shift
    start = np.maximum(end - length, 0)
    number = count[np.maximum(end, 0)] - count[start]
    mean = (total[np.maximum(end, 0)] - total[start]) / np.maximum(number, 1)
    return np.asarray(np.where((end - length >= first) & (number > 0), mean, np.nan))


def _ends_by(
    stamps: Shaped[np.ndarray, " row"], codes: np.ndarray, horizon: int, until: object
) -> Shaped[np.ndarray, " row"]:
    """Whether the row `horizon` rows later is of the same series and no later than `until`."""
    later = np.minimum(np.arange(len(stamps)) + horizon, len(stamps) - 1)
    inside = np.arange(len(stamps)) + horizon < len(stamps)
    early = stamps[later] <= np.asarray(until, stamps.dtype)
    return np.asarray(inside & (codes[later] == codes) & early)

"""
Baselines and scores for forecasts of daily variance.

Variances are those of daily log returns and have no unit: 1e-4 is a volatility of 1 % a day. A
frame is long (`unique_id`, `ds`, `y` and more) with one row a trading day, sorted by series and
day; otherwise `BadStamps` is raised. A day whose price range is not plausible has `y` NaN and
enters no mean, fit or score.

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
    Return the mean variance of the next `h` days at each row, in columns `y_1`, `y_5`, ...

    Days without a variance are left out of the mean. Rows followed by fewer than `h` rows are NaN.

    >>> days = pd.DataFrame({"unique_id": "a", "ds": [1, 2, 3], "y": [1.0, 2.0, 4.0]})
    >>> targets(days, [1, 2])["y_2"].tolist()
    [3.0, nan, nan]
    """
    codes = _series_codes(frame)
    y = frame["y"].to_numpy(np.float64)
    return pd.DataFrame(
        {f"y_{h}": _window_mean(y[::-1], codes[::-1], h, shift=1)[::-1] for h in horizons},
        index=frame.index,
    )


def ewma(frame: pd.DataFrame, *, decay: float = DECAY) -> Float[np.ndarray, " row"]:
    """
    Return the exponentially weighted mean of the variances up to each row, as RiskMetrics does.

    The forecast is the same for every horizon. Weights are scaled to sum to 1 from the first row.

    >>> days = pd.DataFrame({"unique_id": "a", "ds": [1, 2], "y": [1.0, 4.0]})
    >>> ewma(days, decay=0.5).tolist()
    [1.0, 3.0]
    """
    codes = _series_codes(frame)
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
    Forecast by a heterogeneous autoregression (HAR) in logarithms, fitted once for all series.

    `log y_h` is regressed on the logarithms of the mean variance of the last day, week and month
    (`lags`). The exponential of a mean logarithm is too low for a mean, so each forecast is
    multiplied by the mean of `y / forecast` over the training rows.

    Args:
        frame: Table that `from_ohlc` returns.
        until: Last stamp of the training data; the targets of a training row end by then.
        horizons: Numbers of days over which the targets are means.
        lags: Days of each mean; add 66 for a quarter.
        market: Also regress on the mean logarithm of all series, of the day and of `lags[1]` days.

    Returns:
        Columns `y_1`, `y_5`, ...: forecasts at each row from what is known on its day; NaN in the
        first days of a series, before the longest mean.

    Raises:
        ConfigError: There are no more training rows than coefficients.

    References:
        Corsi, A simple approximate long-memory model of realized volatility, Journal of
        Financial Econometrics 7(2), 2009.
    """
    codes = _series_codes(frame)
    y = frame["y"].to_numpy(np.float64)
    columns = [np.ones(len(y)), *(np.log(_window_mean(y, codes, lag)) for lag in lags)]
    if market:
        index = frame["market_log_variance"].to_numpy(np.float64)
        columns += [index, _window_mean(index, codes, lags[1])]
    inputs = np.stack(columns, axis=1)
    usable = np.isfinite(inputs).all(axis=1)
    ahead = targets(frame, horizons)
    forecasts = {}
    for h in horizons:
        target = ahead[f"y_{h}"].to_numpy()
        rows = usable & np.isfinite(target) & _ends_by(frame["ds"].to_numpy(), codes, h, until)
        if rows.sum() <= inputs.shape[1]:
            raise ConfigError(
                f"only {int(rows.sum())} rows to fit {inputs.shape[1]} coefficients, {h} days "
                f"ahead and up to {until}",
                help="give a longer history, or a later end of training",
            )
        weights = np.linalg.lstsq(inputs[rows], np.log(target[rows]), rcond=None)[0]
        f = np.exp(np.where(usable, inputs @ np.nan_to_num(weights), np.nan))
        forecasts[f"y_{h}"] = f * np.mean(target[rows] / f[rows])
    return pd.DataFrame(forecasts, index=frame.index)


def qlike(y: Float[np.ndarray, " row"], f: Float[np.ndarray, " row"]) -> Float[np.ndarray, " row"]:
    """
    Return the QLIKE loss of variance forecasts, `y/f - log(y/f) - 1`: 0 if exact, else positive.

    A forecast that is too low costs more than one that is too high. The loss is robust: its mean
    ranks forecasts as the true variance would, although `y` is only a noisy measure of it.

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
    Test whether a model's losses are lower than a reference's (Diebold & Mariano).

    One observation is the mean difference of a day over all series, since series of one day are
    not independent. Targets overlap, so the observations are correlated. The variance of their
    mean is that of Newey & West with at least `2 (horizon - 1)` lags or, if larger, the plain sum
    of the covariances within the horizon: that of Newey & West alone is too small for a moving
    sum, and rejects at 5 % twice as often as it should. Few days are corrected for as Harvey,
    Leybourne & Newbold do.

    Args:
        loss: Losses of the model, one row a series and day; rows with NaN are left out.
        reference: Losses of the reference.
        days: Stamp of each row.
        horizon: Days that a target spans.

    Returns:
        The statistic, negative if the model is better, and the one-sided p value: the probability
        of a statistic this low for a model that is no better.

    Raises:
        ConfigError: There are no more days than a target spans.

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
    small_sample = (count + 1 - 2 * horizon + horizon * (horizon - 1) / count) / count
    variance = max(newey_west, flat) / small_sample
    if variance <= 0:  # the same difference on every day
        sign = float(np.sign(daily.mean()))
        return (math.inf * sign if sign else 0.0), 0.5 * (1 + sign)
    statistic = float(daily.mean() / math.sqrt(variance / count))
    return statistic, 0.5 * math.erfc(-statistic / math.sqrt(2))


def _series_codes(frame: pd.DataFrame) -> np.ndarray:
    """Return the number of each row's series; raise `BadStamps` if rows are out of order."""
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


def _window_mean(
    values: Float[np.ndarray, " row"], codes: np.ndarray, length: int, *, shift: int = 0
) -> Float[np.ndarray, " row"]:
    """Return the mean of the `length` rows that end `shift` rows before each; NaN if fewer."""
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
    """Return True where the row `horizon` rows later is of the same series and by `until`."""
    later = np.minimum(np.arange(len(stamps)) + horizon, len(stamps) - 1)
    inside = np.arange(len(stamps)) + horizon < len(stamps)
    early = stamps[later] <= np.asarray(until, stamps.dtype)
    return np.asarray(inside & (codes[later] == codes) & early)

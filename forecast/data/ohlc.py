"""Daily variance from open, high, low, close."""

import math

import numpy as np
import pandas as pd
from jaxtyping import Float

from forecast.errors import MissingColumns

COVARIATES = ("return_std", "abs_return_std", "log_volume_ratio", "market_log_variance")
"""What `from_ohlc` adds: known up to the cutoff only."""
FLOOR = 1e-6
GLITCH = 0.4
"""A log return or a log range beyond this is taken for an error of the source."""
DECAY = 0.94
"""Of the moving averages, as RiskMetrics has it."""


def from_ohlc(frame: pd.DataFrame, *, close: str = "y") -> pd.DataFrame:
    """
    Daily variance and what helps to forecast it, from open, high, low, close and volume.

    The variance is Garman & Klass', Parkinson's where that is not positive, and at least 1e-6. A
    day has none when its close is more than 0.4 (log) away from the one before, or its high from
    its low: nearly always a slip of the decimal point in one price.

    Args:
        frame: `unique_id`, `ds`, `open`, `high`, `low`, the close, and `volume` if there is one.
        close: Name of the column with the close.

    Returns:
        Sorted by series and day: `unique_id`, `ds`, `y` (variance) and `COVARIATES`, all finite
        but `y`: the return over its running standard deviation up to the day before, the size of
        that, the logarithm of volume over its running mean up to the day before (0 without a
        volume), and the mean logarithm of all series' variances of the same day.

    Raises:
        MissingColumns: A price is not there.

    References:
        Garman & Klass, On the estimation of security price volatilities from historical data,
        Journal of Business 53(1), 1980. Parkinson, The extreme value method for estimating the
        variance of the rate of return, Journal of Business 53(1), 1980.

    >>> days = pd.DataFrame({"unique_id": "a", "ds": [1, 2], "open": [10.0, 10.0], "y": 10.0,
    ...                      "high": [10.1, 10.2], "low": [10.0, 9.9]})
    >>> from_ohlc(days)["y"].round(7).tolist()
    [4.95e-05, 0.0004456]
    """
    for name in ("unique_id", "ds", "open", "high", "low", close):
        if name not in frame.columns:
            raise MissingColumns(
                f"column {name!r} is not in the prices; they have "
                + ", ".join(repr(str(c)) for c in frame.columns),
                help="give open, high, low and close of each day",
            )
    frame = frame.sort_values(["unique_id", "ds"], kind="stable", ignore_index=True)
    log = {name: np.log(frame[name].to_numpy(np.float64)) for name in ("open", "high", "low")}
    last = np.log(frame[close].to_numpy(np.float64))
    span = log["high"] - log["low"]
    garman_klass = 0.5 * span**2 - (2 * math.log(2) - 1) * (last - log["open"]) ** 2
    variance = np.where(garman_klass > 0, garman_klass, span**2 / (4 * math.log(2)))
    codes = pd.factorize(frame["unique_id"])[0]
    change = _change(last, codes)
    odd = (np.abs(change) > GLITCH) | (np.abs(span) > GLITCH)
    change = np.where(odd, np.nan, change)
    y = np.where(odd, np.nan, np.maximum(variance, FLOOR))

    spread = np.sqrt(_before(_ema(change**2, codes), codes))
    standard = np.nan_to_num(change / np.maximum(spread, math.sqrt(FLOOR))).clip(-10.0, 10.0)
    ratio = np.zeros(len(y))
    if "volume" in frame.columns:
        volume = np.log1p(frame["volume"].to_numpy(np.float64))
        ratio = np.nan_to_num(volume - _before(_ema(volume, codes), codes))
    log_y = pd.Series(np.log(y))
    market = log_y.groupby(frame["ds"].to_numpy()).transform("mean").to_numpy()
    values = (standard, np.abs(standard), ratio, _forward(market, codes))
    made = {"unique_id": frame["unique_id"].to_numpy(), "ds": frame["ds"].to_numpy(), "y": y}
    return pd.DataFrame(made | dict(zip(COVARIATES, values, strict=True)))


def _change(values: Float[np.ndarray, " row"], codes: np.ndarray) -> Float[np.ndarray, " row"]:
    """Difference to the row before; NaN at the first of a series."""
    return np.asarray(values - _before(values, codes))


def _before(values: Float[np.ndarray, " row"], codes: np.ndarray) -> Float[np.ndarray, " row"]:
    """The value of the row before; NaN at the first of a series."""
    shifted = np.r_[np.nan, values[:-1]]
    return np.where(np.r_[True, codes[1:] != codes[:-1]], np.nan, shifted)


def _forward(values: Float[np.ndarray, " row"], codes: np.ndarray) -> Float[np.ndarray, " row"]:
    """NaN replaced by the value before it, and by that of 1 % a day where there is none before."""
    return np.asarray(pd.Series(values).groupby(codes).ffill().fillna(math.log(1e-4)))


def _ema(
    values: Float[np.ndarray, " row"], codes: np.ndarray, decay: float = DECAY
) -> Float[np.ndarray, " row"]:
    """Exponentially weighted mean up to each row, NaN left out, weights summing to 1."""
    means = pd.Series(values).groupby(codes, sort=False).ewm(alpha=1 - decay, ignore_na=True).mean()
    return np.asarray(means)

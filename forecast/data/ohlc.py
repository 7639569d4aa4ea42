"""Daily variance from open, high, low and close prices, with covariates to forecast it."""

import math

import numpy as np
import pandas as pd
from jaxtyping import Float

from forecast.errors import MissingColumns

COVARIATES = ("return_std", "abs_return_std", "log_volume_ratio", "market_log_variance")
"""Columns that `from_ohlc` adds; they are known up to the cutoff only."""
FLOOR = 1e-6
"""Smallest daily variance; a day with one price only would have 0."""
GLITCH = 0.4
"""Largest log return or log range; beyond it a price is taken for an error of the source."""
DECAY = 0.94
"""Decay per day of the exponential moving averages, as in RiskMetrics."""


def from_ohlc(frame: pd.DataFrame, *, close: str = "y") -> pd.DataFrame:
    """
    Compute the daily variance and covariates to forecast it from prices and volume.

    The variance is the Garman-Klass estimate, or Parkinson's where that is not positive, and at
    least 1e-6. It is NaN if the log return from the previous close, or the log range from low to
    high, is larger than 0.4 in size: nearly always one price has a misplaced decimal point.

    Args:
        frame: `unique_id`, `ds`, `open`, `high`, `low`, the close and, optionally, `volume`.
        close: Name of the column with the close.

    Returns:
        A frame sorted by series and day with `unique_id`, `ds`, `y` (variance) and `COVARIATES`:
        the return divided by its running standard deviation up to the day before; the absolute
        value of that; the logarithm of volume relative to its running mean up to the day before (0
        without a volume); and the mean log variance of all series on that day. The covariates are
        finite.

    Raises:
        MissingColumns: A price column is missing.

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
                f"column {name!r} is missing: found "
                + ", ".join(repr(str(column)) for column in frame.columns),
                help="give open, high, low and close of each day",
            )
    frame = frame.sort_values(["unique_id", "ds"], kind="stable", ignore_index=True)
    log = {name: np.log(frame[name].to_numpy(np.float64)) for name in ("open", "high", "low")}
    log_close = np.log(frame[close].to_numpy(np.float64))
    span = log["high"] - log["low"]
    garman_klass = 0.5 * span**2 - (2 * math.log(2) - 1) * (log_close - log["open"]) ** 2
    variance = np.where(garman_klass > 0, garman_klass, span**2 / (4 * math.log(2)))
    codes = pd.factorize(frame["unique_id"])[0]
    returns = log_close - _previous(log_close, codes)
    implausible = (np.abs(returns) > GLITCH) | (np.abs(span) > GLITCH)
    returns = np.where(implausible, np.nan, returns)
    y = np.where(implausible, np.nan, np.maximum(variance, FLOOR))

    deviation = np.sqrt(_previous(_ema(returns**2, codes), codes))
    standardized = np.nan_to_num(returns / np.maximum(deviation, math.sqrt(FLOOR)))
    standardized = standardized.clip(-10.0, 10.0)
    volume_ratio = np.zeros(len(y))
    if "volume" in frame.columns:
        volume = np.log1p(frame["volume"].to_numpy(np.float64))
        volume_ratio = np.nan_to_num(volume - _previous(_ema(volume, codes), codes))
    log_y = pd.Series(np.log(y))
    market = log_y.groupby(frame["ds"].to_numpy()).transform("mean").to_numpy()
    values = (standardized, np.abs(standardized), volume_ratio, _carry_forward(market, codes))
    columns = {"unique_id": frame["unique_id"].to_numpy(), "ds": frame["ds"].to_numpy(), "y": y}
    return pd.DataFrame(columns | dict(zip(COVARIATES, values, strict=True)))


def _previous(values: Float[np.ndarray, " row"], codes: np.ndarray) -> Float[np.ndarray, " row"]:
    """Return the value of the previous row of the series; NaN at its first row."""
    shifted = np.r_[np.nan, values[:-1]]
    return np.where(np.r_[True, codes[1:] != codes[:-1]], np.nan, shifted)


def _carry_forward(
    log_variance: Float[np.ndarray, " row"], codes: np.ndarray
) -> Float[np.ndarray, " row"]:
    """Replace NaN by the last value of the series, else by a deviation of 1 % a day."""
    return np.asarray(pd.Series(log_variance).groupby(codes).ffill().fillna(math.log(1e-4)))


def _ema(
    values: Float[np.ndarray, " row"], codes: np.ndarray, decay: float = DECAY
) -> Float[np.ndarray, " row"]:
    """Return the exponentially weighted mean up to each row, skipping NaN; weights sum to 1."""
    means = pd.Series(values).groupby(codes, sort=False).ewm(alpha=1 - decay, ignore_na=True).mean()
    return np.asarray(means)

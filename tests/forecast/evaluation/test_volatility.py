"""Variances of prices, linear baselines and their scores equal their formulas."""

import numpy as np
import pandas as pd
import pytest

from benchmarks.accuracy import stocks
from forecast.config import Config
from forecast.data.ohlc import COVARIATES, FLOOR, from_ohlc
from forecast.errors import BadStamps, ConfigError, MissingColumns
from forecast.evaluation.volatility import diebold_mariano, ewma, log_har, qlike, targets
from forecast.forecaster import Forecaster
from forecast.inference.forecasting import forecast
from forecast.inference.observing import warm_up


def prices(days=400, *, names=("a", "b", "c"), seed=0):
    """Return simulated prices of shares with slow and correlated volatilities."""
    rng = np.random.default_rng(seed)
    common = np.cumsum(rng.normal(0, 0.05, days))
    frames = []
    for name in names:
        sigma = 0.01 * np.exp(common - common.mean() + rng.normal(0, 0.1, days))
        path = rng.normal(0, 1, (days, 32)).cumsum(axis=1) * sigma[:, None] / np.sqrt(32)
        close = 50 * np.exp(np.cumsum(path[:, -1]))
        begin = close / np.exp(path[:, -1])
        frames.append(
            pd.DataFrame(
                {
                    "unique_id": name,
                    "ds": pd.bdate_range("2010-01-01", periods=days),
                    "y": close,
                    "open": begin,
                    "high": begin * np.exp(np.maximum(path.max(axis=1), 0)),
                    "low": begin * np.exp(np.minimum(path.min(axis=1), 0)),
                    "volume": rng.integers(1000, 5000, days).astype(float),
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


def test_variance_is_garman_klass_parkinson_or_the_floor():
    """Parkinson's applies if the close is outside the range, the floor if no price moved."""
    frame = pd.DataFrame({
        "unique_id": "a", "ds": [1, 2, 3], "open": [100.0, 100.0, 101.0],
        "high": [102.0, 101.0, 101.0], "low": [99.0, 100.0, 101.0], "y": [101.0, 101.0, 101.0],
    })  # fmt: skip
    frame.loc[1, ["high", "open"]] = 100.6, 100.0  # a close above the high

    y = from_ohlc(frame)["y"].to_numpy()

    span, move = np.log(102 / 99), np.log(101 / 100)
    assert y[0] == pytest.approx(0.5 * span**2 - (2 * np.log(2) - 1) * move**2)
    assert y[1] == pytest.approx(np.log(100.6 / 100) ** 2 / (4 * np.log(2)))
    assert y[2] == FLOOR


def test_a_misplaced_decimal_point_is_not_observed():
    """Days with a wrong low or a wrong close have no variance; covariates stay finite."""
    frame = prices(60)
    frame.loc[20, "low"] /= 10
    frame.loc[90, ["open", "high", "low", "y"]] /= 10

    days = from_ohlc(frame)

    assert np.flatnonzero(days["y"].isna()).tolist() == [20, 90, 91]
    assert np.isfinite(days[list(COVARIATES)].to_numpy()).all()


@pytest.mark.parametrize("name", ["y", *COVARIATES])
def test_prices_after_a_day_change_nothing_on_it(name):
    """Every column of `from_ohlc` is causal, within a series and across series."""
    frame = prices(80)
    cut = frame["ds"].iloc[50]
    other = frame.copy()
    columns = ["y", "open", "high", "low", "volume"]
    other.loc[other["ds"] > cut, columns] *= 1.1

    before = frame["ds"] <= cut
    assert from_ohlc(frame)[name][before].equals(from_ohlc(other)[name][before])


def test_the_market_column_is_the_mean_over_the_series_of_a_day():
    """It is the mean logarithm of the variances of all series on that day."""
    days = from_ohlc(prices(30))

    day = days[days["ds"] == days["ds"].iloc[7]]
    assert day["market_log_variance"].to_numpy() == pytest.approx(np.log(day["y"]).mean())


def test_a_missing_price_column_is_named():
    """The error for a table without low prices names the column."""
    with pytest.raises(MissingColumns, match="'low'"):
        from_ohlc(prices(30).drop(columns="low"))


def test_targets_and_ewma_equal_their_loops():
    """Both leave days without a variance out of their means."""
    frame = from_ohlc(prices(40))
    frame.loc[[5, 60], "y"] = np.nan
    wide = frame["y"].to_numpy().reshape(3, 40)

    values = targets(frame, [1, 5]).to_numpy().reshape(3, 40, 2)
    smooth = ewma(frame).reshape(3, 40)

    for row in range(3):
        top = bottom = 0.0
        for t in range(40):
            for i, h in enumerate((1, 5)):
                ahead = wide[row, t + 1 : t + 1 + h]
                known = ahead[~np.isnan(ahead)]
                expected = known.mean() if len(ahead) == h and len(known) else np.nan
                assert values[row, t, i] == pytest.approx(expected, nan_ok=True)
            if not np.isnan(wide[row, t]):
                top, bottom = 0.94 * top + wide[row, t], 0.94 * bottom + 1
            assert smooth[row, t] == pytest.approx(top / bottom)


def test_log_har_recovers_the_coefficients_of_its_data():
    """If tomorrow's logarithm is 0.6 of today's plus a constant, forecasts are nearly exact."""
    log_y = np.zeros(300)
    for t in range(1, 300):
        log_y[t] = -3 + 0.6 * log_y[t - 1] if t % 30 else -9.0
    frame = pd.DataFrame({"unique_id": "a", "ds": np.arange(300), "y": np.exp(log_y)})
    regular = np.arange(300) % 30 != 29

    values = log_har(frame, until=299, horizons=(1,), lags=(1,))["y_1"].to_numpy()

    error = np.log(values[:-1]) - log_y[1:]
    assert np.corrcoef(np.log(values[:-1])[regular[:-1]], log_y[1:][regular[:-1]])[0, 1] > 0.999
    assert np.mean(np.exp(-error)) == pytest.approx(1.0)


def test_log_har_ignores_values_after_its_end():
    """Later values do not change the coefficients; forecasts are unbiased before the end."""
    frame = from_ohlc(prices(300))
    end = frame["ds"].iloc[200]
    other = frame.copy()
    other.loc[other["ds"] > end, "y"] *= 7.0

    for market in (False, True):
        one, two = (log_har(f, until=end, market=market, lags=(1, 5, 22)) for f in (frame, other))
        early = (frame["ds"] <= end).to_numpy()
        pd.testing.assert_frame_equal(one[early], two[early])
    ratio = targets(frame)["y_1"] / one["y_1"]
    learned = frame.groupby("unique_id").cumcount() < 200
    assert ratio[learned].mean() == pytest.approx(1.0)


def test_log_har_with_too_few_rows_is_refused():
    """More coefficients than rows cannot be fitted."""
    frame = from_ohlc(prices(60))

    with pytest.raises(ConfigError, match="coefficients"):
        log_har(frame, until=frame["ds"].iloc[10])


def test_qlike_is_lowest_at_the_mean():
    """The constant forecast with the lowest mean loss is the mean of the values."""
    y = np.random.default_rng(0).gamma(1.0, 1.0, 500)
    constant = np.linspace(0.5, 2.0, 301)

    losses = [qlike(y, np.full(500, c)).mean() for c in constant]

    assert constant[np.argmin(losses)] == pytest.approx(y.mean(), abs=0.006)
    assert qlike(y, y) == pytest.approx(0.0)


def test_diebold_mariano_counts_days_not_rows():
    """Ten copies of a series give the same result as one; exchanged losses give 1 - p."""
    rng = np.random.default_rng(0)
    days = np.arange(300)
    better, worse = rng.gamma(2.0, 1.0, 300), rng.gamma(2.0, 1.15, 300)

    one = diebold_mariano(better, worse, days, horizon=5)
    ten = diebold_mariano(*(np.tile(x, 10) for x in (better, worse, days)), horizon=5)

    assert ten == pytest.approx(one)
    assert one[1] + diebold_mariano(worse, better, days, horizon=5)[1] == pytest.approx(1.0)
    assert diebold_mariano(better, better, days, horizon=5) == (0.0, 0.5)
    with pytest.raises(ConfigError, match="longer period"):
        diebold_mariano(better[:5], worse[:5], days[:5], horizon=5)


def test_diebold_mariano_keeps_its_level_when_targets_overlap():
    """The test rejects about 5 % of comparisons of equally good forecasts."""
    rng = np.random.default_rng(1)
    noise = rng.normal(size=(400, 1021))
    overlapping = np.stack([np.convolve(row, np.ones(22), "valid") for row in noise])
    days = np.arange(overlapping.shape[1])

    p = [diebold_mariano(row, 0 * row, days, horizon=22)[1] for row in overlapping]

    assert 0.02 < np.mean(np.array(p) < 0.05) < 0.09


def test_rolling_states_forecast_like_new_ones_on_each_day():
    """A state that moved on day by day forecasts the same as one warmed up to that day."""
    frame = prices(140)[["unique_id", "ds", "y"]]
    config = Config.from_dict(
        {
            "data": {"kind": "positive"},
            "model": {"hidden_size": 8},
            "train": {"max_steps": 3},
        }
    )
    fitted = Forecaster(h=stocks.H, freq="B", config=config).fit(frame)
    panel = stocks.lay_out(frame, fitted.bundle_)

    rolled = stocks.roll(fitted.bundle_, panel, frame["ds"].iloc[99], (0.1, 0.9))

    assert rolled.origin[0, 0] == frame["ds"].iloc[100].value
    assert len(rolled.origin) == 40 - stocks.H
    states = warm_up(fitted.bundle_, panel.head(np.full(3, 111)))
    outputs = forecast(fitted.bundle_, states, quantiles=(0.1, 0.9))
    assert rolled.point[10] == pytest.approx(outputs[..., 0], rel=1e-5)
    assert rolled.next_day[10] == pytest.approx(outputs[:, 0, 1:], rel=1e-5)
    values = frame["y"].to_numpy().reshape(3, 140)
    assert rolled.last[10] == pytest.approx(values[:, 110])
    assert rolled.y[10] == pytest.approx(values[:, 111 : 111 + stocks.H])


@pytest.mark.parametrize("order", [["ds", "unique_id"], None])
def test_the_order_of_prices_does_not_matter(order):
    """Rows sorted by day or shuffled give the same table."""
    rows = prices(60)
    other = rows.sort_values(order) if order else rows.sample(frac=1, random_state=0)

    pd.testing.assert_frame_equal(from_ohlc(other), from_ohlc(rows))


@pytest.mark.parametrize(
    "function", [targets, ewma, lambda days: log_har(days, until=days["ds"].max())]
)
def test_rows_that_are_not_grouped_by_series_are_refused(function):
    """The result of each row would otherwise mix the days of several shares."""
    days = from_ohlc(prices(60)).sort_values(["ds", "unique_id"], ignore_index=True)

    with pytest.raises(BadStamps, match="rows of a series together") as caught:
        function(days)
    assert "sort_values" in caught.value.help

"""Baselines have the right stamps and values on every calendar, and no NaN forecasts."""

import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest

from forecast.calendars.calendar import Calendar
from forecast.errors import ConfigError, MissingFuture, TooShort
from forecast.evaluation.baselines import (
    BOOSTED,
    INTERMITTENT,
    MODELS,
    STATISTICAL,
    cross_validate,
    forecast,
    naive2,
)

CHEAP = ("SeasonalNaive", "Drift")


def example(name: str, num_series: int, length: int) -> pd.DataFrame:
    """Return the last `length` steps of the first series of a bundled file."""
    frame = pd.read_parquet(f"examples/data/{name}.parquet")[["unique_id", "ds", "y"]]
    frame = frame[frame["unique_id"].isin(sorted(frame["unique_id"].unique())[:num_series])]
    frame["ds"] = frame["ds"].astype("datetime64[ns]")
    frame = frame.sort_values(["unique_id", "ds"])
    return frame.groupby("unique_id").tail(length).reset_index(drop=True)


def test_seasonal_naive_and_drift_equal_their_formulas():
    """The first repeats the last season; the second extends the line from first to last value."""
    frame = example("monthly_retail", 2, 30)

    table = forecast(frame, Calendar("MS"), horizon=14, season_length=12, models=CHEAP)

    for name, series in frame.groupby("unique_id"):
        y = series["y"].to_numpy()
        own = table[table["unique_id"] == name]
        step = np.arange(1, 15)
        expected = y[len(y) - 12 + (step - 1) % 12]
        np.testing.assert_allclose(own["SeasonalNaive"], expected)
        np.testing.assert_allclose(own["Drift"], y[-1] + step * (y[-1] - y[0]) / (len(y) - 1))


@pytest.mark.parametrize(
    ("name", "freq"),
    [("monthly_retail", "MS"), ("weekly_sales", "W-THU"), ("daily_stocks", "XNYS")],
)
def test_stamps_of_a_backtest_are_those_of_the_data(name, freq):
    """For months, weeks and exchange sessions, every `y` is the value at its stamp."""
    frame = example(name, 2, 60)

    cv = cross_validate(
        frame, Calendar(freq), horizon=5, n_windows=3, step_size=2, season_length=4, models=CHEAP
    )

    joined = cv.merge(frame, on=["unique_id", "ds"], suffixes=("", "_data"), validate="m:1")
    assert len(joined) == len(cv) == 2 * 3 * 5
    assert (joined["y"] == joined["y_data"]).all()
    assert (cv["ds"] > cv["cutoff"]).all()
    assert cv.equals(cv.sort_values(["unique_id", "cutoff", "ds"]))


def test_integer_steps_stay_integers():
    """A frame stamped 10, 11, ... is forecast for the integers that follow."""
    frame = example("monthly_retail", 1, 24)
    frame["ds"] = np.arange(10, 34)

    table = forecast(frame, Calendar(1), horizon=3, season_length=12, models=CHEAP)

    assert table["ds"].tolist() == [34, 35, 36]


def test_each_cutoff_sees_only_what_precedes_it():
    """Noise after a cutoff changes no forecast of any baseline."""
    frame = example("monthly_retail", 1, 60)
    noisy = frame.copy()
    noisy.loc[noisy.index[-6:], "y"] = [1e6, 0.0, 5.0, 1e7, 2.0, 9.0]
    settings = {"horizon": 6, "season_length": 12, "levels": (80,), "models": MODELS}

    before = cross_validate(frame, Calendar("MS"), **settings)
    after = cross_validate(noisy, Calendar("MS"), **settings)

    pd.testing.assert_frame_equal(before.drop(columns="y"), after.drop(columns="y"))


def test_windows_equal_forecasts_from_the_cut_series():
    """The first of two windows equals `forecast` on series that end at its cutoff."""
    frame = example("monthly_retail", 2, 48)
    settings = {"horizon": 4, "season_length": 12, "models": CHEAP, "levels": (80, 95)}

    cv = cross_validate(frame, Calendar("MS"), n_windows=2, step_size=3, **settings)

    cut = frame[frame.groupby("unique_id").cumcount(ascending=False) >= 7]
    expected = forecast(cut, Calendar("MS"), **settings)
    first = cv[cv["cutoff"] == cv["cutoff"].min()].drop(columns=["cutoff", "y"])
    pd.testing.assert_frame_equal(first.reset_index(drop=True), expected)


def test_intervals_surround_the_point_and_nest():
    """For every model, lo-95 <= lo-80 <= point <= hi-80 <= hi-95."""
    frame = example("monthly_retail", 2, 72)

    models = (*STATISTICAL, BOOSTED)
    table = forecast(
        frame, Calendar("MS"), horizon=6, season_length=12, levels=(95, 80), models=models
    )

    for model in models:
        ends = ["-lo-95", "-lo-80", "", "-hi-80", "-hi-95"]
        ordered = table[[model + end for end in ends]].to_numpy()
        least = 0 if model == BOOSTED else 1e-9  # its errors may have one sign
        assert (np.diff(ordered, axis=1) >= least).all(), model
        assert (ordered[:, 0] < ordered[:, -1]).all(), model


@pytest.mark.parametrize("length", [1, 2, 3, 5, 11, 13])
def test_series_too_short_for_a_model_get_the_naive_forecast(length):
    """Every column of every model is a number, and the other series do not change."""
    long, short = example("monthly_retail", 1, 48), example("monthly_retail", 2, length)
    short = short[short["unique_id"] != long["unique_id"].iloc[0]]
    frame = pd.concat([long, short], ignore_index=True)

    table = forecast(frame, Calendar("MS"), horizon=3, season_length=12, levels=(80, 95))

    alone = forecast(long, Calendar("MS"), horizon=3, season_length=12, levels=(80, 95))
    pd.testing.assert_frame_equal(table[:3], alone)
    assert np.isfinite(table.drop(columns=["unique_id", "ds"]).to_numpy()).all()
    if length < 5:
        last = short["y"].iloc[-1]
        assert (table["AutoETS"][3:] == last).all()
        assert (table["AutoETS-lo-95"][3:] <= table["AutoETS-lo-80"][3:]).all()
        assert (table["AutoETS-hi-80"][3:] <= table["AutoETS-hi-95"][3:]).all()


def test_a_constant_series_is_forecast_at_its_value():
    """Every model repeats the value of the series."""
    frame = example("monthly_retail", 1, 48).assign(y=7.0)

    settings = {"horizon": 3, "season_length": 12, "levels": (80,), "models": MODELS}

    table = forecast(frame, Calendar("MS"), **settings)

    np.testing.assert_allclose(table[list(MODELS)], 7.0, atol=1e-6)
    assert np.isfinite(table.drop(columns=["unique_id", "ds"]).to_numpy()).all()


def test_missing_values_are_filled_forward():
    """Models see the last value before NaN; the returned `y` keeps its NaN."""
    frame = example("monthly_retail", 1, 40)
    frame.loc[[0, 9, 10, 38], "y"] = np.nan
    settings = {"horizon": 3, "season_length": 12, "models": CHEAP}

    cv = cross_validate(frame, Calendar("MS"), **settings)

    filled = frame.assign(y=frame["y"].ffill().bfill())
    expected = cross_validate(filled, Calendar("MS"), **settings)
    pd.testing.assert_frame_equal(cv.drop(columns="y"), expected.drop(columns="y"))
    assert cv["y"].isna().tolist() == [False, True, False]


def test_warnings_as_errors_change_no_forecast():
    """A model that warns is not replaced by the naive one if the caller makes warnings errors."""
    frame = example("monthly_retail", 1, 9)
    settings = {"horizon": 3, "season_length": 12, "levels": (80,)}

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        strict = forecast(frame, Calendar("MS"), **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lenient = forecast(frame, Calendar("MS"), **settings)

    pd.testing.assert_frame_equal(strict, lenient)


def test_a_series_shorter_than_the_backtest_is_refused():
    """The error counts the series, names one and says how many steps are needed."""
    frame = pd.concat([example("monthly_retail", 1, 30), example("weekly_sales", 1, 8)])
    frame = frame.reset_index(drop=True)

    with pytest.raises(TooShort, match=r"1 of 2 series have nothing before .* more than 8 steps"):
        cross_validate(frame, Calendar("MS"), horizon=6, n_windows=2, step_size=2, season_length=12)


def test_an_unknown_baseline_is_refused():
    """The message lists the known baselines."""
    frame = example("monthly_retail", 1, 30)

    with pytest.raises(ConfigError, match="'Prophet' is not a baseline") as caught:
        forecast(frame, Calendar("MS"), horizon=2, season_length=12, models=["Prophet"])

    assert "AutoETS" in caught.value.help


def test_naive2_follows_a_clear_season():
    """A multiplicative season around a level continues in the forecast."""
    season = np.array([0.5, 1.0, 1.5, 1.0])
    history = 10.0 * np.tile(season, 8)

    values = naive2(history, horizon=6, season_length=4)

    np.testing.assert_allclose(values, 10.0 * np.tile(season, 2)[:6])


def test_naive2_is_the_last_value_without_a_season():
    """Histories that are too short, constant or without a season repeat the last value."""
    rng = np.random.default_rng(0)
    noise = 100.0 + rng.normal(size=60)

    assert naive2(np.arange(1.0, 9.0), horizon=2, season_length=4).tolist() == [8.0, 8.0]
    assert naive2(np.full(40, 3.0), horizon=2, season_length=4).tolist() == [3.0, 3.0]
    assert naive2(noise, horizon=2, season_length=4).tolist() == [noise[-1]] * 2


def test_importing_the_module_does_not_import_statsforecast():
    """A server without the `trainer` extra can import the module."""
    code = "import sys, forecast.evaluation.baselines; sys.exit('statsforecast' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def demand(num_series: int = 8, length: int = 84) -> pd.DataFrame:
    """Return counts with many zeros and a weekly season."""
    rng = np.random.default_rng(0)
    mean = 0.6 * (1 + 0.9 * np.sin(np.arange(length) * 2 * np.pi / 7))
    days = pd.date_range("2024-01-01", periods=length)
    parts = [
        pd.DataFrame({"unique_id": f"s{i}", "ds": days, "y": rng.poisson(mean).astype(float)})
        for i in range(num_series)
    ]
    return pd.concat(parts, ignore_index=True)


def promoted_demand() -> pd.DataFrame:
    """Return counts that are 10 higher on one day in five, which the column `promo` marks."""
    frame = demand()
    frame["promo"] = np.random.default_rng(1).random(len(frame)) < 0.2
    return frame.assign(y=frame["y"] + 10 * frame["promo"])


def test_intermittent_models_forecast_a_flat_mean_without_intervals():
    """Columns are in the order of `models`, without intervals for intermittent models."""
    frame = demand()
    models = ("TSB", "SeasonalNaive", "CrostonOptimized")

    table = forecast(frame, Calendar("D"), horizon=4, season_length=7, models=models, levels=(80,))

    assert table.columns.tolist() == [
        "unique_id",
        "ds",
        "TSB",
        "SeasonalNaive",
        "SeasonalNaive-lo-80",
        "SeasonalNaive-hi-80",
        "CrostonOptimized",
    ]
    for model in INTERMITTENT:
        assert (table.groupby("unique_id")[model].nunique() == 1).all()
        assert table[model].mean() == pytest.approx(frame["y"].mean(), rel=0.5)


def test_covariates_change_only_the_boosted_model():
    """Other models ignore them; a step without its covariates raises an error."""
    frame = promoted_demand()
    days = pd.date_range(frame["ds"].max(), periods=5)[1:]
    future = pd.MultiIndex.from_product([frame["unique_id"].unique(), days]).to_frame(index=False)
    future.columns = ["unique_id", "ds"]
    settings = {
        "horizon": 4,
        "season_length": 7,
        "models": ("SeasonalNaive", BOOSTED),
        "known_future": ("promo",),
    }

    without, promoted = (
        forecast(frame, Calendar("D"), future=future.assign(promo=promo), **settings)
        for promo in (False, True)
    )

    assert (without["SeasonalNaive"] == promoted["SeasonalNaive"]).all()
    assert (promoted[BOOSTED] - without[BOOSTED]).mean() > 5
    with pytest.raises(MissingFuture, match="8 of 32 steps to forecast have no promo"):
        forecast(frame, Calendar("D"), future=future[future["ds"] < days[3]], **settings)


def test_a_backtest_gives_the_boosted_model_the_covariates_of_its_horizon():
    """Known-future columns are read at the steps to forecast; `y` is not."""
    frame = promoted_demand()
    settings = {
        "horizon": 5,
        "n_windows": 2,
        "step_size": 5,
        "season_length": 7,
        "models": (BOOSTED,),
    }

    without = cross_validate(frame, Calendar("D"), **settings)
    promoted = cross_validate(frame, Calendar("D"), known_future=("promo",), **settings)

    def error(cv: pd.DataFrame) -> float:
        return float((cv[BOOSTED] - cv["y"]).abs().mean())

    assert error(promoted) < 0.5 * error(without)

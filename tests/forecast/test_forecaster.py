"""The Forecaster trains on, backtests and forecasts tables of pandas and polars."""

from dataclasses import replace

import numpy as np
import pandas as pd
import polars as pl
import pytest
from utilsforecast.evaluation import evaluate
from utilsforecast.losses import mae

from forecast.config import Config, DataConfig
from forecast.errors import (
    ConfigError,
    MissingColumns,
    MissingFuture,
    NegativeValues,
    NotFitted,
    UnknownQuantile,
    UnseenHorizon,
)
from forecast.forecaster import Forecaster
from tests.helpers.paths import EXAMPLES


@pytest.fixture(scope="module")
def weekly() -> pd.DataFrame:
    """Return weekly sales of ten products with price and promotion."""
    frame = pd.read_parquet(EXAMPLES / "weekly_sales.parquet")
    return frame[frame["unique_id"].isin(sorted(frame["unique_id"].unique())[:10])]


@pytest.fixture(scope="module")
def weekly_config(quick) -> Config:
    """Return settings with price and promotion as known-future covariates."""
    return replace(quick, data=DataConfig(known_future=("price", "deal", "feat")))


def test_backtests_can_be_evaluated_by_utilsforecast(retail, quick):
    """Backtests of pandas and polars tables have the same columns and rows."""
    forecaster = Forecaster(h=6, config=quick)

    cv = forecaster.cross_validation(retail, n_windows=2, step_size=6, level=[80, 95])
    same = forecaster.cross_validation(
        pl.from_pandas(retail), n_windows=2, step_size=6, level=[80, 95]
    )
    scores = evaluate(cv, [mae], models=["statecast"])

    assert cv.columns.tolist() == [
        "unique_id",
        "ds",
        "cutoff",
        "y",
        "statecast",
        "statecast-lo-80",
        "statecast-hi-80",
        "statecast-lo-95",
        "statecast-hi-95",
    ]
    assert isinstance(same, pl.DataFrame)
    np.testing.assert_allclose(same["statecast"].to_numpy(), cv["statecast"].to_numpy())
    assert len(scores) == 2 * retail["unique_id"].nunique()
    assert scores["statecast"].notna().all()


@pytest.mark.parametrize("change", [lambda y: -y, lambda y: 0 * y, lambda y: 1000 * y])
def test_values_after_the_first_cutoff_change_no_forecast_from_it(retail, quick, change):
    """The kind of the values is detected before the cutoff: later zeros do not make them counts."""
    last = retail.groupby("unique_id").tail(12).index
    changed = retail.copy()
    changed.loc[last, "y"] = change(changed.loc[last, "y"])

    def first(frame):
        cv = Forecaster(h=6, config=quick).cross_validation(frame, n_windows=2, step_size=6)
        return cv.loc[cv["cutoff"] == cv["cutoff"].min(), "statecast"].to_numpy()

    if (changed["y"] < 0).any():
        with pytest.raises(NegativeValues, match="before the first cutoff are of kind='positive'"):
            first(changed)
        return
    np.testing.assert_array_equal(first(changed), first(retail))


def test_impossible_requests_are_refused_with_a_reason(retail, quick):
    """Horizons, levels and window counts out of range raise errors that name the range."""
    six, sixteen = np.array([6, 16])
    forecaster = Forecaster(config=quick)
    forecaster.set_params(h=six, config__model__hidden_size=sixteen).fit(retail)

    with pytest.raises(ConfigError, match="between 1 and 10,000"):
        forecaster.sample(20_000)
    for h in (-1, 0, 61):
        for method in (forecaster.predict, forecaster.sample):
            with pytest.raises(UnseenHorizon, match="is not possible"):
                method(h=h)
    with pytest.raises(UnknownQuantile, match="expected percent, such as 80") as caught:
        forecaster.predict(level=[0.8])
    assert "ask for 80" in caught.value.help
    for one in ({"level": 80}, {"quantiles": 0.9}):
        many = {name: [value] for name, value in one.items()}
        pd.testing.assert_frame_equal(forecaster.predict(**one), forecaster.predict(**many))
    for windows in ({"n_windows": 0}, {"n_windows": 2, "step_size": 0}):
        with pytest.raises(ConfigError, match="must both be at least 1"):
            forecaster.cross_validation(retail, **windows)


def test_known_future_covariates_move_the_forecast(weekly, weekly_config):
    """Another future price gives another forecast; missing prices are refused by column name."""
    forecaster = Forecaster(h=4, config=weekly_config).fit(weekly)
    future = pd.read_parquet(EXAMPLES / "weekly_sales_future.parquet")
    dearer = future.assign(price=2 * future["price"])

    usual = forecaster.predict(futr_df=future, level=[80])
    changed = forecaster.predict(futr_df=dearer)

    assert not np.allclose(usual["statecast"], changed["statecast"])
    assert (usual["statecast-lo-80"] <= usual["statecast"]).all()
    assert (usual["statecast-lo-80"] >= 0).all()
    with pytest.raises(MissingFuture, match="price, deal"):
        forecaster.predict()
    with pytest.raises(MissingFuture):
        forecaster.predict(futr_df=future.groupby("unique_id").head(3))
    with pytest.raises(MissingColumns, match="feat"):
        forecaster.predict(futr_df=future.drop(columns="feat"))


def test_covariates_after_the_horizon_change_no_forecast(weekly, weekly_config):
    """A shorter horizon reads only the future covariates of its own steps."""
    forecaster = Forecaster(h=4, config=weekly_config).fit(weekly)
    future = pd.read_parquet(EXAMPLES / "weekly_sales_future.parquet")
    later = future.groupby("unique_id").cumcount() >= 2
    changed = future.assign(price=future["price"].where(~later, 99.0))

    pd.testing.assert_frame_equal(
        forecaster.predict(h=2, futr_df=future), forecaster.predict(h=2, futr_df=changed)
    )


def test_columns_ids_and_stamps_are_returned_as_they_were_passed(quick):
    """Output frames have the column names, integer ids and integer stamps of the input."""
    t = np.arange(80)
    frame = pd.DataFrame(
        {
            "shop": np.repeat([7, 3], 80),
            "week": np.tile(t, 2),
            "sales": np.r_[50 + 10 * np.sin(t / 3), 20 + 5 * np.cos(t / 3)],
        }
    )
    forecaster = Forecaster(h=5, freq=1, config=quick)

    forecaster.fit(frame, id_col="shop", time_col="week", target_col="sales")
    out = forecaster.predict(quantiles=[0.9])

    assert out.columns.tolist() == ["shop", "week", "statecast", "statecast_ql0.9"]
    assert sorted(out["shop"].unique()) == [3, 7]
    assert out["week"].unique().tolist() == [80, 81, 82, 83, 84]


def test_training_accepts_a_series_of_one_row(retail, quick):
    """A product with a single sale is forecast like the others."""
    new = retail.tail(1).assign(unique_id="new", y=250.0)

    forecaster = Forecaster(h=3, config=quick).fit(pd.concat([retail, new]))

    assert forecaster.predict(level=80).query("unique_id == 'new'")["statecast"].gt(0).sum() == 3


def test_a_series_may_be_named_by_two_columns(quick):
    """History, future covariates and new observations are all joined by both columns."""
    t = np.arange(80)
    history = pd.DataFrame(
        {
            "shop": np.repeat([7, 3], 80),
            "sku": "tea",
            "ds": np.tile(t, 2),
            "y": np.tile(50 + 10 * np.sin(t / 3), 2),
            "price": 2.0,
        }
    )
    ahead = history.groupby("shop").head(5).assign(ds=lambda f: f["ds"] + 80).drop(columns="y")
    names = {"freq": 1, "id_from": ["shop", "sku"], "known_future": ["price"]}
    forecaster = Forecaster(h=5, config=Config.from_dict({**quick.to_dict(), "data": names}))

    forecaster.fit(history)
    before = forecaster.predict(futr_df=ahead)
    forecaster.observe(ahead[ahead["ds"] == 80].assign(y=60.0))

    assert before["unique_id"].unique().tolist() == ["3/tea", "7/tea"]
    assert forecaster.predict(h=4, futr_df=ahead[ahead["ds"] > 80])["ds"].min() == 81


def test_missing_steps_may_be_masked(retail, quick):
    """With fill="mask" a missing step counts as not observed, not as a value."""
    holes = retail.drop(retail.groupby("unique_id").nth([-20, -7]).index)

    masked = Forecaster(h=6, config=quick).fit(holes, fill="mask").predict()
    whole = Forecaster(h=6, config=quick).fit(retail).predict()

    assert masked["ds"].tolist() == whole["ds"].tolist()
    ratio = masked["statecast"] / whole["statecast"]
    assert ratio.between(0.8, 1.25).all()


def test_negative_data_are_forecast_as_real(quick):
    """Temperatures or balances may cross zero, and so may their forecasts."""
    rng = np.random.default_rng(0)
    y = 5 * np.sin(np.arange(200) * 2 * np.pi / 7) + rng.normal(0, 0.5, 200)
    frame = pd.DataFrame({"unique_id": "t", "ds": pd.date_range("2024-01-01", periods=200), "y": y})

    out = Forecaster(h=7, config=quick).fit(frame).predict(level=[80])

    assert (out["statecast"] < 0).any()
    assert np.abs(out["statecast"].to_numpy() - y[-7:]).mean() < 1.5


def test_counts_have_no_negative_quantile(quick):
    """Every quantile of sales with many zeros is at or above zero."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "unique_id": np.repeat(["a", "b"], 120),
            "ds": np.tile(pd.date_range("2024-01-01", periods=120), 2),
            "y": rng.poisson(0.8, 240).astype(float),
        }
    )

    out = Forecaster(h=7, config=quick).fit(frame).predict(level=[80, 95])

    assert (out.drop(columns=["unique_id", "ds"]) >= 0).all().all()


@pytest.mark.parametrize(("weekdays", "kind"), [((6,), "count"), ((), "positive")])
def test_a_closed_shop_is_forecast_as_exactly_zero(weekdays, kind):
    """The model learns from a covariate on which days nothing can be sold."""
    days = pd.date_range("2024-01-01", periods=314, freq="D")
    closed = days.weekday.isin(weekdays) | (days.day == 1)
    rng = np.random.default_rng(3)
    frame = pd.concat(
        pd.DataFrame(
            {
                "unique_id": f"shop{i}",
                "ds": days,
                "open": 1.0 - closed,
                "y": np.round(100 * (i + 1) * rng.lognormal(0, 0.1, len(days))) * ~closed,
            }
        )
        for i in range(12)
    )
    known, ahead = (frame[(frame["ds"] < "2024-10-27") == early] for early in (True, False))
    config = Config.from_dict(
        {
            "data": {"known_future": ["open"]},
            "model": {"hidden_size": 16},
            "train": {"max_steps": 800},
        }
    )

    forecaster = Forecaster(h=14, config=config).fit(known)
    merged = forecaster.predict(futr_df=ahead).merge(ahead, on=["unique_id", "ds"])

    assert forecaster.bundle_.config.data.kind == kind
    assert (merged.loc[merged["open"] == 0, "statecast"] == 0).all()
    assert (merged["statecast"] / merged["y"])[merged["open"] == 1].between(0.6, 1.6).all()


def test_a_forecast_before_fit_is_refused():
    """The error says that the forecaster has not learned anything yet."""
    with pytest.raises(NotFitted, match="not learned anything"):
        Forecaster(h=3).predict()

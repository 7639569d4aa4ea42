"""The plan of a backtest and its scores."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from forecast.config import Config, DataConfig
from forecast.data.panel import Panel
from forecast.data.validation import validate
from forecast.errors import TooShort
from forecast.training.train import train
from pipelines.promotion.baseline_process import BaselineProcess
from pipelines.promotion.comparison import at_last_cutoffs, evaluate, incompatibility
from pipelines.promotion.plan import plan


@pytest.fixture(scope="module")
def mixed(retail):
    """Return five long series and one of two years."""
    ids = retail["unique_id"].unique()[:6]
    is_cut = (retail["unique_id"] == ids[5]) & (retail["ds"] < "2017-01-01")
    is_selected = retail["unique_id"].isin(ids) & (retail["ds"] >= "2008-01-01")
    return validate(retail[is_selected & ~is_cut], DataConfig())


@pytest.fixture(scope="module")
def small(mixed):
    """Return a small model trained on all of `mixed`."""
    settings = Config.from_dict(
        {"model": {"horizon": 6, "hidden_size": 4}, "train": {"max_steps": 3}}
    )
    config = Config(data=mixed.data, model=settings.model, train=settings.train)
    return train(Panel.from_frame(mixed), config).bundle


def test_short_series_is_left_out_of_the_backtest(mixed):
    """A series without a season before the first cutoff is not scored; the others are."""
    panel = Panel.from_frame(mixed)

    backtest_plan = plan(panel, mixed.calendar, horizon=6, windows=3)

    assert len(backtest_plan.rows) == 5
    assert backtest_plan.season_length == 12
    assert backtest_plan.part(panel).num_series == 5


def test_training_part_ends_at_the_first_cutoff(mixed):
    """Training sees no target of the backtest."""
    panel = Panel.from_frame(mixed)
    backtest_plan = plan(panel, mixed.calendar, horizon=6, windows=3)

    training = backtest_plan.split(panel)

    assert (training.last_ds == backtest_plan.first_cutoff(panel)).all()
    assert mixed.calendar.text(backtest_plan.first_cutoff(panel)) == "2017-06-01"


def test_plan_longer_than_every_series_is_refused(mixed):
    """The message has the number of steps needed and the length of the longest series."""
    with pytest.raises(TooShort, match="need 243 steps") as error:
        plan(Panel.from_frame(mixed), mixed.calendar, horizon=60, windows=4)

    assert "132 steps" in error.value.where


def test_slow_baselines_are_left_out_of_large_backtests(mixed):
    """Baselines that are fitted to every series at every cutoff would take longer than training."""
    panel = Panel.from_frame(mixed)

    few = plan(panel, mixed.calendar, horizon=1, windows=2)
    many = plan(panel, mixed.calendar, horizon=1, windows=90)

    assert few.baselines == ("SeasonalNaive", "AutoETS", "AutoTheta", "HistGradientBoosting")
    assert many.baselines == ("SeasonalNaive", "HistGradientBoosting")


def test_counts_are_compared_with_models_of_intermittent_demand(mixed):
    """Croston and TSB are fast enough for many series; a choice of the user takes precedence."""
    panel = Panel.from_frame(mixed)

    few = plan(panel, mixed.calendar, horizon=1, windows=2, kind="count")
    many = plan(panel, mixed.calendar, horizon=1, windows=90, kind="count")
    selected = plan(panel, mixed.calendar, horizon=1, windows=2, kind="count", chosen=["Drift"])

    intermittent = ("CrostonOptimized", "TSB", "HistGradientBoosting")
    assert few.baselines == ("SeasonalNaive", "AutoETS", *intermittent)
    assert many.baselines == ("SeasonalNaive", *intermittent)
    assert selected.baselines == ("Drift",)


def test_baseline_process_reads_known_future_covariates(tmp_path):
    """The boosted model gets the known-future columns of the data in its own process."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "unique_id": np.repeat(["a", "b", "c"], 70),
            "ds": np.tile(pd.date_range("2024-01-01", periods=70), 3),
            "promo": rng.integers(0, 2, 210),
        }
    )
    frame["y"] = 10.0 + 30 * frame["promo"] + rng.random(210)
    series = validate(frame, DataConfig(known_future=("promo",)))
    panel = Panel.from_frame(series)
    backtest_plan = plan(
        panel,
        series.calendar,
        horizon=7,
        windows=1,
        chosen=["SeasonalNaive", "HistGradientBoosting"],
    )

    with BaselineProcess(series, panel, backtest_plan, tmp_path) as baselines:
        table = baselines.wait()

    assert (table["HistGradientBoosting"] - table["y"]).abs().mean() < 5


def test_champion_is_scored_on_the_windows_of_the_challenger(mixed, small):
    """The same model as challenger and champion gets the same value of every metric."""
    panel = Panel.from_frame(mixed)
    backtest_plan = plan(panel, mixed.calendar, horizon=6, windows=2, chosen=())

    comparison = evaluate(small, mixed, panel, backtest_plan, champion=small)

    scores = comparison.flat()
    assert scores["mase"] == scores["mase_champion"]
    assert scores["coverage_80"] == scores["coverage_80_champion"]
    assert comparison.incomparable == ""
    assert len(comparison.cv) == 5 * 6 * 2


def test_scores_at_the_last_cutoffs_are_those_of_a_shorter_backtest(mixed, small):
    """The last of three windows has the scores of a backtest of one window."""
    panel = Panel.from_frame(mixed)
    backtest_plan = plan(panel, mixed.calendar, horizon=6, windows=3, chosen=())

    last = at_last_cutoffs(
        evaluate(small, mixed, panel, backtest_plan), mixed, panel, backtest_plan, 1
    )

    alone = evaluate(small, mixed, panel, replace(backtest_plan, windows=1))
    assert last.flat() == pytest.approx(alone.flat(), rel=1e-4)
    assert last.cv["cutoff"].nunique() == 1


def test_reason_says_why_a_champion_cannot_be_compared(mixed, small, retail):
    """Another frequency, a longer horizon and negative values are each named."""
    quarterly = retail.groupby(["unique_id", pd.Grouper(key="ds", freq="QS")], as_index=False).agg(
        y=("y", "sum")
    )
    negative = mixed.frame.assign(y=mixed.frame["y"] - 1e6)

    assert "freq='MS'" in incompatibility(small, validate(quarterly, DataConfig()), 6)
    assert "6 steps, and 7 are needed" in incompatibility(small, mixed, 7)
    assert "never negative" in incompatibility(small, validate(negative, DataConfig()), 6)
    assert incompatibility(small, mixed, 6) == ""


def test_nan_scores_are_left_out(mixed, small):
    """Every score logged to MLflow is finite."""
    panel = Panel.from_frame(mixed)
    backtest_plan = plan(panel, mixed.calendar, horizon=6, windows=1, chosen=())

    flat = evaluate(small, mixed, panel, backtest_plan).flat()

    assert flat
    assert all(np.isfinite(value) for value in flat.values())

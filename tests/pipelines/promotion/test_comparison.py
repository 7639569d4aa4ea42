"""The plan of a backtest and its scores."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from forecast.config import Config, DataConfig
from forecast.data import validation as frames
from forecast.data.panel import Panel
from forecast.errors import TooShort
from forecast.training.train import train
from pipelines.promotion.baseline_process import BaselineProcess
from pipelines.promotion.comparison import at_last_cutoffs, evaluate, incompatibility
from pipelines.promotion.plan import plan


@pytest.fixture(scope="module")
def mixed(retail):
    """Five long series and one that began two years ago."""
    ids = retail["unique_id"].unique()[:6]
    young = (retail["unique_id"] == ids[5]) & (retail["ds"] < "2017-01-01")
    recent = retail["unique_id"].isin(ids) & (retail["ds"] >= "2008-01-01")
    return frames.validate(retail[recent & ~young], DataConfig())


@pytest.fixture(scope="module")
def small(mixed):
    """A model that learned from all of it."""
    settings = Config.from_dict(
        {"model": {"horizon": 6, "hidden_size": 4}, "train": {"max_steps": 3}}
    )
    config = Config(data=mixed.data, model=settings.model, train=settings.train)
    return train(Panel.from_frame(mixed), config).bundle


def test_young_series_is_left_out_of_the_backtest(mixed):
    """A series without a season before the first cutoff is not scored; the others are."""
    panel = Panel.from_frame(mixed)

    made = plan(panel, mixed.calendar, horizon=6, windows=3)

    assert len(made.rows) == 5
    assert made.season_length == 12
    assert made.part(panel).num_series == 5


def test_what_is_learned_ends_at_the_first_cutoff(mixed):
    """Training sees nothing of any target of the backtest."""
    panel = Panel.from_frame(mixed)
    made = plan(panel, mixed.calendar, horizon=6, windows=3)

    learned = made.split(panel)

    assert (learned.last_ds == made.first_cutoff(panel)).all()
    assert mixed.calendar.text(made.first_cutoff(panel)) == "2017-06-01"


def test_plan_that_no_series_can_fill_is_refused(mixed):
    """The message says how many steps are needed, and which series is the longest."""
    with pytest.raises(TooShort, match="need 243 steps") as caught:
        plan(Panel.from_frame(mixed), mixed.calendar, horizon=60, windows=4)

    assert "132 steps" in caught.value.where


def test_slow_baselines_are_left_out_of_large_backtests(mixed):
    """Baselines that fit every series at every cutoff would take longer than the training."""
    panel = Panel.from_frame(mixed)

    few = plan(panel, mixed.calendar, horizon=1, windows=2)
    many = plan(panel, mixed.calendar, horizon=1, windows=90)

    assert few.baselines == ("SeasonalNaive", "AutoETS", "AutoTheta", "HistGradientBoosting")
    assert many.baselines == ("SeasonalNaive", "HistGradientBoosting")


def test_counts_are_scored_beside_models_of_intermittent_demand(mixed):
    """Croston and TSB are quick enough for many series; a choice of the user's goes before."""
    panel = Panel.from_frame(mixed)

    few = plan(panel, mixed.calendar, horizon=1, windows=2, kind="count")
    many = plan(panel, mixed.calendar, horizon=1, windows=90, kind="count")
    own = plan(panel, mixed.calendar, horizon=1, windows=2, kind="count", chosen=["Drift"])

    rest = ("CrostonOptimized", "TSB", "HistGradientBoosting")
    assert few.baselines == ("SeasonalNaive", "AutoETS", *rest)
    assert many.baselines == ("SeasonalNaive", *rest)
    assert own.baselines == ("Drift",)


def test_rivals_read_the_covariates_known_ahead(tmp_path):
    """The boosted model gets the known-future columns of the data, in its own process."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "unique_id": np.repeat(["a", "b", "c"], 70),
            "ds": np.tile(pd.date_range("2024-01-01", periods=70), 3),
            "promo": rng.integers(0, 2, 210),
        }
    )
    frame["y"] = 10.0 + 30 * frame["promo"] + rng.random(210)
    series = frames.validate(frame, DataConfig(known_future=("promo",)))
    panel = Panel.from_frame(series)
    made = plan(
        panel,
        series.calendar,
        horizon=7,
        windows=1,
        chosen=["SeasonalNaive", "HistGradientBoosting"],
    )

    with BaselineProcess(series, panel, made, tmp_path) as rivals:
        table = rivals.wait()

    assert (table["HistGradientBoosting"] - table["y"]).abs().mean() < 5


def test_champion_is_scored_on_the_challengers_windows(mixed, small):
    """The same model as challenger and champion gets the same scores, metric by metric."""
    panel = Panel.from_frame(mixed)
    made = plan(panel, mixed.calendar, horizon=6, windows=2, chosen=())

    found = evaluate(small, mixed, panel, made, champion=small)

    scores = found.flat()
    assert scores["mase"] == scores["mase_champion"]
    assert scores["coverage_80"] == scores["coverage_80_champion"]
    assert found.incomparable == ""
    assert len(found.cv) == 5 * 6 * 2


def test_scores_at_the_last_cutoffs_are_those_of_a_shorter_backtest(mixed, small):
    """Three windows of which one is looked at score as that one alone."""
    panel = Panel.from_frame(mixed)
    made = plan(panel, mixed.calendar, horizon=6, windows=3, chosen=())

    last = at_last_cutoffs(evaluate(small, mixed, panel, made), mixed, panel, made, 1)

    alone = evaluate(small, mixed, panel, replace(made, windows=1))
    assert last.flat() == pytest.approx(alone.flat(), rel=1e-4)
    assert last.cv["cutoff"].nunique() == 1


def test_champion_of_other_data_is_told_apart(mixed, small, retail):
    """Other frequency, longer horizon, negative values: each is named."""
    quarterly = retail.groupby(["unique_id", pd.Grouper(key="ds", freq="QS")], as_index=False).agg(
        y=("y", "sum")
    )
    negative = mixed.frame.assign(y=mixed.frame["y"] - 1e6)

    assert "freq='MS'" in incompatibility(small, frames.validate(quarterly, DataConfig()), 6)
    assert "6 steps, and 7 are needed" in incompatibility(small, mixed, 7)
    assert "never negative" in incompatibility(small, frames.validate(negative, DataConfig()), 6)
    assert incompatibility(small, mixed, 6) == ""


def test_scores_that_are_no_number_are_left_out(mixed, small):
    """What goes to MLflow is finite."""
    panel = Panel.from_frame(mixed)
    made = plan(panel, mixed.calendar, horizon=6, windows=1, chosen=())

    flat = evaluate(small, mixed, panel, made).flat()

    assert flat
    assert all(np.isfinite(value) for value in flat.values())

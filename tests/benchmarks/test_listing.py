"""The list of benchmarks, and benchmarks run from end to end on small data."""

import json

import numpy as np
import pandas as pd
import pytest

import benchmarks.__main__
from benchmarks.accuracy import m4, retail, unseen
from benchmarks.speed import state
from forecast.evaluation.baselines import naive2

KEYS = ["benchmark", "case", "model", "metric", "value", "seconds"]
QUICK = ["--set", "train.max_steps=3", "--set", "model.hidden_size=8"]


@pytest.fixture
def sales():
    """Return eighty months of four series of the bundled retail data."""
    frame = pd.read_parquet("examples/data/monthly_retail.parquet")
    frame = frame[frame["unique_id"].isin(sorted(frame["unique_id"].unique())[:4])]
    return frame.groupby("unique_id").tail(80).reset_index(drop=True)


@pytest.fixture
def records(monkeypatch, capsys):
    """Return a function that runs a benchmark and returns values by case, model and metric."""

    def run(main, *arguments):
        monkeypatch.setattr("sys.argv", ["benchmark", *map(str, arguments)])
        main()
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert all(list(line) == KEYS for line in lines)
        assert all(np.isfinite(line["value"]) for line in lines)
        return {(line["case"], line["model"], line["metric"]): line["value"] for line in lines}

    return run


@pytest.mark.parametrize("options", [[], ["--val"]])
def test_retail_scores_statecast_and_the_baselines(sales, records, tmp_path, options):
    """Every model has the four metrics, and the seasonal naive has a ratio of 1 to itself."""
    (tmp_path / "aus_retail").mkdir()
    sales.to_parquet(tmp_path / "aus_retail" / "aus_retail.parquet")

    values = records(retail.main, "--data", tmp_path, *options, *QUICK)

    case = "aus_retail_val" if options else "aus_retail"
    for model in ("statecast", "SeasonalNaive", "Drift", "AutoETS", "AutoTheta"):
        for metric in ("mase", "mase_ratio_snaive", "coverage_80", "coverage_95"):
            assert (case, model, metric) in values
    assert values[case, "SeasonalNaive", "mase_ratio_snaive"] == 1.0


@pytest.mark.parametrize("options", [[], ["--val"]])
def test_m4_scores_statecast_relative_to_naive2(sales, records, tmp_path, options):
    """Naive2 is read from its file for the test, and computed for `--val`."""
    sales["ds"] = sales.groupby("unique_id").cumcount() + 1
    train = sales[sales["ds"] <= 72]
    paths = [
        naive2(y.to_numpy(), horizon=8, season_length=4) for _, y in train.groupby("unique_id")["y"]
    ]
    test = sales[sales["ds"] > 72]
    files = {"train": train, "test": test, "naive2": test.assign(y_hat=np.concatenate(paths))}
    (tmp_path / "m4").mkdir()
    for part, frame in files.items():
        columns = ["unique_id", "ds", "y_hat" if part == "naive2" else "y"]
        frame[columns].to_parquet(tmp_path / "m4" / f"quarterly_subset_{part}.parquet")

    values = records(m4.main, "--freq", "quarterly", "--data", tmp_path / "m4", *options, *QUICK)

    case = "quarterly_val" if options else "quarterly"
    assert values[case, "Naive2", "owa"] == pytest.approx(1.0)
    for metric in ("owa", "smape", "mase", "coverage_80", "coverage_95", "msis"):
        assert (case, "statecast", metric) in values


def test_m4_exits_if_naive2_does_not_have_its_published_scores():
    """A wrong file or metric is not mistaken for the competition."""
    scores = {"Naive2": {"smape": 18.383, "mase": 2.5}}

    with pytest.raises(SystemExit, match="in the competition"):
        m4.check_published(scores, m4.CASES["hourly"], val=False)


def test_state_compares_a_step_with_rereading_the_history(records):
    """Each history and batch has the cost of a step and that of re-reading, which is larger."""
    values = records(
        state.main, "--histories", 30, 300, "--batches", 1, 3, "--calls", 10, "--rounds", 1, *QUICK
    )

    for batch in (1, 3):
        assert values[f"{batch} series", "statecast", "observe_growth"] > 0
        for history in (30, 300):
            case = f"{batch} series, {history} steps"
            assert values[case, "statecast", "reread_us"] > values[case, "statecast", "observe_us"]


def test_the_list_names_every_benchmark(capsys):
    """`python -m benchmarks` prints the command of each module that can be run, and no other."""
    benchmarks.__main__.main()

    lines = capsys.readouterr().out.splitlines()
    accuracy = ("carry", "m4", "m5", "race", "retail", "same", "stocks", "unseen")
    speed = ("engine", "killloop", "million", "state", "step")
    assert [line.split()[2] for line in lines] == [
        *(f"benchmarks.accuracy.{name}" for name in accuracy),
        "benchmarks.peers",
        "benchmarks.report",
        *(f"benchmarks.speed.{name}" for name in speed),
    ]


def test_unseen_uses_the_official_test_and_treats_a_zero_price_as_missing(records, tmp_path):
    """M1 ends where its test ends; a commodity price of 0 is NaN and not scored."""
    months = pd.date_range("2000-01-01", periods=60, freq="MS")
    walk = 20 + np.cumsum(np.random.default_rng(0).normal(size=(2, 60)), axis=1)
    walk[1, 30] = 0.0
    prices = pd.concat(
        pd.DataFrame({"unique_id": name, "ds": months, "y": y})
        for name, y in zip("ab", walk, strict=True)
    )
    (tmp_path / "commodities").mkdir()
    prices.to_parquet(tmp_path / "commodities" / "commodities.parquet")
    yearly = prices.assign(ds=prices.groupby("unique_id").cumcount() + 1)
    (tmp_path / "m1").mkdir()
    yearly[yearly["ds"] <= 54].to_parquet(tmp_path / "m1" / "yearly_train.parquet")
    yearly[yearly["ds"] > 54].to_parquet(tmp_path / "m1" / "yearly_test.parquet")

    case = unseen.SETS["commodities"](tmp_path)
    values = records(
        unseen.main,
        "--data",
        tmp_path,
        "--sets",
        "commodities",
        "m1_yearly",
        "--baselines",
        "SeasonalNaive",
        *QUICK,
    )

    assert len(case.train) == 120
    assert case.train["y"].isna().sum() == 1
    assert {(case, model) for case, model, _ in values} == {
        (case, model)
        for case in ("commodities", "m1_yearly")
        for model in ("statecast", "SeasonalNaive")
    }

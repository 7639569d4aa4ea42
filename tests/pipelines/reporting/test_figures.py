"""Figures of a run are plain values."""

import json
import sys

import numpy as np
import pandas as pd
import pytest

from forecast.config import Config, DataConfig, ModelConfig, TrainConfig
from forecast.data import validation as frames
from forecast.data.panel import Panel
from forecast.diagnostics.carry_gain import CarryGain
from forecast.diagnostics.gradients import profile
from forecast.evaluation.backtest import backtest
from forecast.training.train import train
from pipelines.cli import main as cli
from pipelines.reporting import diagnosis as _diagnosis
from pipelines.reporting import figures as report
from pipelines.tracking.flavor import HELD_OUT


@pytest.fixture(scope="module")
def made(trained, tmp_path_factory):
    """The figures of the run."""
    folder = tmp_path_factory.mktemp("run")
    folder = trained.tracking.download(f"runs:/{trained.outcome.run_id}/", folder)
    cv = pd.read_parquet(folder / "backtest.parquet")
    figures = {
        path.stem: json.loads(path.read_text()) for path in (folder / "figures").glob("*.json")
    }
    return cv, figures


def test_fan_chart_shows_history_forecast_and_both_intervals(made):
    """The bands are closed shapes around the forecast of the last cutoff."""
    cv, figures = made

    traces = {trace["name"]: trace for trace in figures["fan_1"]["data"]}

    assert {"95 %", "80 %", "observed", "statecast", "SeasonalNaive"} <= set(traces)
    assert len(traces["80 %"]["x"]) == 12
    assert traces["statecast"]["x"][-1] == cv["ds"].max().isoformat()
    wide, narrow = (traces[name]["y"][0] for name in ("95 %", "80 %"))
    assert wide > narrow > traces["statecast"]["y"][0]


def test_error_by_horizon_has_a_line_a_model_and_a_point_a_step(made):
    """Steps ahead from 1 to the horizon, for the model and each baseline."""
    _, figures = made

    lines = {trace["name"]: trace["x"] for trace in figures["error_by_horizon"]["data"]}

    assert set(lines) == {"statecast", "SeasonalNaive", "Drift"}
    assert lines["statecast"] == [1, 2, 3, 4, 5, 6]


def test_coverage_stands_beside_the_nominal(made):
    """The nominal shares are lines across the bars of their level."""
    _, figures = made

    nominal = next(t for t in figures["coverage"]["data"] if t["name"] == "nominal")

    assert nominal["x"] == [-0.45, 0.45, None, 0.55, 1.45, None]
    assert nominal["y"] == [0.8, 0.8, None, 0.95, 0.95, None]


def test_training_curve_has_loss_and_gradient_norm_on_two_axes(made):
    """Both are there for every report."""
    _, figures = made

    axes = {trace["name"]: trace.get("yaxis", "y") for trace in figures["training"]["data"]}

    assert axes == {
        "loss": "y",
        "loss of the epoch": "y",
        "validation loss": "y",
        "gradient norm": "y2",
    }


@pytest.mark.parametrize(
    ("kind", "unit"),
    [("positive", "1 = seasonal naive"), ("count", "Poisson deviance"), ("volatility", "QLIKE")],
)
def test_the_unit_of_the_loss_is_that_of_the_kind(kind, unit):
    """A deviance is not told as a share of the seasonal naive."""
    figure = report.training_curve([], kind=kind)

    assert unit in figure["layout"]["yaxis"]["title"]["text"]


def test_run_holds_a_diagnosis_of_the_scored_model(trained, tmp_path):
    """Memory, gradient, worst series and parts: figures, tables, and the short of it."""
    folder = trained.tracking.download(f"runs:/{trained.outcome.run_id}/diagnosis", tmp_path)

    facts = json.loads((folder / "diagnosis.json").read_text())
    memory = json.loads((folder / "figures" / "memory.json").read_text())
    worst = json.loads((folder / "figures" / "worst.json").read_text())
    parts = pd.read_parquet(folder / "parts.parquet")
    cv = pd.read_parquet(
        trained.tracking.download(f"runs:/{trained.outcome.run_id}/", tmp_path) / "backtest.parquet"
    )

    assert [trace["name"] for trace in memory["data"]] == ["total", "filters", "network"]
    assert memory["layout"]["xaxis"]["type"] == "log"
    assert worst["data"][0]["y"][-1] == facts["worst_series"][0]
    assert set(facts["gradient"]) == {"1"}
    assert 0 <= facts["clipped_share"] <= 1
    last = cv[cv["cutoff"] == cv["cutoff"].max()]
    both = parts.merge(last, on=["unique_id", "ds"], suffixes=("", "_cv"), validate="1:1")
    assert len(both) == len(parts) == 6 * 6
    assert both["statecast"].tolist() == pytest.approx(both["statecast_cv"].tolist())
    assert "Plotly.newPlot" in (folder / "diagnosis.html").read_text(encoding="utf-8")


def test_command_writes_a_page_and_says_the_short_of_it(
    trained, sales, tmp_path, monkeypatch, capsys
):
    """The scored bundle on the same data: memory, gradient, gain of the carried state."""
    folder = trained.tracking.download(f"runs:/{trained.outcome.run_id}/{HELD_OUT}", tmp_path)
    arguments = ["diagnose", sales, "--model", folder / "bundle", "-o", tmp_path / "d", "--json"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["statecast", *map(str, arguments)])

    with pytest.raises(SystemExit) as ended:
        cli.main()

    assert ended.value.code == 0
    document = json.loads(capsys.readouterr().out)
    scores = pd.read_parquet(tmp_path / "d" / "carry.parquet")
    assert scores["way"].tolist() == ["carried", "reset"]
    assert document["facts"]["carry_gain"] == pytest.approx(scores["gain"][1])
    assert document["facts"]["worst_series"]
    assert (tmp_path / "d" / "diagnosis.html").is_file()


def test_carry_chart_has_a_bar_a_way():
    """MASE of each way of keeping the state."""
    scores = pd.DataFrame({"way": ["carried", "reset"], "mase": [0.9, 1.0]})

    figure = report.carry_chart(CarryGain(cv=pd.DataFrame(), scores=scores, chunk_length=8))

    assert figure["data"][0]["x"] == ["carried", "reset"]
    assert figure["data"][0]["y"] == [0.9, 1.0]


def test_figures_that_would_be_empty_are_left_out(retail):
    """A price is forecast by its last value: nothing flows back into the network."""
    table = retail[retail["unique_id"].isin(retail["unique_id"].unique()[:2])].groupby("unique_id")
    series = frames.validate(table.tail(60), DataConfig(freq="MS", kind="price"))
    panel = Panel.from_frame(series)
    config = Config(
        data=series.data,
        model=ModelConfig(hidden_size=4, horizon=3),
        train=TrainConfig(max_steps=4),
    )
    bundle = train(panel, config).bundle
    cv = backtest(bundle, panel, horizon=3, n_windows=1, step_size=3)

    made = _diagnosis.diagnose(bundle, panel, cv, series.frame, season_length=12)

    assert set(made.figures) == {"memory", "worst", "parts_1", "parts_2"}
    assert made.facts["gradient"] == {"1": "none"}
    assert made.figures["memory"]["layout"]["title"]["text"] == "Memory: under 1 % from 1 step back"


def test_gradient_chart_marks_the_chunk_and_names_the_flow():
    """A line a layer with its verdict; the dotted line stands at the last step of a chunk."""
    fading = 0.1 ** np.arange(6.0)[:, None]

    figure = report.gradient_chart(profile(fading, 0 * fading, chunk_length=4))

    assert [trace["name"] for trace in figure["data"]] == ["layer 1: steady"]
    assert figure["layout"]["shapes"][0]["x0"] == 3


@pytest.mark.parametrize(("size", "powers"), [(1e-4, True), (250_000.0, False)])
def test_small_values_are_told_in_powers_of_ten(size, powers):
    """A variance of 1e-4 is not "100µ"; sales stay thousands."""
    figure = report._figure([{"y": [size, None, -size / 2]}], title="", x="", y="")

    assert (figure["layout"]["yaxis"].get("exponentformat") == "power") is powers


def test_names_of_series_cannot_break_the_page():
    """A series called like a closing tag stays text."""
    figure = report._figure([], title="</script><script>alert(1)</script>", x="", y="")

    page = report.to_html({"fan": figure}, title="<b>")

    assert "<script>alert(1)" not in page
    assert "<title>&lt;b&gt;</title>" in page

"""The figures of a run and of a diagnosis, as Plotly JSON."""

import json
import sys

import numpy as np
import pandas as pd
import pytest

from forecast.config import Config, DataConfig, ModelConfig, TrainConfig
from forecast.data.panel import Panel
from forecast.data.validation import validate
from forecast.diagnostics.carry_gain import CarryGain
from forecast.diagnostics.gradients import profile
from forecast.evaluation.backtest import backtest
from forecast.training.train import train
from pipelines.cli import main as cli
from pipelines.reporting import diagnosis, figures
from pipelines.tracking.flavor import HELD_OUT


@pytest.fixture(scope="module")
def run_figures(trained, tmp_path_factory):
    """Return the backtest of the run and its figures by name."""
    folder = tmp_path_factory.mktemp("run")
    folder = trained.tracking.download(f"runs:/{trained.outcome.run_id}/", folder)
    cv = pd.read_parquet(folder / "backtest.parquet")
    by_name = {
        path.stem: json.loads(path.read_text()) for path in (folder / "figures").glob("*.json")
    }
    return cv, by_name


def test_fan_chart_shows_history_forecast_and_both_intervals(run_figures):
    """The bands are closed shapes around the forecast of the last cutoff."""
    cv, by_name = run_figures

    traces = {trace["name"]: trace for trace in by_name["fan_1"]["data"]}

    assert {"95 %", "80 %", "observed", "statecast", "SeasonalNaive"} <= set(traces)
    assert len(traces["80 %"]["x"]) == 12
    assert traces["statecast"]["x"][-1] == cv["ds"].max().isoformat()
    wide, narrow = (traces[name]["y"][0] for name in ("95 %", "80 %"))
    assert wide > narrow > traces["statecast"]["y"][0]


def test_error_by_horizon_has_a_line_per_model_and_a_point_per_step(run_figures):
    """The model and each baseline have a point for each step from 1 to the horizon."""
    _, by_name = run_figures

    lines = {trace["name"]: trace["x"] for trace in by_name["error_by_horizon"]["data"]}

    assert set(lines) == {"statecast", "SeasonalNaive", "Drift"}
    assert lines["statecast"] == [1, 2, 3, 4, 5, 6]


def test_coverage_chart_shows_the_nominal_shares(run_figures):
    """The nominal shares are lines across the bars of their level."""
    _, by_name = run_figures

    nominal = next(t for t in by_name["coverage"]["data"] if t["name"] == "nominal")

    assert nominal["x"] == [-0.45, 0.45, None, 0.55, 1.45, None]
    assert nominal["y"] == [0.8, 0.8, None, 0.95, 0.95, None]


def test_training_curve_has_loss_and_gradient_norm_on_two_axes(run_figures):
    """Losses are on the first axis, the gradient norm on the second."""
    _, by_name = run_figures

    axes = {trace["name"]: trace.get("yaxis", "y") for trace in by_name["training"]["data"]}

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
def test_axis_of_the_loss_names_the_unit_of_the_kind(kind, unit):
    """A deviance is not labelled as relative to the seasonal naive."""
    figure = figures.training_curve([], kind=kind)

    assert unit in figure["layout"]["yaxis"]["title"]["text"]


def test_run_has_a_diagnosis_of_the_scored_model(trained, tmp_path):
    """It has figures, tables and a summary of memory, gradient, worst series and parts."""
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
    merged = parts.merge(last, on=["unique_id", "ds"], suffixes=("", "_cv"), validate="1:1")
    assert len(merged) == len(parts) == 6 * 6
    assert merged["statecast"].tolist() == pytest.approx(merged["statecast_cv"].tolist())
    assert "Plotly.newPlot" in (folder / "diagnosis.html").read_text(encoding="utf-8")


def test_diagnose_command_writes_a_page_and_prints_a_summary(
    trained, sales, tmp_path, monkeypatch, capsys
):
    """For the scored bundle on the same data: memory, gradient and gain of the carried state."""
    folder = trained.tracking.download(f"runs:/{trained.outcome.run_id}/{HELD_OUT}", tmp_path)
    arguments = ["diagnose", sales, "--model", folder / "bundle", "-o", tmp_path / "d", "--json"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["statecast", *map(str, arguments)])

    with pytest.raises(SystemExit) as exit_info:
        cli.main()

    assert exit_info.value.code == 0
    document = json.loads(capsys.readouterr().out)
    scores = pd.read_parquet(tmp_path / "d" / "carry.parquet")
    assert scores["way"].tolist() == ["carried", "reset"]
    assert document["facts"]["carry_gain"] == pytest.approx(scores["gain"][1])
    assert document["facts"]["worst_series"]
    assert (tmp_path / "d" / "diagnosis.html").is_file()


def test_carry_chart_has_a_bar_per_way():
    """Each bar is the MASE of a way of keeping the state."""
    scores = pd.DataFrame({"way": ["carried", "reset"], "mase": [0.9, 1.0]})

    figure = figures.carry_chart(CarryGain(cv=pd.DataFrame(), scores=scores, chunk_length=8))

    assert figure["data"][0]["x"] == ["carried", "reset"]
    assert figure["data"][0]["y"] == [0.9, 1.0]


def test_figures_that_would_be_empty_are_left_out(retail):
    """A price is forecast by its last value, so no gradient flows back into the network."""
    table = retail[retail["unique_id"].isin(retail["unique_id"].unique()[:2])].groupby("unique_id")
    series = validate(table.tail(60), DataConfig(freq="MS", kind="price"))
    panel = Panel.from_frame(series)
    config = Config(
        data=series.data,
        model=ModelConfig(hidden_size=4, horizon=3),
        train=TrainConfig(max_steps=4),
    )
    bundle = train(panel, config).bundle
    cv = backtest(bundle, panel, horizon=3, n_windows=1, step_size=3)

    report = diagnosis.diagnose(bundle, panel, cv, series.frame, season_length=12)

    assert set(report.figures) == {"memory", "worst", "parts_1", "parts_2"}
    assert report.facts["gradient"] == {"1": "none"}
    assert (
        report.figures["memory"]["layout"]["title"]["text"] == "Memory: under 1 % from 1 step back"
    )


def test_gradient_chart_marks_the_chunk_and_names_the_flow():
    """Each layer has a line with its verdict; a dotted line marks the last step of a chunk."""
    fading = 0.1 ** np.arange(6.0)[:, None]

    figure = figures.gradient_chart(profile(fading, 0 * fading, chunk_length=4))

    assert [trace["name"] for trace in figure["data"]] == ["layer 1: steady"]
    assert figure["layout"]["shapes"][0]["x0"] == 3


@pytest.mark.parametrize(("size", "powers"), [(1e-4, True), (250_000.0, False)])
def test_small_values_are_shown_as_powers_of_ten(size, powers):
    """A variance of 1e-4 is not shown as "100µ"; sales are shown in thousands."""
    figure = figures._figure([{"y": [size, None, -size / 2]}], title="", x="", y="")

    assert (figure["layout"]["yaxis"].get("exponentformat") == "power") is powers


def test_names_of_series_are_escaped_in_the_page():
    """A series with a closing tag in its name is shown as text."""
    figure = figures._figure([], title="</script><script>alert(1)</script>", x="", y="")

    page = figures.to_html({"fan": figure}, title="<b>")

    assert "<script>alert(1)" not in page
    assert "<title>&lt;b&gt;</title>" in page

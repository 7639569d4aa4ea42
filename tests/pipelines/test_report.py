"""Figures of a run are plain values."""

import json

import pandas as pd
import pytest

from pipelines import report


@pytest.fixture(scope="module")
def made(trained):
    """The figures of the run."""
    folder = trained.tracking.download(f"runs:/{trained.outcome.run_id}/")
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
    """The nominal shares are drawn as marks at 0.80 and 0.95."""
    _, figures = made

    nominal = next(t for t in figures["coverage"]["data"] if t["name"] == "nominal")

    assert nominal["y"] == [0.8, 0.95]


def test_training_curve_has_loss_and_gradient_norm_on_two_axes(made):
    """Both are there for every report."""
    _, figures = made

    axes = {trace["name"]: trace.get("yaxis", "y") for trace in figures["training"]["data"]}

    assert axes == {"loss": "y", "loss of the epoch": "y", "gradient norm": "y2"}


def test_names_of_series_cannot_break_the_page():
    """A series called like a closing tag stays text."""
    figure = report._figure([], title="</script><script>alert(1)</script>", x="", y="")

    page = report.to_html({"fan": figure}, title="<b>")

    assert "<script>alert(1)" not in page
    assert "<title>&lt;b&gt;</title>" in page

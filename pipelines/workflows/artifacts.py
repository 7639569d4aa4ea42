"""Logs a run's settings, data set, environment, tables, figures and bundle to MLflow."""

import importlib.metadata
import json
import os
import platform
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from forecast.bundle import Bundle, save_bundle
from forecast.config import Config
from forecast.data import validation
from forecast.data.panel import Panel
from forecast.redact import redact_url
from forecast.training.progress import TrainEvent
from pipelines.promotion.comparison import Evaluation
from pipelines.reporting import figures
from pipelines.tracking import flavor
from pipelines.tracking.flavor import HELD_OUT
from pipelines.tracking.run import Run
from pipelines.workflows.job import Job

PACKAGES = ("statecast", "torch", "numpy", "pandas", "mlflow", "statsforecast", "utilsforecast")


def log_settings(
    job: Job, config: Config, series: validation.CheckedSeries, panel: Panel, log: Run
) -> None:
    """Log what the run depends on: settings, data set and environment."""
    flat = {
        f"{part}.{key}": value
        for part, values in config.to_dict().items()
        for key, value in values.items()
    }
    log.params({**flat, "windows": job.windows, "refit": job.refit})
    cutoff = series.calendar.text(panel.ds.max())
    log.dataset(
        Path(redact_url(job.source)).stem or "data",
        series.digest,
        source=redact_url(job.source),
        tags={
            "data.cutoff": cutoff,
            "data.rows": str(series.rows),
            "data.series": str(panel.num_series),
        },
    )
    log.tags(
        {
            "data.cutoff": cutoff,
            "data.rows": str(series.rows),
            "min_gain": str(job.min_gain),
            "cpu_count": str(os.cpu_count()),
            "python": platform.python_version(),
        }  # Tags, not parameters: they may change if the run is resumed on another machine.
    )
    log.document(environment(), "environment.json")
    log.document(config.to_dict(), "config.json")


def log_report(
    log: Run,
    bundle: Bundle,
    evaluation: Evaluation,
    series: validation.CheckedSeries,
    events: list[TrainEvent],
    *,
    horizon: int,
) -> None:
    """Log the scores, the forecasts, the figures as JSON and HTML, and the scored bundle."""
    log.table(evaluation.scores, "scores.json")
    charts = figures.figures(
        evaluation.cv,
        series.frame,
        evaluation.scores,
        evaluation.by_horizon,
        events,
        horizon=horizon,
        kind=bundle.config.data.kind,
    )
    page = figures.to_html(charts, title="Backtest beside the baselines")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "figures").mkdir()
        for name, figure in charts.items():
            (root / "figures" / f"{name}.json").write_text(json.dumps(figure), encoding="utf-8")
        (root / "report.html").write_text(page, encoding="utf-8")
        evaluation.cv.to_parquet(root / "backtest.parquet", index=False)
        evaluation.by_series.to_parquet(root / "scores_by_series.parquet", index=False)
        evaluation.by_horizon.to_parquet(root / "scores_by_horizon.parquet", index=False)
        scored = replace(bundle, scores=evaluation.flat())
        save_bundle(scored, root / HELD_OUT / flavor.BUNDLE)
        log.folder(root, "")


def environment() -> dict[str, Any]:
    """Return Python, platform, cores and package versions, on which the numbers also depend."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "packages": versions,
    }


def commit() -> dict[str, str]:
    """Return the commit of the code as a tag; empty if the code is not a Git checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        process = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return {}
    return {"mlflow.source.git.commit": process.stdout.strip()}

"""What a run leaves in MLflow beside its numbers: settings, data set, tables, figures."""

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
from pipelines.tracking.store import Run
from pipelines.workflows.job import Job

PACKAGES = ("statecast", "torch", "numpy", "pandas", "mlflow", "statsforecast", "utilsforecast")


def log_setting(
    job: Job, config: Config, series: validation.CheckedSeries, panel: Panel, log: Run
) -> None:
    """What the run is made of: settings, data set, environment."""
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
        }  # parameters could not change when the run goes on elsewhere
    )
    log.document(environment(), "environment.json")
    log.document(config.to_dict(), "config.json")


def log_report(
    log: Run,
    bundle: Bundle,
    found: Evaluation,
    series: validation.CheckedSeries,
    events: list[TrainEvent],
    *,
    horizon: int,
) -> None:
    """Scores as tables, forecasts as Parquet, figures as JSON and as one page; and the bundle."""
    log.table(found.scores, "scores.json")
    made = figures.figures(
        found.cv,
        series.frame,
        found.scores,
        found.by_horizon,
        events,
        horizon=horizon,
        kind=bundle.config.data.kind,
    )
    page = figures.to_html(made, title="Backtest beside the baselines")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "figures").mkdir()
        for name, figure in made.items():
            (root / "figures" / f"{name}.json").write_text(json.dumps(figure), encoding="utf-8")
        (root / "report.html").write_text(page, encoding="utf-8")
        found.cv.to_parquet(root / "backtest.parquet", index=False)
        found.by_series.to_parquet(root / "scores_by_series.parquet", index=False)
        found.by_horizon.to_parquet(root / "scores_by_horizon.parquet", index=False)
        scored = replace(bundle, scores=found.flat())
        save_bundle(scored, root / HELD_OUT / flavor.BUNDLE)
        log.folder(root, "")


def environment() -> dict[str, Any]:
    """What the numbers depend on beside code and data."""
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
    """The commit of the code, where it is a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return {}
    return {"mlflow.source.git.commit": done.stdout.strip()}

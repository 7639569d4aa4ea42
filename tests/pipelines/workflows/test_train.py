"""A training job from end to end, with a real MLflow store."""

import dataclasses
import json
import re

import numpy as np
import pandas as pd
import pytest

from forecast.bundle import load_bundle
from forecast.config import Config, DataConfig
from forecast.data.validation import validate
from forecast.errors import DataError, MissingSteps
from pipelines.tracking.flavor import HELD_OUT
from pipelines.workflows import train
from pipelines.workflows.job import Job
from pipelines.workflows.workspace import Stopped


def run_of(project):
    """Return the MLflow run of the project."""
    return project.tracking.client.get_run(project.outcome.run_id)


def test_run_has_settings_scores_data_and_environment(trained):
    """Parameters, scores of the model and the baselines, data set, seed and commit are logged."""
    run = run_of(trained)

    assert run.info.status == "FINISHED"
    assert run.data.params["model.hidden_size"] == "8"
    assert run.data.params["train.max_steps"] == "60"
    assert {"mase", "mase_SeasonalNaive", "mase_Drift", "coverage_80", "coverage_95"} <= set(
        run.data.metrics
    )
    assert run.data.tags["seed"] == "0"
    assert re.fullmatch(r"[0-9a-f]{40}", run.data.tags.get("mlflow.source.git.commit", "0" * 40))
    (data,) = run.inputs.dataset_inputs
    tags = {tag.key: tag.value for tag in data.tags}
    assert data.dataset.name == "sales"
    assert tags["data.cutoff"].startswith("2018-12-01")
    assert tags["data.rows"] == "720"


def test_run_has_the_history_of_both_trainings(trained):
    """Loss, gradient norm and speed are logged for each reported step of each training."""
    for stage in ("learn", "refit"):
        for name in ("loss", "grad_norm", "observations_per_s"):
            history = trained.tracking.client.get_metric_history(
                trained.outcome.run_id, f"{stage}/{name}"
            )
            assert len(history) == 60
            assert all(np.isfinite(point.value) for point in history)


def test_run_has_tables_figures_and_a_page_that_works_offline(trained, tmp_path):
    """Everything that a reviewer needs is an artifact, and the page loads nothing else."""
    folder = trained.tracking.download(f"runs:/{trained.outcome.run_id}/", tmp_path)

    cv = pd.read_parquet(folder / "backtest.parquet")
    page = (folder / "report.html").read_text(encoding="utf-8")
    environment = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
    figures = {path.stem for path in (folder / "figures").glob("*.json")}
    assert len(cv) == 6 * 6 * 2
    assert {"statecast", "SeasonalNaive", "statecast-lo-80"} <= set(cv.columns)
    assert {"training", "error_by_horizon", "coverage", "fan_1"} <= figures
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=", page)
    assert environment["packages"]["torch"]
    table = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
    assert "mase" in str(table)


def test_scores_are_those_of_weights_that_have_not_seen_the_targets(trained, tmp_path):
    """The scored bundle was trained up to the first cutoff, the one in service to the end."""
    folder = trained.tracking.download(f"runs:/{trained.outcome.run_id}/{HELD_OUT}", tmp_path)
    champion = (
        trained.tracking.download("models:/retail@champion", tmp_path) / "artifacts" / "bundle"
    )

    scored, refitted = load_bundle(folder / "bundle"), load_bundle(champion)

    assert scored.facts["cutoff"].startswith("2017-12-01")
    assert refitted.facts["cutoff"].startswith("2018-12-01")
    assert scored.scores == refitted.scores == trained.outcome.scores


def test_first_model_becomes_challenger_and_champion(trained):
    """Both aliases point at the version, which has the reason as a tag."""
    version = trained.tracking.version("retail", "champion")

    assert version.version == trained.outcome.version
    assert {"challenger", "champion"} <= set(version.aliases)
    assert version.tags["validation_status"] == "approved"
    assert "no champion to beat" in version.tags["gate.reason"]


def test_champion_that_cannot_forecast_these_data_is_not_replaced(trained):
    """A longer horizon than the champion's cannot be compared; a warning says so beforehand."""
    config = dataclasses.replace(
        trained.job.config,
        model=dataclasses.replace(trained.job.config.model, horizon=9),
        train=dataclasses.replace(trained.job.config.train, max_steps=2),
    )
    events: list[train.Event] = []

    outcome = train.run(dataclasses.replace(trained.job, config=config, refit=False), events.append)

    warnings = [event.text for event in events if isinstance(event, train.Warned)]
    assert not outcome.verdict.promote
    assert "it forecasts 6 steps, and 9 are needed" in outcome.verdict.reason
    assert "--name" in warnings[0]


def test_job_without_promotion_leaves_the_champion(trained):
    """With `promote=False` the version is registered and stays pending."""
    outcome = trained.again(name="careful", promote=False, refit=False)

    assert outcome.change is None
    assert trained.tracking.find("careful", "champion") is None
    version = trained.tracking.version("careful", "challenger")
    assert version.tags["validation_status"] == "pending"


def test_invalid_data_leave_no_run(trained, sales, tmp_path):
    """A gap is refused before the MLflow store is opened."""
    table = pd.read_csv(sales)
    table.drop(index=5).to_csv(tmp_path / "gap.csv", index=False)
    job = Job(
        source=str(tmp_path / "gap.csv"),
        config=Config(),
        data_dir=tmp_path,
        tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}",
    )

    with pytest.raises(MissingSteps):
        train.run(job)

    assert not (tmp_path / "mlflow.db").exists()


def test_run_that_raises_has_the_status_failed(trained):
    """It does not stay in the status of a running one."""

    def fail(event: train.Event) -> None:
        if isinstance(event, train.Step):
            raise DataError("broken on purpose")

    with pytest.raises(DataError):
        train.run(dataclasses.replace(trained.job, name="broken"), fail)

    assert trained.tracking.runs(1)[0].status == "FAILED"


def test_job_resumes_on_another_machine_with_another_minimal_gain(trained, monkeypatch):
    """Values that may change are tags, because MLflow refuses to change a parameter."""
    job = dataclasses.replace(trained.job, name="moved")

    def stop(event: train.Event) -> None:
        if isinstance(event, train.Step) and event.stage == "refit":
            raise KeyboardInterrupt

    with pytest.raises(Stopped):
        train.run(job, stop)
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    monkeypatch.setattr("platform.python_version", lambda: "3.11.99")
    outcome = train.run(dataclasses.replace(job, resume=True, min_gain=0.1))

    run = trained.tracking.client.get_run(outcome.run_id)
    assert (run.data.tags["cpu_count"], run.data.tags["python"]) == ("64", "3.11.99")
    assert run.data.tags["min_gain"] == "0.1"


def test_future_rows_with_covariates_are_not_training_data(trained, sales, tmp_path):
    """With `fill="zero"` future months of the file do not count as months without sales."""
    data = DataConfig(freq="MS", fill="zero", known_future=("price",))
    history = pd.read_csv(sales).assign(price=1.5)
    future = pd.concat(
        pd.DataFrame({"unique_id": i, "ds": ["2019-01-01", "2019-02-01"], "price": [1.0, 1.1]})
        for i in history["unique_id"].unique()
    )
    path = tmp_path / "both.csv"
    pd.concat([history, future]).to_csv(path, index=False)
    config = dataclasses.replace(trained.job.config, data=data)
    events = []

    outcome = train.run(
        dataclasses.replace(trained.job, source=str(path), config=config, name="planned"),
        events.append,
    )

    assert outcome.facts["data_digest"] == validate(history, data).digest
    assert outcome.facts["cutoff"].startswith("2018-12-01")
    assert any("12 rows of the future left out" in getattr(e, "text", "") for e in events)

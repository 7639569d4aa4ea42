"""A small training run in a real MLflow store, made once and shared by many tests."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

from forecast.config import Config
from pipelines.tracking.store import Tracking
from pipelines.workflows import train
from pipelines.workflows.job import Job

SETTINGS = {
    "data": {"freq": "MS"},
    "model": {"horizon": 6, "hidden_size": 8},
    "train": {"max_steps": 60},
}


@dataclass(frozen=True)
class Project:
    """A data folder in which a model was trained and promoted."""

    root: Path
    job: Job
    outcome: train.Outcome
    events: list[train.Event]
    tracking: Tracking

    def again(self, **changes: object) -> train.Outcome:
        """Run the same job again with some fields changed."""
        return train.run(dataclasses.replace(self.job, **changes))


@pytest.fixture(scope="session")
def sales(retail: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the last ten years of six retail series to a CSV file and return its path."""
    path = tmp_path_factory.mktemp("sales") / "sales.csv"
    ids = retail["unique_id"].unique()[:6]
    recent = retail[retail["unique_id"].isin(ids) & (retail["ds"] >= "2009-01-01")]
    recent.to_csv(path, index=False)
    return path


@pytest.fixture(scope="session")
def trained(sales: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Train a model, score it with two baselines, register and promote it."""
    root = tmp_path_factory.mktemp("project")
    job = Job(
        source=str(sales),
        config=Config.from_dict(SETTINGS),
        name="retail",
        data_dir=root,
        tracking_uri=f"sqlite:///{root / 'mlflow.db'}",
        baselines=("SeasonalNaive", "Drift"),
    )
    events: list[train.Event] = []
    outcome = train.run(job, events.append)
    return Project(root, job, outcome, events, Tracking(job.tracking_uri))


@pytest.fixture(scope="session")
def examples() -> Path:
    """Return the folder of the bundled data."""
    return Path(__file__).parents[2] / "examples" / "data"

"""One small training run into a real MLflow store, made once, and looked at by many tests."""

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
        """Run the same job again, changed a little."""
        return train.run(dataclasses.replace(self.job, **changes))


@pytest.fixture(scope="session")
def sales(retail: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six retail series, their last ten years, as a CSV file."""
    path = tmp_path_factory.mktemp("sales") / "sales.csv"
    ids = retail["unique_id"].unique()[:6]
    recent = retail[retail["unique_id"].isin(ids) & (retail["ds"] >= "2009-01-01")]
    recent.to_csv(path, index=False)
    return path


@pytest.fixture(scope="session")
def trained(sales: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The run: trained, scored beside two baselines, registered, promoted."""
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
    """The folder of the bundled data."""
    return Path(__file__).parents[2] / "examples" / "data"

"""Writes one MLflow run: parameters, metrics, tags, data set, tables, documents and folders."""

import contextlib
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.tracking.connection import (
    Dataset,
    DatasetInput,
    InputTag,
    Metric,
    Param,
    RunTag,
    mlflow,
    quiet,
    translated_errors,
)

if TYPE_CHECKING:
    import pandas as pd

    from pipelines.tracking.store import Tracking

_BATCH, _MOST_METRICS = 100, 1000
"""Most parameters and metrics that MLflow takes in one call."""
_FLUSH_EVERY = 5.0
"""Longest time that metrics wait, in seconds: each write is a commit of SQLite."""


class Run:
    """
    A run that is being written.

    Args:
        tracking: The store.
        run_id: MLflow's id of the run.
    """

    def __init__(self, tracking: "Tracking", run_id: str) -> None:
        self.tracking = tracking
        self.id = run_id
        self._waiting: list[Metric] = []
        self._written = time.monotonic()

    def params(self, values: Mapping[str, object]) -> None:
        """Log settings, one parameter each. A resumed run may log the same values again."""
        params = [Param(key, str(value)[:6000]) for key, value in values.items()]
        with self.writing() as client:
            for start in range(0, len(params), _BATCH):
                client.log_batch(self.id, params=params[start : start + _BATCH])

    def metrics(self, values: Mapping[str, float], *, step: int = 0) -> None:
        """Log metrics at a step. They are written together, every few seconds and at the end."""
        now = int(time.time() * 1000)
        self._waiting += [
            Metric(k.replace("@", "at"), float(v), now, step) for k, v in values.items()
        ]
        if time.monotonic() - self._written > _FLUSH_EVERY or len(self._waiting) > _MOST_METRICS:
            self.flush()

    def flush(self) -> None:
        """Write the metrics that wait."""
        waiting, self._waiting = self._waiting, []
        self._written = time.monotonic()
        with self.writing() as client:
            for start in range(0, len(waiting), _MOST_METRICS):
                client.log_batch(self.id, metrics=waiting[start : start + _MOST_METRICS])

    def end(self, status: str) -> None:
        """Write what waits and set the status: `FINISHED`, `FAILED` or `KILLED`."""
        self.flush()
        with self.writing() as client:
            client.set_terminated(self.id, status=status)

    def tags(self, values: Mapping[str, str]) -> None:
        """Set tags, cut to the length that MLflow stores."""
        batch = [RunTag(key, value[:8000]) for key, value in values.items()]
        with self.writing() as client:
            client.log_batch(self.id, tags=batch)

    def dataset(self, name: str, digest: str, *, source: str, tags: Mapping[str, str]) -> None:
        """Log the data set by name and digest; its rows are not copied."""
        described = Dataset(
            name=name, digest=digest[:36], source_type="local", source=source, schema=None
        )
        inputs = [InputTag("mlflow.data.context", "training")]
        inputs += [InputTag(key, value) for key, value in tags.items()]
        with self.writing() as client:
            client.log_inputs(self.id, [DatasetInput(dataset=described, tags=inputs)])

    def table(self, frame: "pd.DataFrame", path: str) -> None:
        """Log a small table as `.json`, which MLflow's pages show; replaces one of this name."""
        with self.writing() as client:
            if any(artifact.path == path for artifact in client.list_artifacts(self.id)):
                client.log_text(self.id, frame.to_json(orient="split", index=False), path)
            else:
                client.log_table(self.id, frame, path)

    def text(self, text: str, path: str) -> None:
        """Log a text file, such as HTML."""
        with self.writing() as client:
            client.log_text(self.id, text, path)

    def document(self, value: Mapping[str, Any], path: str) -> None:
        """Log a JSON file."""
        with self.writing() as client:
            client.log_dict(self.id, dict(value), path)

    def folder(self, directory: Path, path: str) -> None:
        """Log every file of a folder below `path`."""
        with self.writing() as client:
            client.log_artifacts(self.id, str(directory), path)

    @contextlib.contextmanager
    def writing(self) -> Iterator[mlflow.MlflowClient]:
        """Yield the store's client; MLflow's errors inside are raised as ours."""
        with quiet(), translated_errors(self.tracking.uri):
            yield self.tracking.client

"""
MLflow, and nothing else of it: runs, artifacts, the registry of models. The only importer of it.

The store is always named explicitly: an SQLite file and a folder of artifacts by default, or the
address of a tracking server. Telemetry is off, and so is reading pickles.
"""

import contextlib
import fcntl
import logging
import os
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
from forecast.errors import ModelSourceError, UnknownModel
from forecast.redact import redact_url

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
os.environ.setdefault("MLFLOW_SKIP_PIP_REQUIREMENTS_CHECK", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import mlflow
    from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.exceptions import MlflowException
__all__ = ["Run", "RunRow", "Tracking", "Version", "mlflow"]
EXPERIMENT = "statecast"
_BATCH, _MOST_METRICS = 100, 1000
"""Params and metrics in one call; MLflow takes no more."""
_FLUSH_EVERY = 5.0
"""Seconds that metrics may wait: each write is a commit of SQLite."""
_MISSING = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
for _noisy in ("alembic", "mlflow.store", "mlflow.tracking", "mlflow.models", "mlflow.pyfunc"):
    logging.getLogger(_noisy).setLevel(logging.CRITICAL)


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a registered model."""

    name: str
    version: int
    run_id: str
    source: str
    created: float
    """Unix seconds."""
    aliases: tuple[str, ...]
    tags: dict[str, str]


@dataclass(frozen=True, slots=True)
class RunRow:
    """One run, as a list shows it."""

    run_id: str
    name: str
    status: str
    started: float
    """Unix seconds."""
    seconds: float | None
    metrics: dict[str, float]
    params: dict[str, str]
    tags: dict[str, str]


class Tracking:
    """
    One MLflow store, opened.

    Args:
        uri: `sqlite:///...`, or the address of a tracking server.
        artifacts: Where a new experiment keeps its artifacts; a server decides for itself.

    Raises:
        ModelSourceError: It cannot be opened or reached.
    """

    def __init__(self, uri: str, artifacts: Path | None = None) -> None:
        self.uri = uri
        with _only_one(uri), _quiet(), _reach(uri):
            mlflow.set_tracking_uri(uri)
            mlflow.set_registry_uri(uri)
            self.client = mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)
            self.experiment_id = self._experiment(artifacts)

    def _experiment(self, artifacts: Path | None) -> str:
        found = self.client.get_experiment_by_name(EXPERIMENT)
        if found is not None:
            return str(found.experiment_id)
        location = None
        if self.uri.startswith("sqlite:") and artifacts is not None:
            location = artifacts.resolve().as_uri()
        return str(self.client.create_experiment(EXPERIMENT, artifact_location=location))

    @contextlib.contextmanager
    def run(
        self, name: str, *, run_id: str | None = None, tags: Mapping[str, str]
    ) -> Iterator["Run"]:
        """
        A run that ends as it should: finished, failed, or killed when it was interrupted.

        Args:
            name: What the pages call it.
            run_id: Go on with this run instead of starting one.
            tags: Noted at once.
        """
        with _quiet(), _reach(self.uri):
            if run_id is None:
                created = self.client.create_run(
                    self.experiment_id, run_name=name, tags={**_source_tags(), **tags}
                )
                run_id = created.info.run_id
            else:
                self.client.update_run(run_id, status="RUNNING")
        run = Run(self, run_id)
        try:
            yield run
        except BaseException as error:
            with contextlib.suppress(Exception):  # the first failure is the one to tell
                run.end("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
            raise
        run.end("FINISHED")

    def has_run(self, run_id: str) -> bool:
        """Whether a run is (still) in the store."""
        try:
            return self.client.get_run(run_id).info.lifecycle_stage == "active"
        except MlflowException:
            return False

    def runs(self, limit: int) -> list[RunRow]:
        """The latest runs, newest first."""
        with _quiet(), _reach(self.uri):
            found = self.client.search_runs(
                [self.experiment_id], max_results=limit, order_by=["attributes.start_time DESC"]
            )
        return [_row(run) for run in found]

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other processes on this machine from moving aliases: MLflow does not compare."""
        with _only_one(self.uri):
            yield

    def register(self, model_uri: str, name: str, run_id: str, tags: Mapping[str, str]) -> int:
        """Make a logged model the next version of `name`; returns its number."""
        with _quiet(), _reach(self.uri):
            with contextlib.suppress(MlflowException):
                self.client.create_registered_model(name)
            made = self.client.create_model_version(
                name, model_uri, run_id=run_id, tags=dict(tags), model_id=_model_id(model_uri)
            )
        return int(made.version)

    def version(self, name: str, which: str) -> Version:
        """
        A version by number or alias.

        Raises:
            UnknownModel: It is not registered.
        """
        try:
            with _quiet(), _reach(self.uri):
                found = (
                    self.client.get_model_version(name, which)
                    if which.isdigit()
                    else self.client.get_model_version_by_alias(name, which)
                )
        except UnknownModel:
            mark = "version" if which.isdigit() else "alias"
            raise UnknownModel(
                f"no {mark} {which!r} of model {name!r}",
                where=redact_url(self.uri),
                help="statecast models list",
            ) from None
        return self._version(found)

    def find(self, name: str, alias: str) -> Version | None:
        """The version that has an alias, or None."""
        try:
            return self.version(name, alias)
        except UnknownModel:
            return None

    def versions(self, name: str | None = None) -> list[Version]:
        """Every registered version, newest first."""
        with _quiet(), _reach(self.uri):
            named = f"name = '{name}'" if name else None
            found = list(self.client.search_model_versions(named, max_results=1000))
        made = [self._version(version) for version in found]
        return sorted(made, key=lambda v: (v.name, -v.version))

    def set_alias(self, name: str, alias: str, version: int) -> None:
        """Point an alias at a version."""
        with _quiet(), _reach(self.uri):
            self.client.set_registered_model_alias(name, alias, str(version))

    def tag_version(self, name: str, version: int, tags: Mapping[str, str]) -> None:
        """Note facts on a version."""
        with _quiet(), _reach(self.uri):
            for key, value in tags.items():
                self.client.set_model_version_tag(name, str(version), key, value[:5000])

    def download(self, uri: str, into: Path) -> Path:
        """Copy a model's (`models:/`) or a run's (`runs:/`) artifacts; the folder that has them."""
        with _quiet(), _reach(self.uri):
            download = mlflow.artifacts.download_artifacts
            return Path(download(uri, dst_path=str(into), tracking_uri=self.uri))

    def _version(self, found: ModelVersion) -> Version:
        # Aliases come from the model: a version found by search may lack them.
        aliases = self.client.get_registered_model(found.name).aliases
        return Version(
            name=found.name,
            version=int(found.version),
            run_id=found.run_id or "",
            source=found.source or "",
            created=found.creation_timestamp / 1000,
            aliases=tuple(sorted(a for a, v in aliases.items() if int(v) == int(found.version))),
            tags=dict(found.tags),
        )


class Run:
    """One run that is being written."""

    def __init__(self, tracking: Tracking, run_id: str) -> None:
        self.tracking = tracking
        self.id = run_id
        self._waiting: list[Metric] = []
        self._written = time.monotonic()

    def params(self, values: Mapping[str, object]) -> None:
        """Settings, one parameter each; a resumed run may give the same again."""
        params = [Param(key, str(value)[:6000]) for key, value in values.items()]
        with self.writing() as client:
            for start in range(0, len(params), _BATCH):
                client.log_batch(self.id, params=params[start : start + _BATCH])

    def metrics(self, values: Mapping[str, float], *, step: int = 0) -> None:
        """Numbers at a step. They are written together, every few seconds and at the end."""
        now = int(time.time() * 1000)
        self._waiting += [
            Metric(k.replace("@", "at"), float(v), now, step) for k, v in values.items()
        ]
        if time.monotonic() - self._written > _FLUSH_EVERY or len(self._waiting) > _MOST_METRICS:
            self.flush()

    def flush(self) -> None:
        """Write the numbers that wait."""
        waiting, self._waiting = self._waiting, []
        self._written = time.monotonic()
        with self.writing() as client:
            for start in range(0, len(waiting), _MOST_METRICS):
                client.log_batch(self.id, metrics=waiting[start : start + _MOST_METRICS])

    def end(self, status: str) -> None:
        """Write what waits, and how it ended: `FINISHED`, `FAILED` or `KILLED`."""
        self.flush()
        with self.writing() as client:
            client.set_terminated(self.id, status=status)

    def tags(self, values: Mapping[str, str]) -> None:
        """Facts in words."""
        batch = [RunTag(key, value[:8000]) for key, value in values.items()]
        with self.writing() as client:
            client.log_batch(self.id, tags=batch)

    def dataset(self, name: str, digest: str, *, source: str, tags: Mapping[str, str]) -> None:
        """The data set by name and digest; its rows stay where they are."""
        described = Dataset(
            name=name, digest=digest[:36], source_type="local", source=source, schema=None
        )
        inputs = [InputTag("mlflow.data.context", "training")]
        inputs += [InputTag(key, value) for key, value in tags.items()]
        with self.writing() as client:
            client.log_inputs(self.id, [DatasetInput(dataset=described, tags=inputs)])

    def table(self, frame: "pd.DataFrame", path: str) -> None:
        """A small table, as the pages show it (`.json`); in place of the one that is there."""
        with self.writing() as client:
            if any(found.path == path for found in client.list_artifacts(self.id)):
                client.log_text(self.id, frame.to_json(orient="split", index=False), path)
            else:
                client.log_table(self.id, frame, path)

    def text(self, text: str, path: str) -> None:
        """A text file, such as HTML."""
        with self.writing() as client:
            client.log_text(self.id, text, path)

    def document(self, value: Mapping[str, Any], path: str) -> None:
        """A JSON file."""
        with self.writing() as client:
            client.log_dict(self.id, dict(value), path)

    def folder(self, directory: Path, path: str) -> None:
        """Everything in a folder."""
        with self.writing() as client:
            client.log_artifacts(self.id, str(directory), path)

    @contextlib.contextmanager
    def writing(self) -> Iterator[mlflow.MlflowClient]:
        """The store's client; what it raises inside is told as ours."""
        with _quiet(), _reach(self.tracking.uri):
            yield self.tracking.client


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """MLflow's and SQLAlchemy's warnings are not for our users, and its URLs not for stdout."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def _reach(uri: str) -> Iterator[None]:
    """MLflow's errors as ours."""
    try:
        yield
    except (MlflowException, OSError) as error:
        if isinstance(error, MlflowException) and error.error_code in _MISSING:
            raise UnknownModel(_first_line(error), where=redact_url(uri)) from error
        raise ModelSourceError(
            f"MLflow's store cannot be used: {_first_line(error)}",
            where=redact_url(uri),
            help=_way_out(uri),
        ) from error


@contextlib.contextmanager
def _only_one(uri: str) -> Iterator[None]:
    """One process at a time: two that make an SQLite store's tables would collide."""
    if not uri.startswith("sqlite:///"):
        yield
        return
    path = Path(uri.removeprefix("sqlite:///"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.with_name(path.name + ".lock").open("w")
    except OSError as error:
        raise ModelSourceError(
            f"the folder of MLflow's store cannot be written: {error.strerror or error}",
            where=str(path.parent),
            help="choose another folder: data_dir in statecast.toml, or STATECAST_DATA_DIR",
        ) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _way_out(uri: str) -> str:
    if uri.startswith("sqlite:"):
        return f"check the file's rights, or bring an old store up to date: mlflow db upgrade {uri}"
    return "start the tracking server, or set STATECAST_TRACKING_URI to where it is"


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]


def _source_tags() -> dict[str, str]:
    return {"mlflow.source.name": "statecast", "mlflow.source.type": "LOCAL"}


def _model_id(model_uri: str) -> str | None:
    tail = model_uri.removeprefix("models:/")
    return tail if tail.startswith("m-") and "/" not in tail else None


def _row(run: Any) -> RunRow:
    info, data = run.info, run.data
    seconds = (info.end_time - info.start_time) / 1000 if info.end_time else None
    return RunRow(
        run_id=info.run_id,
        name=info.run_name or "",
        status=info.status,
        started=info.start_time / 1000,
        seconds=seconds,
        metrics=dict(data.metrics),
        params=dict(data.params),
        tags={k: v for k, v in data.tags.items() if not k.startswith("mlflow.")},
    )

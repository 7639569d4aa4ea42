"""The MLflow store: runs that are found again, registered versions and their aliases."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forecast.errors import UnknownModel
from forecast.redact import redact_url
from pipelines.tracking.connection import (
    MlflowException,
    ModelVersion,
    exclusive,
    mlflow,
    quiet,
    translated_errors,
)
from pipelines.tracking.run import Run

EXPERIMENT = "statecast"


@dataclass(frozen=True, slots=True)
class Version:
    """A version of a registered model."""

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
    """A run as lists show it."""

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
    An open MLflow store.

    Args:
        uri: `sqlite:///...`, or the address of a tracking server.
        artifacts: Folder for the artifacts of a new experiment. A tracking server ignores it.

    Raises:
        ModelSourceError: The store cannot be opened or reached.
    """

    def __init__(self, uri: str, artifacts: Path | None = None) -> None:
        self.uri = uri
        with exclusive(uri), quiet(), translated_errors(uri):
            mlflow.set_tracking_uri(uri)
            mlflow.set_registry_uri(uri)
            self.client = mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)
            self.experiment_id = self._experiment(artifacts)

    def _experiment(self, artifacts: Path | None) -> str:
        experiment = self.client.get_experiment_by_name(EXPERIMENT)
        if experiment is not None:
            return str(experiment.experiment_id)
        location = None
        if self.uri.startswith("sqlite:") and artifacts is not None:
            location = artifacts.resolve().as_uri()
        return str(self.client.create_experiment(EXPERIMENT, artifact_location=location))

    @contextlib.contextmanager
    def run(
        self, name: str, *, run_id: str | None = None, tags: Mapping[str, str]
    ) -> Iterator["Run"]:
        """
        Start a run, or continue one, and set its final status when the block ends.

        The status is `FINISHED`, `FAILED` after an exception, or `KILLED` after Ctrl-C.

        Args:
            name: Name of a new run on MLflow's pages.
            run_id: Id of a run to continue; None starts a new one.
            tags: Tags of a new run.
        """
        with quiet(), translated_errors(self.uri):
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
            with contextlib.suppress(Exception):  # the first failure is the one to report
                run.end("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
            raise
        run.end("FINISHED")

    def has_run(self, run_id: str) -> bool:
        """Whether the run exists and was not deleted."""
        try:
            return self.client.get_run(run_id).info.lifecycle_stage == "active"
        except MlflowException:
            return False

    def runs(self, limit: int) -> list[RunRow]:
        """Return the latest runs, newest first."""
        with quiet(), translated_errors(self.uri):
            runs = self.client.search_runs(
                [self.experiment_id], max_results=limit, order_by=["attributes.start_time DESC"]
            )
        return [_row(run) for run in runs]

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """
        Keep other processes on this machine from moving aliases at the same time.

        MLflow sets an alias without comparing it with what the caller has read.
        """
        with exclusive(self.uri):
            yield

    def register(self, model_uri: str, name: str, run_id: str, tags: Mapping[str, str]) -> int:
        """Register a logged model as the next version of `name` and return its number."""
        with quiet(), translated_errors(self.uri):
            with contextlib.suppress(MlflowException):
                self.client.create_registered_model(name)
            created = self.client.create_model_version(
                name, model_uri, run_id=run_id, tags=dict(tags), model_id=_model_id(model_uri)
            )
        return int(created.version)

    def version(self, name: str, which: str) -> Version:
        """
        Return a version by number or alias.

        Raises:
            UnknownModel: There is no such version.
        """
        try:
            with quiet(), translated_errors(self.uri):
                version = (
                    self.client.get_model_version(name, which)
                    if which.isdigit()
                    else self.client.get_model_version_by_alias(name, which)
                )
        except UnknownModel:
            kind = "version" if which.isdigit() else "alias"
            raise UnknownModel(
                f"no {kind} {which!r} of model {name!r}",
                where=redact_url(self.uri),
                help="statecast models list",
            ) from None
        return self._version(version)

    def find(self, name: str, alias: str) -> Version | None:
        """Return the version that has an alias, or None."""
        try:
            return self.version(name, alias)
        except UnknownModel:
            return None

    def versions(self, name: str | None = None) -> list[Version]:
        """Return every registered version, by name and newest first."""
        with quiet(), translated_errors(self.uri):
            query = f"name = '{name}'" if name else None
            rows = list(self.client.search_model_versions(query, max_results=1000))
        versions = [self._version(row) for row in rows]
        return sorted(versions, key=lambda v: (v.name, -v.version))

    def set_alias(self, name: str, alias: str, version: int) -> None:
        """Point an alias at a version."""
        with quiet(), translated_errors(self.uri):
            self.client.set_registered_model_alias(name, alias, str(version))

    def tag_version(self, name: str, version: int, tags: Mapping[str, str]) -> None:
        """Set tags of a version, cut to the length that MLflow stores."""
        with quiet(), translated_errors(self.uri):
            for key, value in tags.items():
                self.client.set_model_version_tag(name, str(version), key, value[:5000])

    def download(self, uri: str, into: Path) -> Path:
        """Copy artifacts of a model (`models:/`) or run (`runs:/`) and return their folder."""
        with quiet(), translated_errors(self.uri):
            download = mlflow.artifacts.download_artifacts
            return Path(download(uri, dst_path=str(into), tracking_uri=self.uri))

    def _version(self, row: ModelVersion) -> Version:
        # A version found by search may lack its aliases; the model has them.
        aliases = self.client.get_registered_model(row.name).aliases
        return Version(
            name=row.name,
            version=int(row.version),
            run_id=row.run_id or "",
            source=row.source or "",
            created=row.creation_timestamp / 1000,
            aliases=tuple(sorted(a for a, v in aliases.items() if int(v) == int(row.version))),
            tags=dict(row.tags),
        )


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

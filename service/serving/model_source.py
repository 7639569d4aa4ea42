"""
Where the model comes from: the directory of a bundle, or a model registered in MLflow.

Only JSON and safetensors are read, with verified digests: nothing of the artifact is executed.
MLflow is imported here alone, and only when a registered model is asked for.
"""

import gc
import os
import re
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from forecast.bundle import JSON_NAME, Bundle, load_bundle, read_digest
from forecast.errors import BundleError, ModelSourceError, UnknownModel
from forecast.redact import redact_url
from service.settings import Settings

_REGISTERED = re.compile(
    r"models:/(?P<name>[^/@:]{1,200})(@(?P<alias>[\w-]{1,255})|/(?P<version>\d+))"
)
_MISSING = {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}


@dataclass(frozen=True, slots=True)
class Source:
    """Which model this is, in the words of the registry or of the file system."""

    name: str
    version: str | None
    """None for a directory."""
    alias: str | None
    digest: str

    @property
    def mark(self) -> str:
        """What `look` calls it."""
        return self.version or self.digest


def fetch(settings: Settings) -> tuple[Source, Bundle]:
    """
    Find the model that the settings name now, and load it.

    Raises:
        UnknownModel: There is no such directory, name, alias or version.
        ModelSourceError: The registry does not answer.
        BundleError: What was found is damaged, or of another format version.
    """
    registered = _REGISTERED.fullmatch(settings.model)
    if registered:
        version = _resolve(settings, registered)
        bundle = _download(settings, registered["name"], version)
        return Source(registered["name"], version, registered["alias"], bundle.digest), bundle
    if settings.model.startswith("models:"):
        raise UnknownModel(
            f"{settings.model!r} does not name a registered model",
            help="write models:/NAME@ALIAS or models:/NAME/VERSION",
        )
    directory = Path(settings.model)
    if not (directory / JSON_NAME).is_file():
        raise UnknownModel(
            "no bundle in this directory",
            where=str(directory),
            help="give the directory that `statecast train` wrote, or models:/NAME@ALIAS",
        )
    bundle = load_bundle(directory)
    return Source(directory.resolve().name, None, None, bundle.digest), bundle


def look(settings: Settings) -> str:
    """
    What the settings name now, in one word: a version of the registry, or a bundle's digest.

    Cheap: nothing is copied, and of a directory only the JSON is read.

    Raises:
        UnknownModel, ModelSourceError, BundleError: As for `fetch`.
    """
    registered = _REGISTERED.fullmatch(settings.model)
    if registered is None:
        return read_digest(settings.model)
    return _resolve(settings, registered)


def _resolve(settings: Settings, wanted: re.Match[str]) -> str:
    """The version that an alias stands for now."""
    _check_store(settings)
    fresh = "mlflow" not in sys.modules
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        client = mlflow.MlflowClient(settings.mlflow_uri, settings.mlflow_uri)
        if wanted["alias"] is None:
            found = client.get_model_version(wanted["name"], wanted["version"])
        else:
            found = client.get_model_version_by_alias(wanted["name"], wanted["alias"])
    except MlflowException as error:
        if error.error_code in _MISSING:
            raise UnknownModel(
                f"{wanted[0]} is not in the registry",
                where=redact_url(settings.mlflow_uri),
                help="train and promote a model first: statecast train",
            ) from error
        raise _away(settings, error) from error
    except Exception as error:  # whatever client and database raise when nobody answers
        raise _away(settings, error) from error
    if fresh:
        gc.freeze()  # as in `server.run`: to look through MLflow as well stops all for 0.1 s
    return str(found.version)


def _download(settings: Settings, name: str, version: str) -> Bundle:
    """The one bundle of a version, verified."""
    import mlflow

    with tempfile.TemporaryDirectory() as folder:
        try:
            client = mlflow.MlflowClient(settings.mlflow_uri, settings.mlflow_uri)
            place = client.get_model_version_download_uri(name, version)
            mlflow.artifacts.download_artifacts(
                place, dst_path=folder, tracking_uri=settings.mlflow_uri
            )
        except Exception as error:  # as above, and whatever the artifact store raises
            raise _away(settings, error) from error
        found = sorted(Path(folder).rglob(JSON_NAME))
        if len(found) != 1 or found[0].is_symlink():
            raise UnknownModel(
                f"version {version} of {name!r} holds {len(found)} bundles; expected one",
                help="register a model that `statecast train` made",
            )
        try:
            return load_bundle(found[0].parent)
        except BundleError as error:
            error.where = f"models:/{name}/{version}"  # not where its copy was
            raise


def _check_store(settings: Settings) -> None:
    """MLflow would make a new, empty database where none is."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    kind, _, path = settings.mlflow_uri.partition(":///")
    if kind == "sqlite" and not Path(path).exists():
        raise ModelSourceError(
            "there is no MLflow database here",
            where=path,
            help="train a model first (statecast train), or set STATECAST_TRACKING_URI",
        )


def _away(settings: Settings, error: Exception) -> ModelSourceError:
    return ModelSourceError(
        f"MLflow does not answer ({type(error).__name__})",
        where=redact_url(settings.mlflow_uri),
        help="start the tracking server, or serve the directory of a bundle",
    )

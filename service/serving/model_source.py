"""
Load a model from its source: the directory of a bundle, or a model registered in MLflow.

Only JSON and safetensors are read, and their digests verified: no code of an artifact is executed.
This is the only module of the service that imports MLflow, and only for a registered model.
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
    """Name and version of a model in the registry, or name of its directory."""

    name: str
    version: str | None
    """Version in the registry; None for a directory."""
    alias: str | None
    """Alias by which the settings name it, if they do."""
    digest: str
    """Digest of the bundle."""

    @property
    def identifier(self) -> str:
        """The version in the registry, or the digest for a directory, as `identify` returns it."""
        return self.version or self.digest


def fetch(settings: Settings) -> tuple[Source, Bundle]:
    """
    Load the model that the settings name now.

    Raises:
        UnknownModel: There is no such directory, name, alias or version.
        ModelSourceError: The registry does not answer.
        BundleError: The bundle is damaged, or of a format that this release does not read.
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


def identify(settings: Settings) -> str:
    """
    Return the identifier of the model that the settings name now, without loading it.

    The identifier is a version of the registry, or the digest in the JSON of a directory's bundle.

    Raises:
        UnknownModel, ModelSourceError, BundleError: As for `fetch`.
    """
    registered = _REGISTERED.fullmatch(settings.model)
    if registered is None:
        return read_digest(settings.model)
    return _resolve(settings, registered)


def _resolve(settings: Settings, registered: re.Match[str]) -> str:
    """Return the version of a registered model, which an alias may stand for."""
    _check_store(settings)
    first_import = "mlflow" not in sys.modules
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        client = mlflow.MlflowClient(settings.mlflow_uri, settings.mlflow_uri)
        if registered["alias"] is None:
            version = client.get_model_version(registered["name"], registered["version"])
        else:
            version = client.get_model_version_by_alias(registered["name"], registered["alias"])
    except MlflowException as error:
        if error.error_code in _MISSING:
            raise UnknownModel(
                f"{registered[0]} is not in the registry",
                where=redact_url(settings.mlflow_uri),
                help="train and promote a model first: statecast train",
            ) from error
        raise _unreachable(settings, error) from error
    except Exception as error:  # Client and database raise many types if nobody answers.
        raise _unreachable(settings, error) from error
    if first_import:
        gc.freeze()  # As in `server.run`: scanning MLflow as well would stop requests for 0.1 s.
    return str(version.version)


def _download(settings: Settings, name: str, version: str) -> Bundle:
    """Download and verify the one bundle of a version."""
    import mlflow

    with tempfile.TemporaryDirectory() as folder:
        try:
            client = mlflow.MlflowClient(settings.mlflow_uri, settings.mlflow_uri)
            uri = client.get_model_version_download_uri(name, version)
            mlflow.artifacts.download_artifacts(
                uri, dst_path=folder, tracking_uri=settings.mlflow_uri
            )
        except Exception as error:  # As above, and whatever the artifact store raises.
            raise _unreachable(settings, error) from error
        bundles = sorted(Path(folder).rglob(JSON_NAME))
        if len(bundles) != 1 or bundles[0].is_symlink():
            raise UnknownModel(
                f"version {version} of {name!r} holds {len(bundles)} bundles; expected one",
                help="register a model that `statecast train` made",
            )
        try:
            return load_bundle(bundles[0].parent)
        except BundleError as error:
            error.where = f"models:/{name}/{version}"  # The temporary directory says nothing.
            raise


def _check_store(settings: Settings) -> None:
    """Raise if MLflow's database file is missing: MLflow would create a new, empty one."""
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


def _unreachable(settings: Settings, error: Exception) -> ModelSourceError:
    return ModelSourceError(
        f"MLflow does not answer ({type(error).__name__})",
        where=redact_url(settings.mlflow_uri),
        help="start the tracking server, or serve the directory of a bundle",
    )

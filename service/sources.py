"""
Where the model comes from: the directory of a bundle, or a model registered in MLflow.

A registered model is copied once into `<data_dir>/bundles/<digest>`, and a pointer file remembers
which version a name stood for, so that the server starts from its copy when the tracking server
is away. Only JSON and safetensors are read, with verified digests: nothing of the artifact is
executed. MLflow is imported here alone, and only when a registered model is asked for.
"""

import json
import logging
import os
import re
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from forecast.addresses import shown
from forecast.bundle import JSON_NAME, WEIGHTS_NAME, Bundle, load_bundle, read_digest
from forecast.errors import ForecastError
from service.errors import ModelSourceError, UnknownModel
from service.settings import Settings

_REGISTERED = re.compile(
    r"models:/(?P<name>[^/@:]{1,200})(@(?P<alias>[\w-]{1,255})|/(?P<version>\d+))"
)
_MISSING = {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}

logger = logging.getLogger("service.sources")


@dataclass(frozen=True, slots=True)
class Source:
    """Which model this is, in the words of the registry or of the file system."""

    name: str
    version: str | None
    """None for a directory."""
    alias: str | None
    digest: str
    directory: str

    @property
    def mark(self) -> str:
        """What `look` calls it."""
        return self.version or self.digest


def fetch(settings: Settings) -> tuple[Source, Bundle]:
    """
    Find the model of the settings and load it.

    Raises:
        UnknownModel: There is no such directory, name, alias or version.
        ModelSourceError: The registry does not answer, and there is no local copy.
        BundleError: What was found is damaged, or of another format version.
    """
    registered = _REGISTERED.fullmatch(settings.model)
    if registered:
        return _fetch_registered(settings, registered)
    if settings.model.startswith("models:"):
        raise UnknownModel(
            f"{settings.model!r} does not name a registered model",
            help="write models:/NAME@ALIAS or models:/NAME/VERSION",
        )
    directory = Path(settings.model)
    if not (directory / JSON_NAME).is_file():
        raise UnknownModel(
            "no bundle in this directory", where=str(directory),
            help="give the directory that `statecast train` wrote, or models:/NAME@ALIAS",
        )  # fmt: skip
    bundle = load_bundle(directory)
    return Source(directory.resolve().name, None, None, bundle.digest, str(directory)), bundle


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


def _fetch_registered(settings: Settings, wanted: re.Match[str]) -> tuple[Source, Bundle]:
    cache = settings.data_dir / "bundles"
    pointer = cache / f"{_file_name(wanted[0])}.json"
    known = _read_pointer(pointer)
    try:
        version = _resolve(settings, wanted)
        if known is None or known.version != version:
            known = _copy(settings, wanted["name"], version, wanted["alias"], cache)
            _write_pointer(pointer, known)
    except UnknownModel:
        raise
    except ModelSourceError as error:
        if known is None:
            raise
        logger.warning("%s; serving the local copy of version %s", error.message, known.version)
    try:
        return known, load_bundle(known.directory)
    except ForecastError:  # the copy was damaged: fetch it again, or say so
        shutil.rmtree(known.directory, ignore_errors=True)
        pointer.unlink(missing_ok=True)
        version = _resolve(settings, wanted)
        known = _copy(settings, wanted["name"], version, wanted["alias"], cache)
        _write_pointer(pointer, known)
        return known, load_bundle(known.directory)


def _resolve(settings: Settings, wanted: re.Match[str]) -> str:
    """The version that an alias stands for now."""
    _check_store(settings)
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        client = mlflow.MlflowClient(settings.mlflow_uri, settings.mlflow_uri)
        if wanted["alias"] is None:
            return str(client.get_model_version(wanted["name"], wanted["version"]).version)
        found = client.get_model_version_by_alias(wanted["name"], wanted["alias"])
        return str(found.version)
    except MlflowException as error:
        if error.error_code in _MISSING:
            raise UnknownModel(
                f"{wanted[0]} is not in the registry", where=shown(settings.mlflow_uri),
                help="train and promote a model first: statecast train",
            ) from error  # fmt: skip
        raise _away(settings, error) from error
    except Exception as error:  # whatever client and database raise when nobody answers
        raise _away(settings, error) from error


def _copy(settings: Settings, name: str, version: str, alias: str | None, cache: Path) -> Source:
    """Bring a version into the cache, verified and under its digest."""
    import mlflow

    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=".fetch-") as folder:
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
        bundle = load_bundle(found[0].parent)
        clean = Path(folder) / "clean"
        clean.mkdir()
        for file in (JSON_NAME, WEIGHTS_NAME):
            shutil.copyfile(found[0].parent / file, clean / file)
        target = cache / bundle.digest
        if not target.exists():
            clean.replace(target)
    return Source(name, version, alias, bundle.digest, str(target))


def _check_store(settings: Settings) -> None:
    """MLflow would make a new, empty database where none is."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    kind, _, path = settings.mlflow_uri.partition(":///")
    if kind == "sqlite" and not Path(path).exists():
        raise ModelSourceError(
            "there is no MLflow database here", where=path,
            help="train a model first (statecast train), or set STATECAST_TRACKING_URI",
        )  # fmt: skip


def _away(settings: Settings, error: Exception) -> ModelSourceError:
    return ModelSourceError(
        f"MLflow does not answer ({type(error).__name__})", where=shown(settings.mlflow_uri),
        help="start the tracking server, or serve the directory of a bundle",
    )  # fmt: skip


def _file_name(uri: str) -> str:
    return re.sub(r"[^\w.@-]", "_", uri.removeprefix("models:/"))


def _read_pointer(path: Path) -> Source | None:
    try:
        known = Source(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    return known if (Path(known.directory) / JSON_NAME).is_file() else None


def _write_pointer(path: Path, source: Source) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(asdict(source)), encoding="utf-8")
    fresh.replace(path)

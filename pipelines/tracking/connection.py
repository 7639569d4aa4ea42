"""
Imports MLflow, the only module that does so, and turns its errors into ours.

The store is always named explicitly: an SQLite file and a folder of artifacts by default, or the
address of a tracking server. Telemetry and the reading of pickles are switched off.
"""

import contextlib
import fcntl
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

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

__all__ = [
    "Dataset",
    "DatasetInput",
    "InputTag",
    "Metric",
    "MlflowException",
    "ModelVersion",
    "Param",
    "RunTag",
    "exclusive",
    "mlflow",
    "quiet",
    "translated_errors",
]
_MISSING = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
"""MLflow's codes for something that is not registered."""
for _noisy in ("alembic", "mlflow.store", "mlflow.tracking", "mlflow.models", "mlflow.pyfunc"):
    logging.getLogger(_noisy).setLevel(logging.CRITICAL)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hide warnings of MLflow and SQLAlchemy, and send what MLflow prints to stderr."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def translated_errors(uri: str) -> Iterator[None]:
    """
    Raise MLflow's errors as ours.

    Raises:
        UnknownModel: What was asked for is not registered.
        ModelSourceError: The store at `uri` cannot be opened, reached or written.
    """
    try:
        yield
    except (MlflowException, OSError) as error:
        if isinstance(error, MlflowException) and error.error_code in _MISSING:
            raise UnknownModel(_first_line(error), where=redact_url(uri)) from error
        raise ModelSourceError(
            f"MLflow's store cannot be used: {_first_line(error)}",
            where=redact_url(uri),
            help=_advice(uri),
        ) from error


@contextlib.contextmanager
def exclusive(uri: str) -> Iterator[None]:
    """
    Hold the lock of an SQLite store; return at once for a tracking server.

    Two processes that create the tables of a store at the same time would collide.

    Raises:
        ModelSourceError: The folder of the store cannot be written.
    """
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


def _advice(uri: str) -> str:
    if uri.startswith("sqlite:"):
        return f"check the file's rights, or bring an old store up to date: mlflow db upgrade {uri}"
    return "start the tracking server, or set STATECAST_TRACKING_URI to where it is"


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]

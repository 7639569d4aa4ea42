"""
A bundle as an MLflow model: `save_model`, `log_model` and `load_model`, as MLflow's flavors have.

The stored model is a `pyfunc` of the models-from-code kind: `artifacts/bundle/` (JSON and
safetensors), `pyfunc.py` to load it, and a copy of the `forecast` package. No pickle is written or
read, and nothing is downloaded: the requirements name the versions installed here.
"""

import importlib.metadata
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any

import forecast
from forecast.bundle import JSON_NAME, Bundle, load_bundle, save_bundle
from forecast.errors import BundleError
from pipelines.tracking.connection import mlflow
from pipelines.tracking.run import Run
from pipelines.tracking.store import Tracking

BUNDLE = "bundle"
"""Folder of the bundle among the model's artifacts."""
HELD_OUT = "evaluation"
"""Folder of a run with the bundle that was scored, trained only up to the first cutoff."""
_HERE = Path(__file__).parent
_REQUIREMENTS = (
    "mlflow",
    "torch",
    "numpy",
    "pandas",
    "pyarrow",
    "safetensors",
    "jaxtyping",
    "narwhals",
    "holidays",
    "exchange_calendars",
    "sqlalchemy",
)


def log_model(run: Run, bundle: Bundle, *, name: str = "model") -> str:
    """Log the model in a run and return its URI (`models:/m-...`)."""
    with tempfile.TemporaryDirectory() as folder, _no_warnings():
        options = _options(bundle, Path(folder))
        with run.writing(), mlflow.start_run(run_id=run.id):
            info = mlflow.pyfunc.log_model(name=name, **options)
    return str(info.model_uri)


def save_model(bundle: Bundle, path: Path) -> None:
    """Write the model to a folder that `mlflow models serve -m` and `load_model` accept."""
    with tempfile.TemporaryDirectory() as folder, _no_warnings():
        mlflow.pyfunc.save_model(path=str(path), **_options(bundle, Path(folder)))


def load_model(uri: str, tracking: Tracking | None = None) -> Bundle:
    """
    Load the bundle of a saved, logged or registered model without running the model's code.

    Args:
        uri: A folder, or `models:/NAME@ALIAS`, `models:/NAME/VERSION`, `runs:/ID/PATH`.
        tracking: The store in which the URI is looked up; not needed for a folder.

    Raises:
        BundleError: The model has no bundle, or a damaged one.
        UnknownModel: The store has no such model.
    """
    if tracking is not None:
        with tempfile.TemporaryDirectory() as copy:
            return _load(tracking.download(uri, Path(copy)), uri)
    return _load(Path(uri), uri)


def _load(folder: Path, uri: str) -> Bundle:
    for candidate in (folder, folder / BUNDLE, folder / "artifacts" / BUNDLE):
        if (candidate / JSON_NAME).is_file():
            try:
                return load_bundle(candidate)
            except BundleError as error:
                error.where = uri
                raise
    if folder.is_dir() and not any(folder.iterdir()):
        raise BundleError("the files of this model are gone: its folder is empty", where=uri)
    raise BundleError(
        "this model was not made by Statecast: it holds no bundle",
        where=uri,
        help="give a model that `statecast train` logged",
    )


def _options(bundle: Bundle, folder: Path) -> dict[str, Any]:
    """Write the files that MLflow copies to `folder` and return the arguments for MLflow."""
    save_bundle(bundle, folder / BUNDLE)
    without_caches = shutil.ignore_patterns("__pycache__", "*.pyc")
    shutil.copytree(Path(forecast.__path__[0]), folder / "forecast", ignore=without_caches)
    return {
        "python_model": str(_HERE / "pyfunc.py"),
        "artifacts": {BUNDLE: str(folder / BUNDLE)},
        "code_paths": [str(folder / "forecast")],
        "signature": signature(bundle),
        "pip_requirements": [f"{name}=={_version(name)}" for name in _REQUIREMENTS],
        "metadata": {"statecast": {"digest": bundle.digest, "version": _version("statecast")}},
    }


def signature(bundle: Bundle) -> Any:
    """Return the model signature: the long history with its covariates, and `h` and `level`."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema

    data = bundle.config.data
    stamp = "long" if bundle.calendar.is_integer else "datetime"
    keys = [ColSpec("string", "unique_id"), ColSpec(stamp, "ds")]
    numbers = [ColSpec("double", name) for name in (*data.past_only, *data.known_future)]
    static = [
        ColSpec("string" if column.categories else "double", column.name)
        for column in bundle.spec.static.columns
    ]
    inputs = Schema([*keys, ColSpec("double", "y"), *numbers, *static])
    outputs = Schema([*keys, ColSpec("double", "statecast")])
    h = ParamSpec("h", "long", 0)
    level = ParamSpec("level", "double", [80.0, 95.0], shape=(-1,))
    return ModelSignature(inputs, outputs, ParamSchema([h, level]))


def _version(name: str) -> str:
    """Return the installed version without a local part such as `+cpu`, which no index has."""
    try:
        return importlib.metadata.version(name).partition("+")[0]
    except importlib.metadata.PackageNotFoundError:
        return "0"


def _no_warnings() -> warnings.catch_warnings:
    return warnings.catch_warnings(action="ignore")

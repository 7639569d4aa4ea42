"""Load the model that a command names: a folder, an alias, a version, or the champion."""

from dataclasses import replace
from pathlib import Path

from forecast.bundle import JSON_NAME, Bundle, load_bundle
from forecast.config import DataConfig
from forecast.errors import UnknownModel
from pipelines.cli.project import ResolvedProject

CHAMPION = "champion"
_TABLE_SETTINGS = {
    "id_col",
    "id_from",
    "only_series",
    "time_col",
    "time_format",
    "target_col",
    "fill",
    "freq",
}
"""Data settings that describe a table, and so may differ from those of the training data."""


def load_chosen_bundle(settings: ResolvedProject, model: str | None) -> tuple[Bundle, str]:
    """
    Load a bundle and return it with a description.

    Args:
        settings: Settings of the command, which name the registry and the default model.
        model: Folder of a bundle, alias, version number, `NAME@ALIAS`, `NAME/VERSION` or a
            `models:/` URI of one of these; None means the champion.

    Raises:
        UnknownModel: There is no such model.
    """
    if model is not None and (Path(model) / JSON_NAME).is_file():
        bundle = load_bundle(Path(model))
        return bundle, f"{model} ({bundle.digest[:12]})"
    if model is not None and (Path(model).is_dir() or model.startswith((".", "/"))):
        load_bundle(Path(model))  # raises, with what is missing from the folder
    name, which = parse_model_name(model or CHAMPION, settings.project.name)
    if not settings.has_tracking_store():
        raise UnknownModel(
            f"no model {name!r}: nothing has been registered here yet",
            where=settings.tracking_uri.removeprefix("sqlite:///"),
            help="train one with statecast train DATA, or name the folder of a bundle with --model",
        )
    from pipelines.tracking import flavor
    from pipelines.tracking.store import Tracking

    tracking = Tracking(settings.tracking_uri, settings.data_dir / "artifacts")
    version = tracking.version(name, which)
    bundle = flavor.load_model(f"models:/{name}/{version.version}", tracking)
    return bundle, f"{name} v{version.version} ({bundle.digest[:12]})"


def parse_model_name(text: str, default_name: str) -> tuple[str, str]:
    """
    Split a reference to a model into its name and its version or alias.

    >>> parse_model_name("champion", "sales"), parse_model_name("models:/wine@previous", "sales")
    (('sales', 'champion'), ('wine', 'previous'))
    """
    text = text.removeprefix("models:/")
    for separator in ("@", "/"):
        name, matched, which = text.partition(separator)
        if matched:
            return name, which
    return default_name, text


def make_data_config(settings: ResolvedProject, bundle: Bundle) -> DataConfig:
    """
    Return the data settings of a model, adapted to the table that a command reads.

    Covariates and their roles are those of the model. Names of columns, `freq` and `fill` come from
    the settings of the command if they are set there.
    """
    keys = {key for key in _TABLE_SETTINGS if f"data.{key}" in settings.origin}
    values = {key: getattr(settings.config.data, key) for key in keys}
    return replace(bundle.config.data, **values)

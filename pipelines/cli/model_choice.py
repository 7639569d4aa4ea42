"""Which model a command means: a folder, an alias, a version, or the champion."""

from dataclasses import replace
from pathlib import Path

from forecast.bundle import JSON_NAME, Bundle, load_bundle
from forecast.config import DataConfig
from forecast.errors import UnknownModel
from pipelines.cli.project import ResolvedProject

CHAMPION = "champion"


def choose_bundle(found: ResolvedProject, model: str | None) -> tuple[Bundle, str]:
    """
    Load a bundle and say which one it is.

    Args:
        found: Settings: registry and name of the model.
        model: Folder of a bundle, alias, version number, `NAME@ALIAS`, `NAME/VERSION` or a
            `models:/` URI of these; None is the champion.

    Raises:
        UnknownModel: It is not there.
    """
    if model is not None and (Path(model) / JSON_NAME).is_file():
        bundle = load_bundle(Path(model))
        return bundle, f"{model} ({bundle.digest[:12]})"
    if model is not None and (Path(model).is_dir() or model.startswith((".", "/"))):
        load_bundle(Path(model))
    name, which = split_name(model or CHAMPION, found.project.name)
    database = found.tracking_uri.removeprefix("sqlite:///")
    if found.tracking_uri.startswith("sqlite:///") and not Path(database).exists():
        raise UnknownModel(
            f"no model {name!r} yet: there is no registry here",
            where=database,
            help="statecast train DATA makes one; or give the folder of a bundle with --model",
        )
    from pipelines.tracking import flavor
    from pipelines.tracking.store import Tracking

    tracking = Tracking(found.tracking_uri, found.data_dir / "artifacts")
    version = tracking.version(name, which)
    bundle = flavor.load_model(f"models:/{name}/{version.version}", tracking)
    return bundle, f"{name} v{version.version} ({bundle.digest[:12]})"


def split_name(text: str, name: str) -> tuple[str, str]:
    """
    Model and version or alias of what was written.

    >>> split_name("champion", "sales"), split_name("models:/wine@previous", "sales")
    (('sales', 'champion'), ('wine', 'previous'))
    """
    text = text.removeprefix("models:/")
    for mark in ("@", "/"):
        before, found, after = text.partition(mark)
        if found:
            return before, after
    return name, text


def data_settings(found: ResolvedProject, bundle: Bundle) -> DataConfig:
    """The columns and roles that the model learned, under the names that the settings give."""
    given = {key.removeprefix("data.") for key in found.origin if key.startswith("data.")} & {
        "id_col",
        "id_from",
        "only_series",
        "time_col",
        "time_format",
        "target_col",
        "fill",
        "freq",
    }
    asked = {key: getattr(found.config.data, key) for key in given}
    return replace(bundle.config.data, **asked)

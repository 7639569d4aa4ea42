"""
Start the service and work on its log from the command line.

This is the only module here that imports `service`: pipelines and the service do not depend on each
other.
"""

import contextlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from forecast.bundle import Bundle
from forecast.config import DataConfig
from forecast.errors import ConfigError, nearest
from pipelines.cli.project import ResolvedProject
from pipelines.errors import NotInstalled, UsageError

try:
    from pydantic import ValidationError

    from service import log_admin, server
    from service.ingest.importer import import_history
    from service.serving import local_copy
    from service.settings import Settings
except ImportError as error:
    raise NotInstalled(
        f"the server is not installed: {error}", help="pip install 'statecast[server]'"
    ) from error
__all__ = [
    "Settings",
    "build_log_settings",
    "build_server_settings",
    "choose_free_port",
    "import_into_log",
    "list_base_urls",
    "load_served_bundle",
    "log_admin",
    "run_server",
]


def build_server_settings(settings: ResolvedProject, **options: Any) -> Settings:
    """
    Return the settings of the server: options, then the environment, then those of the project.

    Args:
        settings: Settings of the command.
        options: Server settings given on the command line; None means that one was not given.

    Raises:
        ConfigError: A value is not valid.
    """
    values: dict[str, Any] = {key: value for key, value in options.items() if value is not None}
    values["data_dir"] = settings.data_dir
    values.setdefault("tracking_uri", settings.tracking_uri)
    if not os.environ.get("STATECAST_MODELS"):
        values |= _take_project_defaults(settings, values)
    try:
        return Settings(**values)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in e['loc'])}: {e['msg']}"
            for e in error.errors(include_url=False, include_input=False)
        )
        raise ConfigError(f"invalid server settings: {problems}") from None


def _take_project_defaults(settings: ResolvedProject, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the model and the data of the project, unless others are named."""
    values: dict[str, Any] = {}
    if "model" not in options and "STATECAST_MODEL" not in os.environ:
        values["model"] = f"models:/{settings.project.name}@champion"
    source = settings.project.source
    if source and "STATECAST_SEED_DATA" not in os.environ and Path(source).is_file():
        values["seed_data"] = Path(source)
    return values


def build_log_settings(settings: ResolvedProject, name: str | None) -> Settings:
    """
    Return the server settings of the model whose log a command works on.

    Args:
        settings: Settings of the command.
        name: Name of a model in `STATECAST_MODELS`; None if a single model is served.

    Raises:
        UsageError: `name` is not in `STATECAST_MODELS`, or is missing although that names models.
        ConfigError: A value is not valid.
    """
    server_settings = build_server_settings(settings)
    names = list(server_settings.models)
    if name is None and not names:
        return server_settings
    if not names:
        raise UsageError(
            f"no log is named {name!r}: STATECAST_MODELS names no models",
            help="leave out --name: there is only one log",
        )
    if name not in names:
        suggestion = nearest(name or "", names) or names[0]
        problem = "no model was named" if name is None else f"no model is named {name!r}"
        raise UsageError(
            f"{problem}: there is one log per model, and the models are {', '.join(names)}",
            help=f"use --name {suggestion}",
        )
    return server_settings.each()[name]


def load_served_bundle(server_settings: Settings) -> Bundle | None:
    """Return the model a server of this data folder last served; None if it never started."""
    copy = local_copy.read(server_settings)
    return None if copy is None else copy.bundle


def list_base_urls(server_settings: Settings, url: str) -> list[str]:
    """Return the URLs in front of `/v1/...`: one per named model, or that of the server."""
    return [f"{url}/models/{name}" for name in server_settings.models] or [url]


def choose_free_port(server_settings: Settings) -> Settings:
    """Return the settings with a port that is free now: the given one or one of the next."""
    with contextlib.closing(server.bind(server_settings)) as listener:
        return server_settings.model_copy(update={"port": listener.getsockname()[1]})


def run_server(server_settings: Settings, on_ready: Callable[[str], None]) -> None:
    """Serve until interrupted; call `on_ready` with the base URL once requests are answered."""
    server.run(server_settings, on_ready=on_ready)


def import_into_log(
    server_settings: Settings, table: str, data: DataConfig, *, query: str | None = None
) -> dict[str, int]:
    """Write a table to the observation log, which no server may have open; return the counts."""
    return import_history(server_settings.log_url, table, data, query=query)

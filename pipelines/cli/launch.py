"""
The service, started from the command line: the only importer of `service` here.

Pipelines and service know nothing of each other; the command line starts both.
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

    from service import log_admin as offline
    from service import server
    from service.ingest.importer import import_history
    from service.serving import local_copy as copies
    from service.settings import Settings
except ImportError as error:
    raise NotInstalled(
        f"the server is not installed: {error}", help="pip install 'statecast[server]'"
    ) from error
__all__ = [
    "Settings",
    "base_urls",
    "in_service",
    "log_of",
    "offline",
    "read_into_log",
    "run",
    "settings_of",
    "with_free_port",
]


def settings_of(found: ResolvedProject, **options: Any) -> Settings:
    """
    The server's settings: options, then the environment, then the project's.

    Raises:
        ConfigError: A value does not fit.
    """
    given: dict[str, Any] = {key: value for key, value in options.items() if value is not None}
    given["data_dir"] = found.data_dir
    given.setdefault("tracking_uri", found.tracking_uri)
    if not os.environ.get("STATECAST_MODELS"):
        given |= _of_project(found, given)
    try:
        return Settings(**given)
    except ValidationError as error:
        told = "; ".join(
            f"{'.'.join(str(part) for part in e['loc'])}: {e['msg']}"
            for e in error.errors(include_url=False, include_input=False)
        )
        raise ConfigError(f"the server's settings do not fit: {told}") from None


def _of_project(found: ResolvedProject, given: Mapping[str, Any]) -> dict[str, Any]:
    """The project's model and its data, where nothing else is said."""
    ours: dict[str, Any] = {}
    if "model" not in given and "STATECAST_MODEL" not in os.environ:
        ours["model"] = f"models:/{found.project.name}@champion"
    source = found.project.source
    if source and "STATECAST_SEED_DATA" not in os.environ and Path(source).is_file():
        ours["seed_data"] = Path(source)
    return ours


def log_of(found: ResolvedProject, name: str | None) -> Settings:
    """
    The settings of the one model on whose log a command works.

    Args:
        found: Settings of the project.
        name: Of a model in `STATECAST_MODELS`; None where one model is served.

    Raises:
        UsageError: There are several and none of them is named, or there is only one.
        ConfigError: A value does not fit.
    """
    settings = settings_of(found)
    names = list(settings.models)
    if name is None and not names:
        return settings
    if not names:
        raise UsageError(
            f"no log has the name {name!r}: STATECAST_MODELS names no models",
            help="leave --name out: one model is served, and there is one log",
        )
    if name not in names:
        near = nearest(name or "", names) or names[0]
        told = "no model named" if name is None else f"no model {name!r}"
        raise UsageError(
            f"{told}: each has a log of its own, here are {', '.join(names)}",
            help=f"say --name {near}",
        )
    return settings.each()[name]


def in_service(settings: Settings) -> Bundle | None:
    """The model that a server of this data folder begins with; None before its first start."""
    kept = copies.read(settings)
    return None if kept is None else kept.bundle


def base_urls(settings: Settings, url: str) -> list[str]:
    """What comes before `/v1/...`: of the server at `url`, or of each of its models."""
    return [f"{url}/models/{name}" for name in settings.models] or [url]


def with_free_port(settings: Settings) -> Settings:
    """The same with a port that is free now: the wanted one, or one of the next."""
    probe = server.bind(settings)
    with contextlib.closing(probe):
        return settings.model_copy(update={"port": probe.getsockname()[1]})


def run(settings: Settings, on_ready: Callable[[str], None]) -> None:
    """Serve until interrupted; `on_ready` is told the base URL."""
    server.run(settings, on_ready=on_ready)


def read_into_log(
    settings: Settings, table: str, data: DataConfig, *, query: str | None = None
) -> dict[str, int]:
    """Read a table into the observation log while no server has it open."""
    return import_history(settings.log_url, table, data, query=query)

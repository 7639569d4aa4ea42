"""
Settings of a command, collected from the command line, the environment and `statecast.toml`.

From highest to lowest priority: an option of the command, the file of `--config`, `STATECAST_*`
variables, `statecast.toml` in this folder or the nearest one above, the default. Relative paths in
a file are relative to that file.

    STATECAST_DATA_DIR, STATECAST_NAME, STATECAST_SOURCE, ...       [project]
    STATECAST_DATA__FREQ, STATECAST_MODEL__CELL, STATECAST_TRAIN__SEED, ...   the other tables
"""

import dataclasses
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forecast.config import Config, DataConfig, ModelConfig, TrainConfig
from forecast.errors import ConfigError, UnknownSetting, nearest
from pipelines.errors import UsageError

FILE = "statecast.toml"
PREFIX = "STATECAST_"
TABLES: dict[str, type] = {"data": DataConfig, "model": ModelConfig, "train": TrainConfig}
_NUMBERS = ("windows", "step_size", "min_gain")


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """The `[project]` table: locations, names and the rules of the backtest."""

    source: str | None = None
    """File or SQLAlchemy URL of the series."""
    query: str | None = None
    """SQL query that returns the series if the source is a database."""
    name: str = "statecast"
    """Name of the registered model."""
    data_dir: str = "data"
    """Folder of models, databases and checkpoints."""
    tracking_uri: str | None = None
    """URI of the MLflow store; None means `<data_dir>/mlflow.db`."""
    server: str = "http://127.0.0.1:8000"
    """Base URL of the server."""
    windows: int = 2
    """Number of backtest cutoffs."""
    step_size: int | None = None
    """Steps between two cutoffs; None means the horizon."""
    min_gain: float = 0.0
    """Relative gain over the champion required for a promotion: 0.02 is 2 %."""


@dataclass(frozen=True, slots=True)
class ResolvedProject:
    """Effective settings of a command, and the origin of each."""

    project: Project
    config: Config
    file: Path | None
    """Settings file in use, if any."""
    origin: dict[str, str]
    """Origin of each setting by its dotted key: "option", "environment" or the path of a file."""

    @property
    def data_dir(self) -> Path:
        """Folder of models, databases and checkpoints."""
        return Path(self.project.data_dir)

    @property
    def tracking_uri(self) -> str:
        """URI of the MLflow store, with the default filled in."""
        if self.project.tracking_uri:
            return self.project.tracking_uri
        return f"sqlite:///{(self.data_dir / 'mlflow.db').resolve()}"

    def has_tracking_store(self) -> bool:
        """Return False if the MLflow store is an SQLite file that does not exist yet."""
        database = self.tracking_uri.removeprefix("sqlite:///")
        return database == self.tracking_uri or Path(database).exists()


def resolve_project(
    config: Path | None,
    options: Mapping[str, Any] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    start: Path | None = None,
) -> ResolvedProject:
    """
    Collect the settings of a command from all sources.

    Args:
        config: The file given with `--config`, if any.
        options: Values from the command line by dotted key, such as `train.seed`. None means that
            the option was not given.
        environ: Environment variables; by default those of this process.
        start: Folder in which the search for `statecast.toml` starts; by default this folder.

    Raises:
        UsageError: The file given with `--config` does not exist.
        ConfigError: A file cannot be read, or a value is not valid.
        UnknownSetting: A key is not the name of a setting.
    """
    environ = os.environ if environ is None else environ
    values: dict[str, dict[str, Any]] = {"project": {}, **{name: {} for name in TABLES}}
    origin: dict[str, str] = {}

    def apply(tables: Mapping[str, Mapping[str, Any]], source: str) -> None:
        for table, entries in tables.items():
            for key, value in entries.items():
                values[table][key] = value
                origin[f"{table}.{key}"] = source

    if config is None and environ.get(f"{PREFIX}CONFIG"):
        config = Path(environ[f"{PREFIX}CONFIG"])
    if config is not None and not config.is_file():
        raise UsageError(
            "no such settings file", where=str(config), help="create one with statecast init"
        )
    file = config or find_settings_file(start or Path.cwd())
    if file is not None and config is None:
        apply(_read_file(file), str(file))
    apply(_read_environment(environ), "environment")
    if config is not None:
        apply(_read_file(config), str(config))
    apply(_group_by_table(options or {}), "option")
    try:
        _check_project_values(values["project"])
        project = Project(**values["project"])
        resolved_config = Config.from_dict({name: values[name] for name in TABLES})
    except ConfigError as error:
        error.where = ", ".join(sorted(set(origin.values())))
        raise
    return ResolvedProject(project, resolved_config, file, origin)


def require_source(settings: ResolvedProject) -> str:
    """
    Return the file or database of the series.

    Raises:
        UsageError: The settings do not name any.
    """
    if settings.project.source:
        return settings.project.source
    raise UsageError(
        "no data: name a file or a database",
        where=str(settings.file) if settings.file else "no statecast.toml here or above",
        help="statecast train sales.csv\nor: statecast init --from sales.csv, then statecast train",
    )


def find_settings_file(start: Path) -> Path | None:
    """Return the nearest `statecast.toml`, in the folder `start` or above it."""
    for folder in (start.resolve(), *start.resolve().parents):
        if (folder / FILE).is_file():
            return folder / FILE
    return None


def _read_file(path: Path) -> dict[str, dict[str, Any]]:
    """Return the tables of a settings file, with paths resolved against its folder."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"cannot read the settings: {error}", where=str(path)) from error
    known = ("project", *TABLES)
    for name, table in tables.items():
        if name not in known or not isinstance(table, dict):
            suggestion = nearest(name, known)
            raise UnknownSetting(
                f"unknown table or key {name!r}",
                where=str(path),
                help=f"did you mean [{suggestion}]?"
                if suggestion
                else f"tables: {', '.join(known)}",
            )
    project = dict(tables.get("project", {}))
    for key in ("data_dir", "source"):
        value = project.get(key)
        if isinstance(value, str) and "://" not in value:
            project[key] = str(_shorten_path(path.parent / value))
    for key in ("source", "tracking_uri"):
        value = project.get(key)
        if isinstance(value, str) and (url := re.fullmatch(r"(sqlite[^:]*:///)([^/:].*)", value)):
            project[key] = f"{url[1]}{path.parent.resolve() / url[2]}"
    return {**tables, "project": project}


def _shorten_path(path: Path) -> Path:
    """Return a path relative to this folder if it lies inside it."""
    try:
        return path.resolve().relative_to(Path.cwd())
    except ValueError:
        return path


def _read_environment(environ: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Return the settings of `STATECAST_*` variables; ignore those meant for the server alone."""
    tables: dict[str, dict[str, Any]] = {"project": {}, **{name: {} for name in TABLES}}
    project_keys = {field.name for field in dataclasses.fields(Project)}
    for name, text in environ.items():
        if not name.startswith(PREFIX) or not text:
            continue
        table, separator, key = name.removeprefix(PREFIX).lower().partition("__")
        if separator and table in TABLES:
            tables[table][key] = _parse_value(text)
        elif not separator and table in project_keys:
            tables["project"][table] = _parse_value(text) if table in _NUMBERS else text
    return tables


def _parse_value(text: str) -> Any:
    """Parse a value as TOML; return text that is not valid TOML unchanged."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _group_by_table(options: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Turn dotted keys into tables, and leave out options that were not given."""
    tables: dict[str, dict[str, Any]] = {}
    for name, value in options.items():
        if value is not None:
            table, _, key = name.partition(".")
            tables.setdefault(table, {})[key] = value
    return tables


def _check_project_values(values: Mapping[str, Any]) -> None:
    """Check the keys and the types of the values of `[project]`."""
    known = [field.name for field in dataclasses.fields(Project)]
    for key, value in values.items():
        if key not in known:
            suggestion = nearest(key, known)
            hint = f"did you mean {suggestion!r}?" if suggestion else f"known: {', '.join(known)}"
            raise UnknownSetting(f"unknown setting {key!r} in [project]", help=hint)
        types = (int, float) if key == "min_gain" else (int,) if key in _NUMBERS else (str,)
        if not isinstance(value, types) or isinstance(value, bool):
            kind = "a number" if key in _NUMBERS else "text"
            raise ConfigError(f"{key}={value!r} is not {kind}")
    for key in ("windows", "step_size"):
        if values.get(key) is not None and values[key] < 1:
            raise ConfigError(f"{key}={values[key]} must be at least 1")

"""
Where a command finds its settings, and which source wins.

Highest first: an option of the command, the file given with `--config`, `STATECAST_*` variables,
`statecast.toml` in this folder or the nearest one above it, the default. Paths in a file are
relative to the file.

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """The `[project]` table: where things are. Data, network and training have their own."""

    source: str | None = None
    """File or SQLAlchemy URL of the series."""
    query: str | None = None
    """SQL that yields the series, when the source is a database."""
    name: str = "statecast"
    """Of the registered model."""
    data_dir: str = "data"
    """Folder of models, databases and checkpoints."""
    tracking_uri: str | None = None
    """MLflow's store; none is `<data_dir>/mlflow.db`."""
    server: str = "http://127.0.0.1:8000"
    """Where the service answers."""
    windows: int = 2
    """Cutoffs of the backtest."""
    step_size: int | None = None
    """Steps between two cutoffs; none is the horizon."""
    min_gain: float = 0.0
    """Relative gain in score over the champion that a promotion needs: 0.02 is 2 %."""


@dataclass(frozen=True, slots=True)
class ResolvedProject:
    """Effective settings, and where each came from."""

    project: Project
    config: Config
    file: Path | None
    origin: dict[str, str]
    """`train.seed` -> `--seed`, `STATECAST_TRAIN__SEED` or the file."""

    @property
    def data_dir(self) -> Path:
        """Folder of models, databases and checkpoints."""
        return Path(self.project.data_dir)

    @property
    def tracking_uri(self) -> str:
        """MLflow's store, always named."""
        if self.project.tracking_uri:
            return self.project.tracking_uri
        return f"sqlite:///{(self.data_dir / 'mlflow.db').resolve()}"


def find(
    config: Path | None,
    options: Mapping[str, Any] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    start: Path | None = None,
) -> ResolvedProject:
    """
    Collect the settings.

    Args:
        config: The file given with `--config`, if any.
        options: Given on the command line, `table.key` to value; None is not given.
        environ: Environment variables.
        start: Where to begin looking for `statecast.toml`.

    Raises:
        ConfigError: A file cannot be read, or a value does not fit.
        UnknownSetting: A key no setting has.
    """
    environ = os.environ if environ is None else environ
    values: dict[str, dict[str, Any]] = {"project": {}, **{name: {} for name in TABLES}}
    origin: dict[str, str] = {}

    def take(tables: Mapping[str, Mapping[str, Any]], source: str) -> None:
        for table, entries in tables.items():
            for key, value in entries.items():
                values[table][key] = value
                origin[f"{table}.{key}"] = source

    named = config or (Path(environ[f"{PREFIX}CONFIG"]) if environ.get(f"{PREFIX}CONFIG") else None)
    file = named or discover(start or Path.cwd())
    if named is not None and not named.is_file():
        raise UsageError(
            "no such settings file", where=str(named), help="statecast init writes one"
        )
    if file is not None and named is None:
        take(_read(file), str(file))
    take(_from_environment(environ), "environment")
    if named is not None:
        take(_read(named), str(named))
    take(_nest(options or {}), "option")
    try:
        project = Project(**_checked(values["project"]))
        settings = Config.from_dict({name: values[name] for name in TABLES})
    except ConfigError as error:
        error.where = ", ".join(sorted(set(origin.values())))
        raise
    return ResolvedProject(project, settings, file, origin)


def discover(start: Path) -> Path | None:
    """The nearest `statecast.toml`, in this folder or above."""
    for folder in (start.resolve(), *start.resolve().parents):
        if (folder / FILE).is_file():
            return folder / FILE
    return None


def _read(path: Path) -> dict[str, dict[str, Any]]:
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"cannot read the settings: {error}", where=str(path)) from error
    known = ("project", *TABLES)
    for name, table in tables.items():
        if name not in known or not isinstance(table, dict):
            near = nearest(name, known)
            raise UnknownSetting(
                f"unknown table or key {name!r}",
                where=str(path),
                help=f"did you mean [{near}]?" if near else f"tables: {', '.join(known)}",
            )
    project = dict(tables.get("project", {}))
    for key in ("data_dir", "source"):
        value = project.get(key)
        if isinstance(value, str) and "://" not in value:
            project[key] = str(_relative(path.parent / value))
    for key in ("source", "tracking_uri"):
        value = project.get(key)
        if isinstance(value, str) and (found := re.fullmatch(r"(sqlite[^:]*:///)([^/:].*)", value)):
            project[key] = f"{found[1]}{path.parent.resolve() / found[2]}"
    return {**tables, "project": project}


def _relative(path: Path) -> Path:
    """As short as it can be said from here."""
    try:
        return path.resolve().relative_to(Path.cwd())
    except ValueError:
        return path


def _from_environment(environ: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    tables: dict[str, dict[str, Any]] = {"project": {}, **{name: {} for name in TABLES}}
    for name, text in environ.items():
        if not name.startswith(PREFIX) or not text:
            continue
        table, nested, key = name.removeprefix(PREFIX).lower().partition("__")
        if nested and table in TABLES:
            tables[table][key] = _value(text)
        elif not nested and table in {f.name for f in dataclasses.fields(Project)}:
            tables["project"][table] = text if table not in _NUMBERS else _value(text)
    return tables


_NUMBERS = ("windows", "step_size", "min_gain")


def _value(text: str) -> Any:
    """As TOML would read it; a word that is no TOML stands for itself."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _nest(options: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    tables: dict[str, dict[str, Any]] = {}
    for name, value in options.items():
        if value is not None:
            table, _, key = name.partition(".")
            tables.setdefault(table, {})[key] = value
    return tables


def _checked(values: dict[str, Any]) -> dict[str, Any]:
    fields = {f.name: f.type for f in dataclasses.fields(Project)}
    for key, value in values.items():
        if key not in fields:
            near = nearest(key, list(fields))
            hint = f"did you mean {near!r}?" if near else f"known: {', '.join(fields)}"
            raise UnknownSetting(f"unknown setting {key!r} in [project]", help=hint)
        wanted = (int, float) if key == "min_gain" else (int,) if key in _NUMBERS else (str,)
        if not isinstance(value, wanted) or isinstance(value, bool):
            kind = "a number" if key in _NUMBERS else "text"
            raise ConfigError(f"{key}={value!r} is not {kind}")
    for key in ("windows", "step_size"):
        if values.get(key) is not None and values[key] < 1:
            raise ConfigError(f"{key}={values[key]} must be at least 1")
    return values

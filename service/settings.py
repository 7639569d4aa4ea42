"""Every setting of the server, read once from the environment: `STATECAST_PORT`, ..."""

import hashlib
import ipaddress
import json
import os
import re
from pathlib import Path
from typing import Annotated, Literal, Self

import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from forecast.errors import ConfigError
from service.errors import OpenBind

_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_MODEL_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_RESERVED = frozenset({"artifacts", "bundles", "checkpoints", "snapshots", "public"})
"""Names of folders in `data_dir`, and of the schema of an unnamed log; no model may have them."""


class Limits(BaseModel):
    """Limits on a single request and on all requests together."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_body_bytes: int = Field(16 * 2**20, ge=1)
    """Most bytes of a request body, counted while they arrive."""
    max_concurrency: int = Field(64, ge=1)
    """Most requests that run at once; others are answered 503 with Retry-After."""
    max_waiting: int = Field(1_000, ge=1)
    """Most requests that wait for the compute thread; others are answered 503 with Retry-After."""
    max_series: int = Field(10_000, ge=1)
    """Most series in a request."""
    max_rows: int = Field(100_000, ge=1)
    """Most observations, or rows of `futr`, in a request."""
    max_values: int = Field(5_000_000, ge=1)
    """Most numbers in an answer."""
    max_fill: int = Field(1_000, ge=0)
    """
    Most missing steps in a gap that is filled; a longer gap is refused whatever the fill policy.

    All gaps of a request together may have `max_rows` steps.
    """
    deadline: float = Field(30.0, gt=0)
    """Longest time that a request waits for its computation, in seconds."""
    retry_after: int = Field(1, ge=1)
    """Value of Retry-After, in seconds."""


class Settings(BaseSettings):
    """
    Settings of the server: address, models, log and keys.

    They are read from environment variables that begin with `STATECAST_`;
    `STATECAST_LIMITS__MAX_SERIES` sets `limits.max_series`. `check_bind` checks whether the address
    may be used without keys.

    Raises:
        pydantic.ValidationError: A value does not fit.
        ConfigError: Settings contradict each other.
    """

    model_config = SettingsConfigDict(
        env_prefix="STATECAST_", env_nested_delimiter="__", frozen=True, extra="forbid"
    )

    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65535)
    """Port to listen on; 0 takes any free port."""
    next_port: bool = False
    """Whether to take the next free port when `port` is busy."""
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = ()
    """Host names that are served; empty allows loopback names only, or all if keys are set."""
    data_dir: Path = Path("data")
    model: str = "models:/statecast@champion"
    """A registered model, or the directory of a bundle."""
    models: Annotated[dict[str, str], NoDecode] = Field({})
    """Several models instead of one, as JSON: a source such as `model` for each name."""
    tracking_uri: str | None = None
    """MLflow's store; None takes `MLFLOW_TRACKING_URI`, else `<data_dir>/mlflow.db`."""
    database_url: str | None = None
    """URL of the observation log; None is SQLite in `<data_dir>/observations.db`."""
    api_keys: Annotated[tuple[str, ...], NoDecode] = Field((), repr=False)
    """Keys, or `sha256:<hex>` of keys, separated by commas; only their digests are kept."""
    api_keys_file: Path | None = None
    """File with one key, or `sha256:<hex>` of one, per line."""
    unknown_series: Literal["refuse", "create"] = "refuse"
    """Whether an observation of an unknown series is refused or creates the series."""
    snapshot_seconds: float = Field(60.0, gt=0)
    """Seconds between two snapshots of changed states."""
    watch_seconds: float = Field(30.0, gt=0)
    """Seconds between two checks for a new model."""
    seed_data: Path | None = None
    """Table that is read into the log at the start if the log is empty."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    limits: Limits = Limits()

    @field_validator("api_keys", "allowed_hosts", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return (
            [part.strip() for part in value.split(",") if part.strip()]
            if isinstance(value, str)
            else value
        )

    @field_validator("api_keys")
    @classmethod
    def _hash(cls, keys: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(key_digest(key) for key in keys)

    @field_validator("models", mode="before")
    @classmethod
    def _parse(cls, value: object) -> object:
        try:
            return json.loads(value) if isinstance(value, str) else value
        except json.JSONDecodeError as error:
            example = '{"sales": "models:/sales@champion"}'
            raise ValueError(f"expected JSON such as {example}: {error}") from None

    @field_validator("models")
    @classmethod
    def _check_names(cls, models: dict[str, str]) -> dict[str, str]:
        for name in models:
            if not _MODEL_NAME.fullmatch(name) or name in _RESERVED or name.startswith("pg_"):
                raise ValueError(
                    f"{name[:80]!r} cannot name a model: expected at most 63 of a-z, 0-9, _ and -, "
                    f"first a letter or digit; not pg_..., nor {', '.join(sorted(_RESERVED))}"
                )
        return models

    @model_validator(mode="after")
    def _check_several(self) -> Self:
        if not self.models:
            return self
        if "model" in self.model_fields_set:
            raise ConfigError(
                "STATECAST_MODELS and STATECAST_MODEL are both set",
                help="name every model in STATECAST_MODELS, or serve the one of STATECAST_MODEL",
            )
        if self.seed_data is not None:
            raise ConfigError(
                "STATECAST_SEED_DATA is for one model, and STATECAST_MODELS names several",
                help="statecast observe FILE --server URL/models/NAME, once for each",
            )
        if self.database_url and sa.make_url(self.database_url).get_backend_name() == "sqlite":
            raise ConfigError(
                "STATECAST_DATABASE_URL names one file, and each of several models has its own log",
                help="leave it out: each log is DATA_DIR/NAME/observations.db; or name a "
                "PostgreSQL database: each log is a schema of it",
            )
        return self

    def each(self) -> dict[str, "Settings"]:
        """Return the settings of each model by name; a single model has the name `""`."""
        return {name: self._of(name) for name in self.models} or {"": self}

    def _of(self, name: str) -> "Settings":
        url = self.database_url
        if url is not None:
            url = sa.make_url(url).update_query_dict({"schema": name}).render_as_string(False)
        return self.model_copy(
            update={
                "models": {},
                "model": self.models[name],
                "data_dir": self.data_dir / name,
                "database_url": url,
                "tracking_uri": self.mlflow_uri,
            }
        )

    @property
    def key_digests(self) -> tuple[str, ...]:
        """Hex SHA-256 of each key that is accepted; empty if no key is required."""
        lines: list[str] = []
        if self.api_keys_file is not None:
            lines = self.api_keys_file.read_text(encoding="utf-8").split()
        return (*self.api_keys, *(key_digest(line) for line in lines))

    @property
    def log_url(self) -> str:
        """
        SQLAlchemy URL of the observation log.

        Raises:
            ConfigError: There are several models, each with a log of its own (see `each`).
        """
        if self.models:
            raise ConfigError(
                f"STATECAST_MODELS names {len(self.models)} models, each with a log of its own",
                help="ask a running server: --server URL/models/NAME; or leave STATECAST_MODELS "
                "out and name the log of one in STATECAST_DATABASE_URL",
            )
        return self.database_url or f"sqlite:///{self.data_dir / 'observations.db'}"

    @property
    def mlflow_uri(self) -> str:
        """URI of MLflow's store with the registry of models."""
        named = self.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
        return named or f"sqlite:///{self.data_dir / 'mlflow.db'}"

    def check_bind(self) -> None:
        """
        Check that only this machine can reach the server if no key is set.

        Raises:
            OpenBind: `host` is reachable from other machines and no key is set.
        """
        if not self.key_digests and not is_loopback(self.host):
            raise OpenBind(
                f"host={self.host!r} is reachable from other machines, and no API key is set",
                help="set STATECAST_API_KEYS, or listen on 127.0.0.1",
            )


def key_digest(key: str) -> str:
    """
    Return the hex SHA-256 of a key; `sha256:<hex>` already is one.

    >>> key_digest("sha256:" + "0" * 64) == "0" * 64
    True
    """
    known = _DIGEST.fullmatch(key)
    return known[1] if known else hashlib.sha256(key.encode()).hexdigest()


def is_loopback(host: str) -> bool:
    """
    Whether an address is reachable from this machine only.

    >>> is_loopback("127.0.0.1"), is_loopback("::1"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"

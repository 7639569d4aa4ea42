"""Configuration with all choices made; bundles store it and networks are built from it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from forecast.config import Config, DataConfig, ModelConfig, TrainConfig

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedDataConfig(DataConfig):
    """`DataConfig` whose frequency and seasons are known."""

    freq: str | int
    season_lengths: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedModelConfig(ModelConfig):
    """`ModelConfig` whose horizon and number of networks are known."""

    horizon: int
    members: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedTrainConfig(TrainConfig):
    """`TrainConfig` whose numbers of steps and sizes of batches are known."""

    max_steps: int
    batch_size: int
    chunk_length: int
    val_size: int
    check_every: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedConfig(Config):
    """
    `Config` in which no setting is None that training chooses from the data.

    `forecast.training.defaults.resolve` builds it. None remains where it has a meaning of its own,
    as in `model.window`. The JSON form is that of `Config`.
    """

    data: ResolvedDataConfig
    model: ResolvedModelConfig
    train: ResolvedTrainConfig

    @classmethod
    def from_dict(cls, tables: Mapping[str, Any], *, where: str = "") -> "ResolvedConfig":
        """
        Build from nested tables, as `to_dict` returns them.

        Raises:
            ConfigError: A setting is unknown or wrong.
            ValueError: A setting that training chooses is None.
        """
        config = Config.from_dict(tables, where=where)
        return cls(
            data=_narrow(ResolvedDataConfig, config.data),
            model=_narrow(ResolvedModelConfig, config.model),
            train=_narrow(ResolvedTrainConfig, config.train),
        )


def _narrow(cls: type[T], part: DataConfig | ModelConfig | TrainConfig) -> T:
    """Return `part` as the subclass `cls`, whose own fields may not be None."""
    for name in cls.__annotations__:
        if getattr(part, name) is None:
            raise ValueError(f"{name} is not set")
    return cls(**asdict(part))

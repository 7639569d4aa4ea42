"""What can be set, what it means, in which unit, and what each data kind sets by default."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from forecast.errors import (
    BackwardState,
    ConfigError,
    OverlappingState,
    ShuffledState,
    UnknownSetting,
    nearest,
)

T = TypeVar("T")
Kind = Literal["auto", "positive", "count", "real", "price", "volatility"]
Fill = Literal["refuse", "zero", "forward", "mask"]
Cell = Literal["lstm", "gru", "rnn_tanh", "rnn_relu"]
Shuffle = Literal["series", "none", "time"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DataConfig:
    """What the columns mean and how the series are spaced."""

    freq: str | int | None = None
    """pandas offset (`"MS"`, `"W-MON"`, `"h"`), step of integers, or an exchange (`"XNYS"`)."""
    kind: Kind = "auto"
    """
    What the values are; decides transform, loss and guards.

    `positive` is learned on the log scale; `count` has many zeros and is forecast by its mean;
    `real` may be negative; `price` is forecast as the random walk with learned intervals;
    `volatility` is a variance, scored by QLIKE. `auto` finds the first three.
    """
    id_col: str = "unique_id"
    id_from: tuple[str, ...] = ()
    """Columns that name a series together, where no `id_col` does: `("store", "item")`."""
    only_series: str | None = None
    """Name of the series, in tables that have no `id_col` since they hold one only."""
    time_col: str = "ds"
    time_format: str | None = None
    """How `time_col` is written where it is not ISO 8601: `"%d.%m.%Y"`, as `strftime` has it."""
    target_col: str = "y"
    static: tuple[str, ...] = ()
    """Columns that hold one value a series."""
    known_future: tuple[str, ...] = ()
    """Covariates known for the whole horizon when a forecast is made: price, promotion."""
    past_only: tuple[str, ...] = ()
    """Covariates known up to the cutoff only."""
    fill: Fill = "refuse"
    """What a missing step means: refuse it, 0, the last value, or not observed (masked)."""
    season_lengths: tuple[int, ...] | None = None
    """Steps in each season, shortest first; None takes those of the frequency."""
    calendar: bool = True
    """Whether calendar features of the target date enter the head (needs real time stamps)."""
    holidays: str | None = None
    """ISO country code whose public holidays are a known-future covariate, such as `"US"`."""

    def __post_init__(self) -> None:
        _check_choices(self)
        roles = (*self.static, *self.known_future, *self.past_only)
        if self.only_series == "":
            raise ConfigError("only_series is empty", help='give the series a name: "sales"')
        if self.only_series is not None and self.id_from:
            raise ConfigError(
                f"only_series={self.only_series!r} and id_from={list(self.id_from)} cannot both "
                "be: a table has one series, or columns that name several",
                help="leave one of them out",
            )
        if self.time_format is not None:
            _check_time_format(self.time_format)
        names = (self.id_col, self.time_col, self.target_col, *roles)
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ConfigError(
                f"column {twice[0]!r} has more than one role",
                help="give each column one of id_col, time_col, target_col, static, "
                "known_future, past_only",
            )
        for season in self.season_lengths or ():
            if season < 2:
                raise ConfigError(
                    f"season_lengths={self.season_lengths} holds {season}; a season has 2 steps "
                    "or more",
                    help="leave out seasons of 1, or set season_lengths = [] for none",
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """Shape of the network. Two runs with equal configs build equal modules."""

    cell: Cell = "lstm"
    hidden_size: int = 64
    num_layers: int = 1
    dropout: float = 0.0
    """Share of units dropped between layers; needs `num_layers > 1`."""
    window: int | None = None
    """Steps that a stateless model reads anew for every forecast; None carries the state."""
    bidirectional: bool = False
    """Needs a `window`: with carried state a backward layer would have to read the future."""
    horizon: int | None = None
    """Steps ahead that the head forecasts at once; None takes the usual one of the frequency."""
    members: int | None = None
    """Networks that learn from different seeds and forecast as one; None chooses by the panel."""
    static_dropout: float = 0.1
    """Share of chunks in which a series' static covariates are hidden, so that new ones work."""
    quantiles: tuple[float, ...] = (
        0.005, 0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.975, 0.995,
    )  # fmt: skip
    """Strictly increasing, inside (0, 1), symmetric about 0.5, which is the point forecast."""

    def __post_init__(self) -> None:
        _check_choices(self)
        _check_at_least(self, 1, "hidden_size", "num_layers", "horizon", "members", "window")
        for name in ("dropout", "static_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} must be at least 0 and below 1")
        if self.dropout > 0 and self.num_layers == 1:
            raise ConfigError(
                f"dropout={self.dropout} has no effect with num_layers=1: dropout sits between "
                "layers",
                help="set num_layers=2 or more, or dropout=0",
            )
        if self.bidirectional and self.hidden_size % 2:
            raise ConfigError(
                f"hidden_size={self.hidden_size} cannot be halved between two directions",
                help="give bidirectional layers an even hidden_size",
            )
        if self.bidirectional and self.window is None:
            raise BackwardState(
                "a bidirectional layer cannot carry its state: its backward half would have to "
                "start from the future",
                help="leave bidirectional = false, or read windows without state: window = 48",
            )
        q = self.quantiles
        rising = list(q) == sorted(set(q)) and len(q) > 0 and q[0] > 0 and q[-1] < 1
        mirrored = all(abs(a + b - 1) < 1e-9 for a, b in zip(q, reversed(q), strict=True))
        if not rising or not mirrored or 0.5 not in q or len(q) < 3:
            raise ConfigError(
                f"quantiles={q} must be strictly increasing, inside (0, 1), mirrored about 0.5, "
                "which is the point forecast, and hold it and one interval at least",
                help="for example quantiles = [0.05, 0.1, 0.5, 0.9, 0.95]",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """How long, in which batches and from which seed."""

    max_steps: int | None = None
    """Optimiser steps, over which the learning rate falls to 1 %; None takes 16 epochs' worth."""
    learning_rate: float = 3e-3
    weight_decay: float = 1e-2
    max_grad_norm: float = 1.0
    batch_size: int | None = None
    """Lanes that run side by side; None takes up to 256, fewer when series are few."""
    chunk_length: int | None = None
    """Steps between two gradient cuts; None takes 8 to 16, in step with the shortest season."""
    origins_share: float = 1 / 3
    """Share of a chunk's steps, drawn anew each time, from which the head forecasts and learns."""
    stateful: bool = True
    """
    False starts every chunk from the zero state and draws chunks at random: to compare with.

    The model then reads windows of one chunk; with `model.window` set, of that many steps.
    """
    shuffle: Shuffle = "series"
    """What may be drawn in random order; `"time"` needs `stateful=False`."""
    stride: int | None = None
    """Steps from one chunk's start to the next; None is `chunk_length`, as carried state needs."""
    val_size: int | None = None
    """
    Last steps of each series kept from learning, to validate, guard and calibrate on.

    None takes about a seventh, in whole horizons, one to four; of series shorter than three
    horizons a third, or nothing in a large panel. 0 guards and calibrates on what was learned from.
    """
    finish_share: float = 0.2
    """Share of the steps, at the end, that learn from the validation steps as well."""
    patience: int | None = None
    """Checks without a better validation loss before training stops; needs `val_size`."""
    check_every: int | None = None
    """Optimiser steps between two validations; None makes five of them."""
    checkpoint_every: int = 100
    """Optimiser steps between two checkpoints, when a directory for them is given."""
    seed: int = 0

    def __post_init__(self) -> None:
        _check_choices(self)
        _check_at_least(
            self,
            1,
            "max_steps",
            "batch_size",
            "chunk_length",
            "stride",
            "patience",
            "check_every",
            "checkpoint_every",
        )
        _check_at_least(self, 0, "val_size", "seed")
        if not 0 <= self.finish_share < 1:
            raise ConfigError(f"finish_share={self.finish_share} must be at least 0 and below 1")
        if not 0 < self.origins_share <= 1:
            raise ConfigError(f"origins_share={self.origins_share} must be above 0 and at most 1")
        if self.learning_rate <= 0 or self.max_grad_norm <= 0 or self.weight_decay < 0:
            raise ConfigError(
                "learning_rate and max_grad_norm must be above 0, weight_decay at least 0"
            )
        if self.patience is not None and self.val_size == 0:
            raise ConfigError(
                f"patience={self.patience} has nothing to watch with val_size=0",
                help="set val_size to one horizon or more, or leave patience out",
            )
        if self.stateful and self.shuffle == "time":
            raise ShuffledState(
                "time cannot be shuffled while state is carried from chunk to chunk",
                help='set shuffle = "series" (series order may be random), or stateful = false',
            )
        if self.stateful and self.stride not in (None, self.chunk_length):
            raise OverlappingState(
                f"stride={self.stride} differs from chunk_length={self.chunk_length}: a carried "
                "state would meet steps twice, or skip some",
                help="leave stride out, or set stateful = false",
            )


_LATER: dict[str, object] = {"id_from": (), "only_series": None, "time_format": None}
"""Settings of `[data]` that came after the first bundles, and what these were trained with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The three parts together: what a run needs to know beside its data."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    @classmethod
    def from_dict(cls, tables: Mapping[str, Any], *, where: str = "") -> "Config":
        """
        Build from nested tables, as TOML or JSON give them; an unknown key is refused.

        >>> Config.from_dict({"model": {"cell": "gru"}}).model.cell
        'gru'
        """
        _check_keys(tables, cls, where)
        return cls(
            data=_build(DataConfig, tables.get("data", {}), where or "data"),
            model=_build(ModelConfig, tables.get("model", {}), where or "model"),
            train=_build(TrainConfig, tables.get("train", {}), where or "train"),
        )

    def to_dict(self) -> dict[str, Any]:
        """
        Nested tables of plain values, for JSON: `from_dict` reads them back.

        Digests of models are taken of them: settings that models of an earlier release do not have
        are left out while they are what they were before they could be set.
        """
        tables = dataclasses.asdict(self)
        for name, before in _LATER.items():
            if tables["data"][name] == before:
                del tables["data"][name]
        return tables


def _build(cls: type[T], table: Mapping[str, Any], where: str) -> T:
    _check_keys(table, cls, where)
    hints = get_type_hints(cls)
    values = {}
    for key, value in table.items():
        if isinstance(value, list):
            value = tuple(value)
        if not _fits(value, hints[key]):
            raise ConfigError(f"{key}={value!r} is not a {_spell(hints[key])}", where=where)
        values[key] = value
    return cls(**values)


def _fits(value: object, hint: Any) -> bool:
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        return value in args
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(item, args[0]) for item in value)
    if args:
        return any(_fits(value, arg) for arg in args)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def _spell(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return "choice among " + ", ".join(repr(arg) for arg in get_args(hint))
    return str(getattr(hint, "__name__", hint)).replace("NoneType", "None")


def _check_keys(table: Mapping[str, Any], cls: type, where: str) -> None:
    known = [f.name for f in dataclasses.fields(cls)]
    for key in table:
        if key not in known:
            near = nearest(key, known)
            hint = f"did you mean {near!r}?" if near else f"known: {', '.join(known)}"
            raise UnknownSetting(f"unknown setting {key!r}", where=where, help=hint)


def _check_choices(config: object) -> None:
    for name, hint in get_type_hints(type(config)).items():
        if get_origin(hint) is Literal and getattr(config, name) not in get_args(hint):
            raise ConfigError(f"{name}={getattr(config, name)!r} is not a {_spell(hint)}")


def _check_time_format(how: str) -> None:
    """A day written so must come back in its year."""
    try:
        found = datetime.strptime(datetime(2024, 1, 31).strftime(how), how)
    except ValueError as error:
        raise ConfigError(
            f"time_format={how!r}: {error}", help='write it as strftime has it: "%d.%m.%Y"'
        ) from None
    if found.year != 2024:
        raise ConfigError(f"time_format={how!r} has no year", help='for example "%d.%m.%Y"')


def _check_at_least(config: object, least: int, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        if value is not None and value < least:
            raise ConfigError(f"{name}={value} must be at least {least}")

"""Settings of data, model and training, with their meaning, unit and default."""

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
    """Names and roles of the columns, and how the series are spaced."""

    freq: str | int | None = None
    """pandas offset (`"MS"`, `"W-MON"`), integer step or exchange (`"XNYS"`); None infers it."""
    kind: Kind = "auto"
    """
    What the values are; it decides the transform, the loss and the bounds of forecasts.

    `positive` is learned on the log scale; `count` has many zeros and is forecast by its mean;
    `real` may be negative; `price` is forecast as the random walk with learned intervals;
    `volatility` is a variance, scored by QLIKE. `auto` detects the first three.
    """
    id_col: str = "unique_id"
    id_from: tuple[str, ...] = ()
    """Columns that together name a series in tables without `id_col`: `("store", "item")`."""
    only_series: str | None = None
    """Name of the series in tables without `id_col` that hold a single series."""
    time_col: str = "ds"
    time_format: str | None = None
    """`strftime` format of `time_col` if it is not ISO 8601: `"%d.%m.%Y"`."""
    target_col: str = "y"
    static: tuple[str, ...] = ()
    """Columns with one value per series."""
    known_future: tuple[str, ...] = ()
    """Covariates known for the whole horizon when a forecast is made, such as promotions."""
    past_only: tuple[str, ...] = ()
    """Covariates known up to the cutoff only."""
    fill: Fill = "refuse"
    """What a missing step means: an error, 0, the last value, or not observed (`mask`)."""
    season_lengths: tuple[int, ...] | None = None
    """Steps in each season, shortest first; None takes those of the frequency."""
    calendar: bool = True
    """Whether the head sees calendar features of the target date; integer stamps have none."""
    holidays: str | None = None
    """ISO country code whose public holidays are a known-future covariate, such as `"US"`."""

    def __post_init__(self) -> None:
        _check_choices(self)
        roles = (*self.static, *self.known_future, *self.past_only)
        if self.only_series == "":
            raise ConfigError("only_series is empty", help='give the series a name: "sales"')
        if self.only_series is not None and self.id_from:
            raise ConfigError(
                f"only_series={self.only_series!r} and id_from={list(self.id_from)} cannot both be "
                "set: a table holds one series, or columns name several",
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
                    f"season_lengths={self.season_lengths} contains {season}: a season has 2 steps "
                    "or more",
                    help="leave out seasons of 1, or set season_lengths = [] for none",
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """Shape of the network. Equal configurations build equal modules."""

    cell: Cell = "lstm"
    hidden_size: int = 64
    num_layers: int = 1
    dropout: float = 0.0
    """Dropout probability between layers; needs `num_layers > 1`."""
    window: int | None = None
    """Steps that a stateless model reads anew for each forecast; None carries the state."""
    bidirectional: bool = False
    """Adds a backward layer; needs a `window`, since its state would come from the future."""
    horizon: int | None = None
    """Steps ahead that the head forecasts at once; None takes the usual one of the frequency."""
    members: int | None = None
    """Networks in the ensemble, each trained from its own seed; None chooses by the data."""
    static_dropout: float = 0.1
    """Share of chunks whose static covariates are hidden, so that the model handles new series."""
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
                f"quantiles={q} must be strictly increasing, inside (0, 1) and symmetric about "
                "0.5, which is the point forecast, and contain 0.5 and at least one interval",
                help="for example quantiles = [0.05, 0.1, 0.5, 0.9, 0.95]",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """Length of training, batches, validation and seed."""

    max_steps: int | None = None
    """Optimiser steps, over which the learning rate falls to 1 %; None takes about 16 epochs."""
    learning_rate: float = 3e-3
    weight_decay: float = 1e-2
    max_grad_norm: float = 1.0
    batch_size: int | None = None
    """Lanes of a batch; None takes up to 256, fewer for few series."""
    chunk_length: int | None = None
    """Steps of truncated backpropagation; None takes 8 to 16, to suit the shortest season."""
    origins_share: float = 1 / 3
    """Share of the steps of a chunk, drawn at random, that serve as forecast origins."""
    stateful: bool = True
    """
    False starts every chunk from the zero state and draws chunks at random, for comparison.

    The model then reads windows of one chunk, or of `model.window` steps if that is set.
    """
    shuffle: Shuffle = "series"
    """What is drawn in random order; `"time"` needs `stateful=False`."""
    stride: int | None = None
    """Steps between the starts of two chunks; None takes `chunk_length`."""
    val_size: int | None = None
    """
    Last steps of each series held out to validate, to shrink and to calibrate forecasts.

    None takes about a seventh of a series, as one to four whole horizons; if series are shorter
    than three horizons a third, or nothing in a large panel. With 0, shrinkage and calibration use
    the training steps.
    """
    finish_share: float = 0.2
    """Share of the optimiser steps, at the end, that learn from the validation steps as well."""
    patience: int | None = None
    """Validations without a better loss after which training stops; needs `val_size`."""
    check_every: int | None = None
    """Optimiser steps between two validations; None makes five validations."""
    checkpoint_every: int = 100
    """Optimiser steps between two checkpoints, if a directory for them is given."""
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
                f"patience={self.patience} has no validation loss to watch with val_size=0",
                help="set val_size to one horizon or more, or leave patience out",
            )
        if self.stateful and self.shuffle == "time":
            raise ShuffledState(
                "time cannot be shuffled while state is carried from chunk to chunk",
                help='set shuffle = "series", which draws the order of series, or stateful = false',
            )
        if self.stateful and self.stride not in (None, self.chunk_length):
            raise OverlappingState(
                f"stride={self.stride} differs from chunk_length={self.chunk_length}: a carried "
                "state would see steps twice, or skip some",
                help="leave stride out, or set stateful = false",
            )


_ADDED_SETTINGS: dict[str, object] = {"id_from": (), "only_series": None, "time_format": None}
"""Settings of `[data]` that the first bundles lack, with the values they were trained with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """All settings of a training run."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    @classmethod
    def from_dict(cls, tables: Mapping[str, Any], *, where: str = "") -> "Config":
        """
        Build from nested tables, as read from TOML or JSON.

        Args:
            tables: Settings by part: `data`, `model` and `train`.
            where: Name of the file, for messages.

        Raises:
            ConfigError: A key is unknown, or a value is wrong.

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
        Return nested tables of plain values, which `from_dict` reads.

        The digest of a model covers them. A setting that earlier releases lack is left out while it
        has the value that they assumed, so that the digests of their models stay valid.
        """
        tables = dataclasses.asdict(self)
        for name, assumed in _ADDED_SETTINGS.items():
            if tables["data"][name] == assumed:
                del tables["data"][name]
        return tables


def _build(cls: type[T], table: Mapping[str, Any], where: str) -> T:
    """Build one part from its table, checking keys and types; lists become tuples."""
    _check_keys(table, cls, where)
    hints = get_type_hints(cls)
    values = {}
    for key, value in table.items():
        if isinstance(value, list):
            value = tuple(value)
        if not _fits(value, hints[key]):
            raise ConfigError(f"{key}={value!r} must be {_describe(hints[key])}", where=where)
        values[key] = value
    return cls(**values)


def _fits(value: object, hint: Any) -> bool:
    """Return True if the value has the annotated type; an int may stand for a float."""
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


def _describe(hint: Any) -> str:
    """Say which values an annotation allows."""
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(repr(arg) for arg in get_args(hint))
    return "of type " + str(getattr(hint, "__name__", hint)).replace("NoneType", "None")


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
            raise ConfigError(f"{name}={getattr(config, name)!r} must be {_describe(hint)}")


def _check_time_format(time_format: str) -> None:
    """Refuse a format that cannot be parsed or that loses the year of a date."""
    try:
        text = datetime(2024, 1, 31).strftime(time_format)
        parsed = datetime.strptime(text, time_format)
    except ValueError as error:
        raise ConfigError(
            f"time_format={time_format!r}: {error}",
            help='write it in the codes of strftime, such as "%d.%m.%Y"',
        ) from None
    if parsed.year != 2024:
        raise ConfigError(f"time_format={time_format!r} has no year", help='for example "%d.%m.%Y"')


def _check_at_least(config: object, least: int, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        if value is not None and value < least:
            raise ConfigError(f"{name}={value} must be at least {least}")

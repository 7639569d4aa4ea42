"""Bodies of requests and answers. Unknown fields are refused; sizes and numbers are bounded."""

from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from forecast.data.checks import LARGEST

UniqueId = Annotated[
    str,
    StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$"),
    Field(description="Name of the series; slashes and any script are fine."),
]
Stamp = Annotated[
    int | Annotated[str, StringConstraints(min_length=1, max_length=40)],
    Field(union_mode="smart", description="ISO 8601 (UTC without offset), or an integer."),
]
Number = Annotated[float, Field(ge=-LARGEST, le=LARGEST, allow_inf_nan=False)]
Value = Annotated[
    Number | None, Field(description="null: not observed (only where the model's policy is mask).")
]
Level = Annotated[
    float, Field(ge=1, lt=100, allow_inf_nan=False, description="Percent, such as 80.")
]
Quantile = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]
StaticValue = Number | Annotated[str, StringConstraints(max_length=200)]


class Body(BaseModel):
    """What a client sends: nothing unknown."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Answer(BaseModel):
    """What a client gets."""

    model_config = ConfigDict(frozen=True)


class FutureRow(BaseModel):
    """Known-future covariates of one series at one coming stamp, as further fields."""

    model_config = ConfigDict(extra="allow", frozen=True)
    __pydantic_extra__: dict[str, Number] = Field(init=False)

    unique_id: UniqueId
    ds: Stamp


class ObservationRow(FutureRow):
    """What happened at one stamp of one series; the model's covariates as further fields."""

    y: Value


class InlineSeries(BaseModel):
    """A series with its whole history; the model's covariates as further arrays."""

    model_config = ConfigDict(extra="allow", frozen=True)
    __pydantic_extra__: dict[str, list[Number]] = Field(init=False)

    unique_id: UniqueId
    ds: Annotated[list[Stamp], Field(min_length=1)]
    y: Annotated[list[Value], Field(min_length=1)]
    static: dict[str, StaticValue] = {}


class ForecastRequest(Body):
    """
    Forecast series from their live states, or from histories sent along.

    Exactly one of `unique_ids` and `series` is given.
    """

    unique_ids: Annotated[list[UniqueId], Field(min_length=1)] | None = None
    series: Annotated[list[InlineSeries], Field(min_length=1)] | None = None
    h: Annotated[int, Field(ge=1, le=10_000)] | None = Field(
        None,
        description="Steps ahead; by default all that the model learned, at most ten times that.",
    )
    level: Annotated[list[Level], Field(max_length=20)] = Field(
        [], description="Central intervals, answered as lo-80 and hi-80."
    )
    quantiles: Annotated[list[Quantile], Field(max_length=100)] = []
    futr: list[FutureRow] = Field(
        [], description="Known-future covariates for every series and each of the h stamps."
    )

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.unique_ids is None) == (self.series is None):
            message = "give exactly one of unique_ids (live states) and series (histories)"
            raise ValueError(message)
        return self


class ObservationsRequest(Body):
    """Observations of any series, in any order; all are stored, or none."""

    observations: Annotated[list[ObservationRow], Field(min_length=1)]


class Model(Answer):
    """The model that answered."""

    name: str
    version: str | None = Field(description="In the registry; null for a directory.")
    digest: str = Field(description="SHA-256 of its settings and weights.")


class SeriesPosition(Answer):
    """Where a state stands."""

    last_ds: str | int
    observations: int = Field(description="Steps seen, filled ones included.")


class SeriesForecast(BaseModel):
    """One series: `lo-80` and `hi-80` are further fields, one pair for each level asked."""

    model_config = ConfigDict(extra="allow", frozen=True)
    __pydantic_extra__: dict[str, list[float]] = Field(init=False)

    unique_id: str
    ds: list[str | int]
    statecast: list[float] = Field(
        description="The point forecast: the median, of counts and variances the mean."
    )
    quantiles: dict[str, list[float]] = Field({}, description='By fraction: "0.9".')
    position: SeriesPosition
    state: str = Field(
        description="live: went on with each observation; rebuilt: replayed from the log; "
        "cold: warmed up on the history sent."
    )


class ForecastResponse(Answer):
    """Forecasts in the order in which the series were asked for."""

    model: Model
    forecasts: list[SeriesForecast]


class ItemStatus(Answer):
    """An item that is not new."""

    index: int = Field(description="Place in the request, from 0.")
    unique_id: str
    ds: str | int
    status: str = Field(description="duplicate: nothing changed; revised: the series was replayed.")


class FilledGap(Answer):
    """Steps that the model's fill policy put in."""

    unique_id: str
    ds: str | int = Field(description="The first of them.")
    steps: int
    policy: str


class ObservationsResponse(Answer):
    """What became of the observations; they are on the disk."""

    new: int
    duplicate: int
    revised: int
    items: list[ItemStatus] = Field(description="Those that are not new.")
    created: list[str] = Field(description="Series that were not known before.")
    filled: list[FilledGap]


class SeriesItem(Answer):
    """One series with a live state."""

    unique_id: str
    last_ds: str | int
    observations: int


class SeriesPage(Answer):
    """Series in the order of their names."""

    series: list[SeriesItem]
    total: int = Field(description="Series that match `q`.")
    next: str | None = Field(description="`cursor` of the next page; null on the last.")


class RemovedSeries(Answer):
    """A series that is no longer there."""

    unique_id: str
    rows: int = Field(description="Stored observations that went with it, old revisions included.")


class LogQuery(Body):
    """Which part of the log."""

    unique_id: Annotated[list[UniqueId], Field(max_length=100)] = Field(
        [], description="Only these series; repeat it. None: all."
    )
    since: Annotated[str, StringConstraints(max_length=40)] | None = Field(
        None, description="First `ds`."
    )
    until: Annotated[str, StringConstraints(max_length=40)] | None = Field(
        None, description="Last `ds`."
    )
    full: bool = Field(
        False, description="Every revision, with `revision`, `filled` and `recorded_at`."
    )


class PruneRequest(Body):
    """What stays of each series: exactly one of `keep_steps` and `before` is given."""

    keep_steps: Annotated[int, Field(ge=1, le=10**9)] | None = Field(
        None, description="So many of its last steps."
    )
    before: Stamp | None = Field(None, description="All but what lies before this `ds`.")
    dry_run: bool = Field(False, description="Take nothing out: only count.")

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        if (self.keep_steps is None) == (self.before is None):
            message = "give exactly one of keep_steps and before"
            raise ValueError(message)
        return self


class PrunedLog(Answer):
    """What was taken out of the log, or would be."""

    dry_run: bool
    series: int = Field(description="Series that begin later now.")
    steps: int
    rows: int = Field(description="Stored observations, old revisions included.")


class SeriesDetail(Answer):
    """What the log has of a series."""

    unique_id: str
    created_at: str
    static: dict[str, Any]
    first_ds: str | int
    last_ds: str | int
    observations: int = Field(description="Steps seen in all, those that were pruned included.")
    pruned: int = Field(description="Of them, taken out of the log: they lay before first_ds.")
    filled: int = Field(description="Of those in the log, made up by the fill policy.")
    revisions: int = Field(description="Values in the log that were corrected later.")


class StateDetail(Answer):
    """What the live state of a series is and where it stands."""

    unique_id: str
    position: SeriesPosition
    state: str = Field(description="live or rebuilt")
    model: Model


class ModelDetail(Model):
    """A model and what it was trained on."""

    alias: str | None
    in_service: bool
    since: str
    freq: str | int
    kind: str
    horizon: int
    quantiles: list[float]
    known_future: list[str]
    past_only: list[str]
    static: list[str]
    fill: str
    shortened: int = Field(
        description="Series pruned before this model came: it knows only what the log had then."
    )
    facts: dict[str, Any]
    scores: dict[str, float]


class Models(Answer):
    """Models that this server holds."""

    models: list[ModelDetail]


class Liveness(Answer):
    """The process answers."""

    status: str = "alive"


class SuccessorDetail(Answer):
    """The last model that was to take over."""

    version: str | None
    digest: str
    phase: str = Field(description="`replaying`, `in service`, `refused` or `rolled back`.")
    reason: str = ""


class ModelReadiness(Answer):
    """How far one model is."""

    ready: bool
    phase: str
    model: Model | None
    series: int
    replayed: int
    reason: str = ""
    successor: SuccessorDetail | None = None


class Readiness(ModelReadiness):
    """How far the server is."""

    models: dict[str, ModelReadiness] = {}
    """Each by its name, where there are several."""


class Version(Answer):
    """What runs."""

    version: str
    python: str
    torch: str

"""Bodies of requests and answers. Unknown fields are refused; sizes and numbers are bounded."""

from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from forecast.data.checks import LARGEST

UniqueId = Annotated[
    str,
    StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$"),
    Field(description="Name of the series. Slashes and any script are allowed."),
]
Stamp = Annotated[
    int | Annotated[str, StringConstraints(min_length=1, max_length=40)],
    Field(union_mode="smart", description="ISO 8601 (UTC if without offset), or an integer."),
]
Number = Annotated[float, Field(ge=-LARGEST, le=LARGEST, allow_inf_nan=False)]
Value = Annotated[
    Number | None,
    Field(description="null: not observed (needs the fill policy mask)."),
]
Level = Annotated[
    float, Field(ge=1, lt=100, allow_inf_nan=False, description="Percent, such as 80.")
]
Quantile = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]
StaticValue = Number | Annotated[str, StringConstraints(max_length=200)]


class Body(BaseModel):
    """A body that a client sends. Unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Answer(BaseModel):
    """A body that the server answers with."""

    model_config = ConfigDict(frozen=True)


class FutureRow(BaseModel):
    """Known-future covariates of a series at a future stamp, as further fields."""

    model_config = ConfigDict(extra="allow", frozen=True)
    __pydantic_extra__: dict[str, Number] = Field(init=False)

    unique_id: UniqueId
    ds: Stamp


class ObservationRow(FutureRow):
    """Observed value of a series at a stamp, with the model's covariates as further fields."""

    y: Value


class InlineSeries(BaseModel):
    """A series with its whole history, with the model's covariates as further arrays."""

    model_config = ConfigDict(extra="allow", frozen=True)
    __pydantic_extra__: dict[str, list[Number]] = Field(init=False)

    unique_id: UniqueId
    ds: Annotated[list[Stamp], Field(min_length=1)]
    y: Annotated[list[Value], Field(min_length=1)]
    static: dict[str, StaticValue] = {}


class ForecastRequest(Body):
    """
    Forecast series from their live states, or from histories in the request.

    Exactly one of `unique_ids` and `series` is given.
    """

    unique_ids: Annotated[list[UniqueId], Field(min_length=1)] | None = None
    series: Annotated[list[InlineSeries], Field(min_length=1)] | None = None
    h: Annotated[int, Field(ge=1, le=10_000)] | None = Field(
        None,
        description="Steps ahead. The default is the trained horizon, the maximum ten times it.",
    )
    level: Annotated[list[Level], Field(max_length=20)] = Field(
        [], description="Central intervals in percent; 80 is answered as lo-80 and hi-80."
    )
    quantiles: Annotated[list[Quantile], Field(max_length=100)] = []
    futr: list[FutureRow] = Field(
        [], description="Known-future covariates of every series at each of the h coming stamps."
    )

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.unique_ids is None) == (self.series is None):
            message = "give exactly one of unique_ids (live states) and series (histories)"
            raise ValueError(message)
        return self


class ObservationsRequest(Body):
    """Observations of any series in any order. All are stored, or none."""

    observations: Annotated[list[ObservationRow], Field(min_length=1)]


class Model(Answer):
    """The model that answered."""

    name: str
    version: str | None = Field(
        description="Version in the registry; null for a model from a directory."
    )
    digest: str = Field(description="SHA-256 of its settings and weights.")


class SeriesPosition(Answer):
    """Position of a state."""

    last_ds: str | int
    observations: int = Field(description="Steps seen, including filled ones.")


class SeriesForecast(BaseModel):
    """Forecast of one series, with a pair of further fields such as `lo-80`, `hi-80` per level."""

    model_config = ConfigDict(extra="allow", frozen=True)
    __pydantic_extra__: dict[str, list[float]] = Field(init=False)

    unique_id: str
    ds: list[str | int]
    statecast: list[float] = Field(
        description="Point forecast: the median; the mean for counts and variances."
    )
    quantiles: dict[str, list[float]] = Field({}, description='By fraction, such as "0.9".')
    position: SeriesPosition
    state: str = Field(
        description="live: advanced by each observation; rebuilt: replayed from the log; "
        "cold: warmed up on the history in the request."
    )


class ForecastResponse(Answer):
    """Forecasts in the order of the request."""

    model: Model
    forecasts: list[SeriesForecast]


class ItemStatus(Answer):
    """Status of an observation that is not new."""

    index: int = Field(description="Index in the request, from 0.")
    unique_id: str
    ds: str | int
    status: str = Field(description="duplicate: nothing changed; revised: the series was replayed.")


class FilledGap(Answer):
    """Missing steps that the model's fill policy has filled."""

    unique_id: str
    ds: str | int = Field(description="First filled step.")
    steps: int
    policy: str


class ObservationsResponse(Answer):
    """Result of a report of observations, which are now on the disk."""

    new: int
    duplicate: int
    revised: int
    items: list[ItemStatus] = Field(description="Observations that are not new.")
    created: list[str] = Field(description="Series that were not known before.")
    filled: list[FilledGap]


class SeriesItem(Answer):
    """A series with a live state."""

    unique_id: str
    last_ds: str | int
    observations: int


class SeriesPage(Answer):
    """Series in the order of their names."""

    series: list[SeriesItem]
    total: int = Field(description="Series that match `q`.")
    next: str | None = Field(description="`cursor` of the next page; null on the last.")


class RemovedSeries(Answer):
    """A series that was deleted."""

    unique_id: str
    rows: int = Field(description="Deleted observations, including old revisions.")


class LogQuery(Body):
    """The part of the log to export."""

    unique_id: Annotated[list[UniqueId], Field(max_length=100)] = Field(
        [], description="Series to export; repeat the parameter for several. Default: all."
    )
    since: Annotated[str, StringConstraints(max_length=40)] | None = Field(
        None, description="First `ds` to export."
    )
    until: Annotated[str, StringConstraints(max_length=40)] | None = Field(
        None, description="Last `ds` to export."
    )
    full: bool = Field(
        False, description="Export every revision, with `revision`, `filled` and `recorded_at`."
    )


class PruneRequest(Body):
    """The steps to keep of each series; exactly one of `keep_steps` and `before` is given."""

    keep_steps: Annotated[int, Field(ge=1, le=10**9)] | None = Field(
        None, description="Number of last steps to keep."
    )
    before: Stamp | None = Field(None, description="Remove the steps before this `ds`.")
    dry_run: bool = Field(False, description="Only count; remove nothing.")

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        if (self.keep_steps is None) == (self.before is None):
            message = "give exactly one of keep_steps and before"
            raise ValueError(message)
        return self


class PrunedLog(Answer):
    """What was removed from the log, or would be."""

    dry_run: bool
    series: int = Field(description="Series that lost steps.")
    steps: int
    rows: int = Field(description="Removed observations, including old revisions.")


class SeriesDetail(Answer):
    """A series as the log has it."""

    unique_id: str
    created_at: str
    static: dict[str, Any]
    first_ds: str | int
    last_ds: str | int
    observations: int = Field(description="Steps seen in all, including those that were pruned.")
    pruned: int = Field(description="Steps before first_ds that were removed from the log.")
    filled: int = Field(description="Steps in the log that the fill policy has filled.")
    revisions: int = Field(description="Values in the log that were corrected later.")


class StateDetail(Answer):
    """The live state of a series."""

    unique_id: str
    position: SeriesPosition
    state: str = Field(
        description="live: advanced by each observation; rebuilt: replayed from the log."
    )
    model: Model


class ModelDetail(Model):
    """A model, what it takes and how it scored."""

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
        description="Series pruned before this model was loaded: it has not seen the removed steps."
    )
    facts: dict[str, Any]
    scores: dict[str, float]


class Models(Answer):
    """Models that the server holds."""

    models: list[ModelDetail]


class Liveness(Answer):
    """Answer of a process that is alive."""

    status: str = "alive"


class SuccessorDetail(Answer):
    """The last model of a rollout and its outcome."""

    version: str | None
    digest: str
    phase: str = Field(description="`replaying`, `in service`, `refused` or `rolled back`.")
    reason: str = ""


class ModelReadiness(Answer):
    """Readiness of one model."""

    ready: bool
    phase: str
    model: Model | None
    series: int
    replayed: int
    reason: str = ""
    successor: SuccessorDetail | None = None


class Readiness(ModelReadiness):
    """Readiness of the server."""

    models: dict[str, ModelReadiness] = {}
    """Readiness of each model by name, if there are several."""


class Version(Answer):
    """Versions of what runs."""

    version: str
    python: str
    torch: str

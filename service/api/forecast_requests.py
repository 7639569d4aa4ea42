"""
Reads a forecast request: one call turns the body into arrays that fit the model.

`read_live_request` is for series with a live state, `read_cold_request` for histories sent along.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from forecast.bundle import Bundle
from forecast.calendars.calendar import Calendar
from forecast.config import DataConfig
from forecast.errors import DuplicateStamps, MissingFuture, WrongType
from forecast.features.static import StaticSpec
from service.api import schemas, timestamps
from service.api.request_checks import MOST_ITEMS, check_count, check_unique, covariate_table
from service.engine.engine import Engine, no_such_series
from service.errors import Refused, RequestError, RequestTooLarge
from service.ingest.planner import Known, plan
from service.serving.serving import Serving
from service.settings import Limits
from service.storage.records import Observations


@dataclass(frozen=True, slots=True)
class QuantilePlan:
    """The quantiles that a request needs, and the fields of the answer that they go to."""

    quantiles: tuple[float, ...]
    """Fractions to compute: the bounds of each level, then the quantiles."""
    bounds: tuple[str, ...]
    """Fields of the levels: `lo-80`, `hi-80`, ..."""
    fractions: tuple[str, ...]
    """Keys of the quantiles: `0.9`, ..."""

    @classmethod
    def of(cls, body: schemas.ForecastRequest) -> "QuantilePlan":
        """
        Plan the quantiles of a request; a level or quantile that is repeated counts once.

        >>> QuantilePlan.of(schemas.ForecastRequest(unique_ids=["a"], level=[80], quantiles=[0.9]))
        QuantilePlan(quantiles=(0.1, 0.9, 0.9), bounds=('lo-80', 'hi-80'), fractions=('0.9',))
        """
        levels = list(dict.fromkeys(body.level))
        fractions = list(dict.fromkeys(body.quantiles))
        edges = [round(0.5 + sign * level / 200, 10) for level in levels for sign in (-1, 1)]
        bounds = [f"{side}-{level:g}" for level in levels for side in ("lo", "hi")]
        return cls((*edges, *fractions), tuple(bounds), tuple(f"{q:g}" for q in fractions))

    def answer_size(self, *, series: int, horizon: int) -> int:
        """Return how many numbers an answer holds: series times steps times columns."""
        return series * horizon * (1 + len(self.quantiles))


@dataclass(frozen=True, slots=True)
class FutureTable:
    """The known-future covariates of a request."""

    unique_ids: Sequence[str]
    horizon: int
    names: tuple[str, ...]
    """Covariates, in the order of the columns of `values`."""
    rows: Mapping[tuple[str, int], int]
    """Row of `values` by series and stamp."""
    values: Float[np.ndarray, "row known"]
    calendar: Calendar

    def after(
        self, last_ds: Int[np.ndarray, " series"]
    ) -> Float[np.ndarray, "series horizon known"] | None:
        """
        Return the covariates of the steps after the last stamp of each series.

        None if the model has no known-future covariates. Rows beyond the horizon are not used.

        Raises:
            Refused: `MissingFuture`, with the first series and stamp that lack a row.
        """
        if not self.names:
            return None
        ahead = self.calendar.after(last_ds, self.horizon)
        rows = np.array(
            [
                [self.rows.get((name, int(ds)), -1) for ds in stamps]
                for name, stamps in zip(self.unique_ids, ahead, strict=True)
            ]
        )
        self._check_complete(rows, ahead)
        covariates: Float[np.ndarray, "series horizon known"] = self.values[rows].astype(np.float32)
        return covariates

    def _check_complete(
        self, rows: Int[np.ndarray, "series horizon"], ahead: Int[np.ndarray, "series horizon"]
    ) -> None:
        missing = np.argwhere(rows < 0)
        if not len(missing):
            return
        i, j = missing[0]
        text = self.calendar.text
        raise Refused(
            MissingFuture(
                f"futr lacks {', '.join(self.names)} of {len(missing)} steps in "
                f"{len(np.unique(missing[:, 0]))} of {len(self.unique_ids)} series",
                where=f"series {self.unique_ids[i]!r} at {text(ahead[i, j])}, step {j + 1}",
                help=f"give them for each of the {self.horizon} stamps after last_ds, or ask for "
                "a smaller h",
            ),
            [
                ("/futr", f"{self.unique_ids[i]!r} at {text(ahead[i, j])} is missing")
                for i, j in missing[:MOST_ITEMS]
            ],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedRequest:
    """A forecast request as arrays; everything in it fits the model."""

    unique_ids: Sequence[str]
    horizon: int
    quantile_plan: QuantilePlan
    future: FutureTable
    history: Observations | None = None
    """Histories of a cold request in order of series and stamp, gaps filled; else None."""
    static: Sequence[Mapping[str, Any]] = ()
    """Static covariates of each series of a cold request."""


def read_live_request(
    body: schemas.ForecastRequest, serving: Serving, limits: Limits
) -> CheckedRequest:
    """
    Check a request for series with a live state.

    Raises:
        Refused: Too many series, an unknown or repeated one, an answer that would be too large, or
            rows of `futr` that cannot be read.
        UnseenHorizon: The model does not forecast so many steps.
    """
    unique_ids, bundle = body.unique_ids or [], serving.bundle
    check_count(len(unique_ids), limits.max_series, "series", "/unique_ids")
    live_rows(unique_ids, serving.engine)
    check_unique(unique_ids, "/unique_ids")
    horizon, quantile_plan = _check_answer(body, len(unique_ids), serving.engine, limits)
    return CheckedRequest(
        unique_ids=unique_ids,
        horizon=horizon,
        quantile_plan=quantile_plan,
        future=_read_future(body.futr, bundle, limits, unique_ids, horizon),
    )


def read_cold_request(
    body: schemas.ForecastRequest, serving: Serving, limits: Limits
) -> CheckedRequest:
    """
    Check a request that brings the histories of its series.

    Raises:
        Refused: Too many series or observations, an answer that would be too large, static
            covariates or histories that do not fit the model, or rows of `futr` that cannot be
            read.
        UnseenHorizon: The model does not forecast so many steps.
    """
    series, bundle = body.series or [], serving.bundle
    unique_ids = [one.unique_id for one in series]
    horizon, quantile_plan = _check_answer(body, len(series), serving.engine, limits)
    _check_static(series, bundle.spec.static)
    return CheckedRequest(
        unique_ids=unique_ids,
        horizon=horizon,
        quantile_plan=quantile_plan,
        history=_read_histories(series, bundle.config.data, bundle.calendar, limits),
        static=[one.static for one in series],
        future=_read_future(body.futr, bundle, limits, unique_ids, horizon),
    )


def live_rows(unique_ids: Sequence[str], engine: Engine) -> Int[np.ndarray, " series"]:
    """
    Return the rows of the live states of series.

    Raises:
        Refused: `UnknownSeries`; some have no live state.
    """
    rows = [engine.rows.get(name, -1) for name in unique_ids]
    unknown = [i for i, row in enumerate(rows) if row < 0]
    if unknown:
        error = no_such_series(unique_ids[unknown[0]], engine, len(unknown))
        raise Refused(error, [(f"/unique_ids/{i}", "no such series") for i in unknown[:MOST_ITEMS]])
    return np.array(rows, np.int64)


def _check_answer(
    body: schemas.ForecastRequest, series: int, engine: Engine, limits: Limits
) -> tuple[int, QuantilePlan]:
    """Return horizon and quantile plan, once the answer is known to be small enough."""
    horizon, quantile_plan = body.h or engine.bundle.horizon, QuantilePlan.of(body)
    engine.check_horizon(horizon)
    numbers = quantile_plan.answer_size(series=series, horizon=horizon)
    if numbers > limits.max_values:
        raise Refused(
            RequestTooLarge(
                f"the answer would hold {numbers:,} numbers: at most {limits.max_values:,} are "
                "returned",
                help="ask for fewer series, steps or quantiles in one request",
            ),
            [("", f"at most {limits.max_values:,} numbers in the answer")],
        )
    return horizon, quantile_plan


def _check_static(series: Sequence[schemas.InlineSeries], spec: StaticSpec) -> None:
    """Refuse static covariates unless a series gives all that the model has, or none."""
    numeric = {column.name: not column.categories for column in spec.columns}
    for i, one in enumerate(series):
        if not one.static:
            continue
        wrong = sorted(numeric.keys() ^ one.static.keys())
        wrong += [
            name
            for name, is_number in numeric.items()
            if is_number and isinstance(one.static.get(name), str)
        ]
        if wrong:
            takes = ", ".join(numeric) or "none"
            raise Refused(
                WrongType(
                    f"static covariates of series {one.unique_id!r} do not fit the model, which "
                    f"takes {takes}",
                    help="give each of them once, or leave static out",
                ),
                [
                    (f"/series/{i}/static/{name[:100]}", "unknown, missing or not a number")
                    for name in wrong[:MOST_ITEMS]
                ],
            )


def _read_histories(
    series: Sequence[schemas.InlineSeries], data: DataConfig, calendar: Calendar, limits: Limits
) -> Observations:
    """Return the histories in order of series and stamp, gaps filled by the model's policy."""
    check_count(len(series), limits.max_series, "series", "/series")
    check_count(sum(len(one.ds) for one in series), limits.max_rows, "observations", "/series")
    check_unique([one.unique_id for one in series], "/series")
    for i, one in enumerate(series):
        _check_lengths(one, f"/series/{i}")
    places = [(i, j) for i, one in enumerate(series) for j in range(len(one.ds))]

    def pointer(item: int) -> str:
        return f"/series/{places[item][0]}/ds/{places[item][1]}"

    extras = [
        {name: values[j] for name, values in (one.__pydantic_extra__ or {}).items()}
        for one in series
        for j in range(len(one.ds))
    ]
    stamps = [stamp for one in series for stamp in one.ds]
    rows = Observations(
        np.array([i for i, _ in places], np.int64),
        timestamps.parse(stamps, calendar, [pointer(item) for item in range(len(stamps))]),
        np.array([np.nan if y is None else y for one in series for y in one.y]),
        covariate_table(
            extras,
            (*data.known_future, *data.past_only),
            lambda item: f"/series/{places[item][0]}",
        ),
        np.zeros(len(places), bool),
    )
    nothing = np.zeros(len(series), np.int64)
    known = Known([one.unique_id for one in series], nothing, nothing, np.ones(len(series), bool))
    return plan(
        rows,
        known,
        lambda stored: replace(stored),
        data,
        calendar,
        max_fill=limits.max_fill,
        max_rows=limits.max_rows,
        pointer=pointer,
    ).fresh


def _check_lengths(one: schemas.InlineSeries, pointer: str) -> None:
    arrays: dict[str, Sequence[Any]] = {"y": one.y, **(one.__pydantic_extra__ or {})}
    for name, values in arrays.items():
        if len(values) != len(one.ds):
            raise Refused(
                WrongType(
                    f"series {one.unique_id!r} has {len(one.ds)} stamps and {len(values)} values "
                    f"of {name!r}",
                    help="send one value for each stamp",
                ),
                [(f"{pointer}/{name}", f"expected {len(one.ds)} values, found {len(values)}")],
            )


def _read_future(
    futr: Sequence[schemas.FutureRow],
    bundle: Bundle,
    limits: Limits,
    unique_ids: Sequence[str],
    horizon: int,
) -> FutureTable:
    """Read the rows of `futr`; which of them are needed is known once the states are."""
    check_count(len(futr), limits.max_rows, "rows", "/futr")
    requested = set(unique_ids)
    foreign = [i for i, row in enumerate(futr) if row.unique_id not in requested]
    if foreign:
        raise Refused(
            RequestError(
                "futr has rows of series that are not requested",
                help="leave them out, or request those series too",
            ),
            [(f"/futr/{i}/unique_id", "not requested") for i in foreign[:MOST_ITEMS]],
        )
    names = bundle.config.data.known_future
    stamps = timestamps.parse(
        [row.ds for row in futr], bundle.calendar, [f"/futr/{i}/ds" for i in range(len(futr))]
    )
    extras = [row.__pydantic_extra__ or {} for row in futr]
    values = covariate_table(extras, names, lambda item: f"/futr/{item}")
    rows: dict[tuple[str, int], int] = {}
    for i, row in enumerate(futr):
        if rows.setdefault((row.unique_id, int(stamps[i])), i) != i:
            raise Refused(
                DuplicateStamps(
                    f"futr has {row.unique_id!r} at one stamp twice", help="send each stamp once"
                ),
                [(f"/futr/{i}", "the same series and stamp as a row above")],
            )
    return FutureTable(unique_ids, horizon, names, rows, values, bundle.calendar)

"""From the body of a request to arrays, checked against what the model takes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from forecast.calendars.calendar import Calendar
from forecast.config import DataConfig
from forecast.errors import DuplicateStamps, MissingFuture, WrongType, nearest
from forecast.features.static import StaticSpec
from service.api import schemas, timestamps
from service.engine.engine import Engine, no_such_series
from service.errors import Refused, RequestError, RequestTooLarge
from service.ingest.batch import ObservationBatch
from service.ingest.planner import Known, plan
from service.settings import Limits
from service.storage.records import Observations

Future = Callable[[Int[np.ndarray, " series"]], Float[np.ndarray, "series horizon known"] | None]
"""From the last stamps of series to the covariates of the steps that follow."""
_SHOWN = 10


def observations(
    body: schemas.ObservationsRequest, data: DataConfig, calendar: Calendar, limits: Limits
) -> ObservationBatch:
    """
    Observations as arrays.

    Raises:
        Refused: Too many, stamps that cannot be read, covariates missing or unknown.
    """
    items = body.observations
    _bound(len(items), limits.max_rows, "observations", "/observations")
    names = (*data.known_future, *data.past_only)

    def pointer(item: int) -> str:
        return f"/observations/{item}"

    pointers = [f"/observations/{i}/ds" for i in range(len(items))]
    extras = [item.__pydantic_extra__ or {} for item in items]
    return ObservationBatch(
        [item.unique_id for item in items],
        timestamps.parse([item.ds for item in items], calendar, pointers),
        np.array([np.nan if item.y is None else item.y for item in items]),
        _covariates(extras, names, pointer),
        names,
        pointer,
    )


def live_rows(unique_ids: Sequence[str], engine: Engine, limits: Limits) -> Int[np.ndarray, " n"]:
    """
    Rows of the states asked for.

    Raises:
        Refused: Too many, one twice, or one that is not known.
    """
    _bound(len(unique_ids), limits.max_series, "series", "/unique_ids")
    rows = [engine.rows.get(name, -1) for name in unique_ids]
    lost = [i for i, row in enumerate(rows) if row < 0]
    if lost:
        error = no_such_series(unique_ids[lost[0]], engine, len(lost))
        raise Refused(error, [(f"/unique_ids/{i}", "no such series") for i in lost[:_SHOWN]])
    _check_once(unique_ids, "/unique_ids")
    return np.array(rows, np.int64)


def cold_rows(
    series: Sequence[schemas.InlineSeries], data: DataConfig, calendar: Calendar, limits: Limits
) -> Observations:
    """
    Histories sent with a request, in order of series and stamp, gaps filled if the model does so.

    Raises:
        Refused: What is wrong with them, and where.
    """
    _bound(len(series), limits.max_series, "series", "/series")
    _bound(sum(len(one.ds) for one in series), limits.max_rows, "observations", "/series")
    _check_once([one.unique_id for one in series], "/series")
    names = (*data.known_future, *data.past_only)
    for i, one in enumerate(series):
        _check_lengths(one, f"/series/{i}")
    place = [(i, j) for i, one in enumerate(series) for j in range(len(one.ds))]

    def pointer(item: int) -> str:
        return f"/series/{place[item][0]}/ds/{place[item][1]}"

    extras = [
        {name: values[j] for name, values in (one.__pydantic_extra__ or {}).items()}
        for one in series
        for j in range(len(one.ds))
    ]
    flat = [stamp for one in series for stamp in one.ds]
    rows = Observations(
        np.array([i for i, _ in place], np.int64),
        timestamps.parse(flat, calendar, [pointer(item) for item in range(len(flat))]),
        np.array([np.nan if y is None else y for one in series for y in one.y]),
        _covariates(extras, names, lambda item: f"/series/{place[item][0]}"),
        np.zeros(len(place), bool),
    )
    nothing = np.zeros(len(series), np.int64)
    known = Known([one.unique_id for one in series], nothing, nothing, np.ones(len(series), bool))
    return plan(
        rows,
        known,
        lambda asked: replace(asked),
        data,
        calendar,
        max_fill=limits.max_fill,
        max_rows=limits.max_rows,
        pointer=pointer,
    ).fresh


def check_answer(numbers: int, limits: Limits) -> None:
    """
    Before an answer is computed.

    Raises:
        Refused: It would hold too many numbers.
    """
    if numbers > limits.max_values:
        raise Refused(
            RequestTooLarge(
                f"the answer would hold {numbers:,} numbers: at most {limits.max_values:,} are "
                "given in one",
                help="ask for fewer series, steps or quantiles in one request",
            ),
            [("", f"at most {limits.max_values:,} numbers in the answer")],
        )


def check_static(series: Sequence[schemas.InlineSeries], spec: StaticSpec) -> None:
    """
    Static covariates: all that the model has, or none of them.

    Raises:
        Refused: Some are missing, unknown, or text where the model learned numbers.
    """
    numeric = {column.name: not column.categories for column in spec.columns}
    for i, one in enumerate(series):
        if not one.static:
            continue
        wrong = sorted(numeric.keys() ^ one.static.keys())
        wrong += [
            n
            for n, is_number in numeric.items()
            if is_number and isinstance(one.static.get(n), str)
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
                    for name in wrong[:_SHOWN]
                ],
            )


def future(
    futr: Sequence[schemas.FutureRow],
    data: DataConfig,
    calendar: Calendar,
    limits: Limits,
    ids: Sequence[str],
    horizon: int,
) -> Future:
    """
    Known-future covariates, once the last stamps of the states are known.

    Rows of stamps beyond the horizon are left out.

    Raises:
        Refused: Rows of other series, unreadable stamps, unknown covariates, the same twice; and
            later `MissingFuture`, with series and stamp.
    """
    _bound(len(futr), limits.max_rows, "rows", "/futr")
    names = data.known_future

    def pointer(item: int) -> str:
        return f"/futr/{item}"

    wanted = set(ids)
    strange = [i for i, row in enumerate(futr) if row.unique_id not in wanted]
    if strange:
        raise Refused(
            RequestError(
                "futr has rows of series that are not asked for",
                help="leave them out, or ask for those series too",
            ),
            [(f"{pointer(i)}/unique_id", "not asked for") for i in strange[:_SHOWN]],
        )
    given = timestamps.parse(
        [row.ds for row in futr], calendar, [f"/futr/{i}/ds" for i in range(len(futr))]
    )
    values = _covariates([row.__pydantic_extra__ or {} for row in futr], names, pointer)
    table: dict[tuple[str, int], int] = {}
    for i, row in enumerate(futr):
        if table.setdefault((row.unique_id, int(given[i])), i) != i:
            raise Refused(
                DuplicateStamps(
                    f"futr has {row.unique_id!r} at one stamp twice", help="send each stamp once"
                ),
                [(pointer(i), "the same series and stamp as a row above")],
            )

    def choose(
        last: Int[np.ndarray, " series"],
    ) -> Float[np.ndarray, "series horizon known"] | None:
        if not names:
            return None
        ahead = calendar.after(last, horizon)
        at = np.array(
            [
                [table.get((name, int(ds)), -1) for ds in row]
                for name, row in zip(ids, ahead, strict=True)
            ]
        )
        _check_future(at, ids, ahead, names, calendar)
        chosen: Float[np.ndarray, "series horizon known"] = values[at].astype(np.float32)
        return chosen

    return choose


def _bound(count: int, most: int, what: str, pointer: str) -> None:
    if count > most:
        raise Refused(
            RequestTooLarge(
                f"{count:,} {what} in one request: at most {most:,} are taken",
                help="send them in several requests",
            ),
            [(pointer, f"at most {most:,}")],
        )


def _check_once(unique_ids: Sequence[str], pointer: str) -> None:
    first: dict[str, int] = {}
    again = [i for i, name in enumerate(unique_ids) if first.setdefault(name, i) != i]
    if again:
        raise Refused(
            RequestError(
                f"series {unique_ids[again[0]]!r} is asked for twice", help="name each series once"
            ),
            [(f"{pointer}/{i}", "named above") for i in again[:_SHOWN]],
        )


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


def _covariates(
    extras: Sequence[Mapping[str, Any]], names: tuple[str, ...], pointer: Callable[[int], str]
) -> Float[np.ndarray, "row covariate"]:
    wanted = set(names)
    bad = [i for i, extra in enumerate(extras) if extra.keys() != wanted]
    if bad:
        raise _wrong_columns(bad, extras, names, pointer)
    table = [[extra[name] for name in names] for extra in extras]
    return np.array(table, np.float64).reshape(len(extras), len(names))


def _wrong_columns(
    bad: Sequence[int],
    extras: Sequence[Mapping[str, Any]],
    names: tuple[str, ...],
    pointer: Callable[[int], str],
) -> Refused:
    takes = ", ".join(names) if names else "no covariates"
    items = []
    for i in bad[:_SHOWN]:
        for name in sorted(extras[i].keys() - set(names))[:_SHOWN]:
            near = nearest(name, names)
            hint = f"; did you mean {near!r}?" if near else ""
            items.append((f"{pointer(i)}/{name[:100]}", f"not a field of this model{hint}"))
        items += [(f"{pointer(i)}/{n}", "missing") for n in names if n not in extras[i]]
    error = RequestError(
        f"{len(bad)} rows have fields that do not fit the model, which takes {takes}: "
        f"{items[0][0]} is {items[0][1]}",
        help="GET /v1/models lists the covariates",
    )
    return Refused(error, items)


def _check_future(
    at: Int[np.ndarray, "series horizon"],
    ids: Sequence[str],
    ahead: Int[np.ndarray, "series horizon"],
    names: tuple[str, ...],
    calendar: Calendar,
) -> None:
    lost = np.argwhere(at < 0)
    if not len(lost):
        return
    i, j = lost[0]
    several = len(np.unique(lost[:, 0]))
    raise Refused(
        MissingFuture(
            f"futr lacks {', '.join(names)} of {len(lost)} steps in {several} of {len(ids)} series",
            where=f"series {ids[i]!r} at {calendar.text(ahead[i, j])}, step {j + 1}",
            help=f"give them for each of the {at.shape[1]} stamps after last_ds, or ask for a "
            "smaller h",
        ),
        [
            ("/futr", f"{ids[i]!r} at {calendar.text(ahead[i, j])} is missing")
            for i, j in lost[:_SHOWN]
        ],
    )


def quantile_plan(body: schemas.ForecastRequest) -> tuple[tuple[float, ...], list[str], list[str]]:
    """
    Quantiles to ask for, then the names of levels and of quantiles, in the same order.

    >>> quantile_plan(schemas.ForecastRequest(unique_ids=["a"], level=[80], quantiles=[0.9]))
    ((0.1, 0.9, 0.9), ['lo-80', 'hi-80'], ['0.9'])
    """
    levels = list(dict.fromkeys(body.level))
    fractions = list(dict.fromkeys(body.quantiles))
    bounds = [round(0.5 + sign * level / 200, 10) for level in levels for sign in (-1, 1)]
    columns = [f"{side}-{level:g}" for level in levels for side in ("lo", "hi")]
    return (*bounds, *fractions), columns, [f"{q:g}" for q in fractions]


def numbers_of(body: schemas.ForecastRequest, *, series: int, horizon: int) -> int:
    """How many numbers an answer holds: series times steps times columns."""
    return series * horizon * (1 + len(quantile_plan(body)[0]))

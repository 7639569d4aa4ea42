"""
What a batch of observations means for what is stored: new, duplicate, revised, filled, refused.

Pure: it looks at the batch, at the ends of each series and at the values already stored, and
makes a plan. Either the whole batch can be stored or nothing of it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int

from forecast.calendars.calendar import Calendar
from forecast.config import DataConfig, Fill
from forecast.data.checks import ABOVE_ZERO, forbidden
from forecast.data.gaps import fill_values, insert_steps
from forecast.errors import (
    DuplicateStamps,
    ForecastError,
    LateValues,
    MissingSteps,
    MissingValues,
    NegativeValues,
    WrongFrequency,
)
from service.errors import PrunedValues, Refused, RequestTooLarge
from service.storage.records import Observations

NEW, DUPLICATE, REVISED = 0, 1, 2
STATUSES = ("new", "duplicate", "revised")
_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Known:
    """Where the series of a batch stand; row `i` is the batch's series `i`."""

    names: Sequence[str]
    first_ds: Int[np.ndarray, " series"]
    last_ds: Int[np.ndarray, " series"]
    empty: Bool[np.ndarray, " series"]
    """True for a series of which nothing is stored: its stamps mean nothing."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to append; `series` of both are rows of `Known`."""

    status: Int[np.ndarray, " item"]
    """NEW, DUPLICATE or REVISED for each item, in the order in which they were sent."""
    fresh: Observations
    """Steps after each series' last one, those filled by policy included, in order."""
    revised: Observations

    @property
    def filled(self) -> int:
        """Steps that were made up."""
        return int(self.fresh.filled.sum())

    def fills(self, names: Sequence[str]) -> tuple[tuple[str, int, int], ...]:
        """Series, first stamp and number of steps of each gap that was filled."""
        fresh, made = self.fresh, self.fresh.filled
        if not made.any():
            return ()
        changed = np.r_[True, fresh.series[1:] != fresh.series[:-1]]
        opens = np.flatnonzero(made & (changed | ~np.r_[False, made[:-1]]))
        group = np.cumsum(np.isin(np.arange(len(fresh)), opens))[made] - 1
        return tuple(
            (names[int(fresh.series[row])], int(fresh.ds[row]), int(size))
            for row, size in zip(opens, np.bincount(group), strict=True)
        )


@dataclass(frozen=True, slots=True)
class _Batch:
    """The batch in order of series and stamp, with what messages need."""

    rows: Observations
    item: Int[np.ndarray, " row"]
    """Place of each row in the request."""
    known: Known
    calendar: Calendar
    pointer: Callable[[int], str]

    def name(self, row: int) -> str:
        return f"series {self.known.names[self.rows.series[row]]!r}"

    def at(self, row: int) -> str:
        return self.calendar.text(self.rows.ds[row])

    def refuse(
        self,
        kind: type[ForecastError],
        rows: Int[np.ndarray, " bad"],
        message: str,
        *,
        detail: Callable[[int], str],
        help: str,
    ) -> Refused:
        """The error, naming how many items and the first few of them."""
        places = sorted((int(self.item[row]), int(row)) for row in rows)[:_SHOWN]
        first = places[0][1]
        return Refused(
            kind(message, where=f"{self.name(first)} at {self.at(first)}", help=help),
            [(self.pointer(item), detail(row)) for item, row in places],
        )


def plan(
    rows: Observations,
    known: Known,
    stored: Callable[[Observations], Observations],
    data: DataConfig,
    calendar: Calendar,
    *,
    max_fill: int,
    max_rows: int,
    pointer: Callable[[int], str],
    pruned: Callable[[int], bool] = lambda _: False,
) -> Plan:
    """
    Decide what each observation is.

    Args:
        rows: As sent, in any order; `series` are rows of `known`.
        known: Where each of those series ends.
        stored: The latest values of those of the given stamps that are stored.
        data: The model's roles, kind and fill policy.
        calendar: The model's frequency.
        max_fill: Longest gap that the policy may fill.
        max_rows: Most steps that it may fill in all.
        pointer: Place of an item in the request, for the answer.
        pruned: Whether steps of a series were taken out before the first one stored.

    Raises:
        Refused: Conflicting values in one batch, a value the kind forbids, a stamp off the grid
            or before the first one, a gap, too many steps to fill. Nothing may be stored then.
    """
    order = np.lexsort((np.arange(len(rows)), rows.ds, rows.series))
    batch = _Batch(rows.take(order), order, known, calendar, pointer)
    _check_values(batch, data)
    sorted_status = np.full(len(rows), NEW)
    again = _repeats(batch)
    sorted_status[again] = DUPLICATE
    past = ~known.empty[batch.rows.series] & (batch.rows.ds <= known.last_ds[batch.rows.series])
    asked = np.flatnonzero(past & ~again)
    sorted_status[asked] = _compare(batch, asked, stored, pruned)
    ahead = np.flatnonzero(~past & ~again)
    fresh = _continue(batch, ahead, data, stored, max_fill, max_rows)
    status = np.empty(len(rows), np.int64)
    status[order] = sorted_status
    return Plan(status, fresh, batch.rows.take(np.flatnonzero(sorted_status == REVISED)))


def _check_values(batch: _Batch, data: DataConfig) -> None:
    gone = np.isnan(batch.rows.y)
    if gone.any() and data.fill != "mask":
        rows = np.flatnonzero(gone)
        raise batch.refuse(
            MissingValues,
            rows,
            f"{len(rows)} of {len(gone)} observations have no value: `y` is null",
            detail=lambda row: f"{batch.name(row)} at {batch.at(row)}: `y` is null",
            help='send the value, or serve a model trained with fill = "mask"',
        )
    opens = np.r_[True, batch.rows.series[1:] != batch.rows.series[:-1]][: len(gone)]
    blank = np.flatnonzero(gone & opens & batch.known.empty[batch.rows.series])
    if len(blank):
        raise batch.refuse(
            MissingValues,
            blank,
            f"{len(blank)} series begin with a `y` that is null",
            detail=lambda row: f"{batch.name(row)} begins at {batch.at(row)} without a value",
            help="begin each series with its first known value",
        )
    below = np.flatnonzero(forbidden(batch.rows.y, data.kind))
    if len(below):
        what = "not above 0" if data.kind in ABOVE_ZERO else "negative"
        raise batch.refuse(
            NegativeValues,
            below,
            f"{len(below)} of {len(gone)} observations are {what}; the model learned data of "
            f"kind {data.kind!r}",
            detail=lambda row: f"{batch.name(row)} at {batch.at(row)}: `y` is {what}",
            help='correct the value, or train with kind = "real"',
        )


def _repeats(batch: _Batch) -> Bool[np.ndarray, " row"]:
    """Rows that repeat the one before: same series, same stamp, same values."""
    rows = batch.rows
    twin = (rows.series[1:] == rows.series[:-1]) & (rows.ds[1:] == rows.ds[:-1])
    places = np.arange(len(rows))
    same = _same(rows.take(places[1:]), rows.take(places[:-1]))
    bad = np.flatnonzero(twin & ~same) + 1
    if len(bad):
        raise batch.refuse(
            DuplicateStamps,
            bad,
            f"{len(bad)} stamps are sent twice with different values",
            detail=lambda row: f"{batch.name(row)} has another value at {batch.at(row)} above",
            help="send each stamp once, with the value that holds",
        )
    return np.r_[False, twin] if len(rows) else np.empty(0, bool)


def _same(a: Observations, b: Observations) -> Bool[np.ndarray, " row"]:
    equal = (a.y == b.y) | (np.isnan(a.y) & np.isnan(b.y))
    same: Bool[np.ndarray, " row"] = equal & (a.covariates == b.covariates).all(axis=1)
    return same


def _compare(
    batch: _Batch,
    asked: Int[np.ndarray, " asked"],
    stored: Callable[[Observations], Observations],
    pruned: Callable[[int], bool],
) -> Int[np.ndarray, " asked"]:
    """DUPLICATE or REVISED for each row that lies within what is stored."""
    if not len(asked):
        return np.empty(0, np.int64)
    sent = batch.rows.take(asked)
    early = asked[sent.ds < batch.known.first_ds[sent.series]]
    if len(early):
        raise _too_early(batch, early, pruned)
    there = stored(sent)
    places = {
        key: row
        for row, key in enumerate(zip(there.series.tolist(), there.ds.tolist(), strict=True))
    }
    found = [
        places.get(key, -1) for key in zip(sent.series.tolist(), sent.ds.tolist(), strict=True)
    ]
    lost = asked[np.array(found) < 0]
    if len(lost):
        raise _off_grid(batch, lost)
    there = there.take(np.array(found, np.int64))
    return np.where(_same(sent, there), DUPLICATE, REVISED)


def _too_early(
    batch: _Batch, early: Int[np.ndarray, " early"], pruned: Callable[[int], bool]
) -> Refused:
    def begin(row: int) -> str:
        first = batch.calendar.text(batch.known.first_ds[batch.rows.series[row]])
        return f"{batch.name(row)} begins at {first}"

    cut = [series for series in np.unique(batch.rows.series[early]).tolist() if pruned(series)]
    gone = early[np.isin(batch.rows.series[early], cut)]
    if len(gone):
        return batch.refuse(
            PrunedValues,
            gone,
            f"{len(gone)} observations lie before the step at which the log of their series begins "
            f"since it was pruned: {begin(int(gone[0]))}",
            detail=lambda row: f"the log of {begin(row)}",
            help="leave them out: what was taken out of the log can be neither compared nor "
            "corrected; GET /v1/series/{unique_id} tells first_ds",
        )
    return batch.refuse(
        LateValues,
        early,
        f"{len(early)} observations lie before the first one that is stored",
        detail=begin,
        help="leave them out; a longer history is read in with `statecast observe` into an "
        "empty log",
    )


def _continue(
    batch: _Batch,
    ahead: Int[np.ndarray, " ahead"],
    data: DataConfig,
    stored: Callable[[Observations], Observations],
    max_fill: int,
    max_rows: int,
) -> Observations:
    """The rows past each series' end, with gaps filled if the policy says how."""
    rows = batch.rows.take(ahead)
    if not len(rows):
        return rows
    opens = np.r_[True, rows.series[1:] != rows.series[:-1]]
    before = np.r_[rows.ds[:1], rows.ds[:-1]]
    empty = batch.known.empty[rows.series]
    before[opens] = np.where(empty, rows.ds, batch.known.last_ds[rows.series])[opens]
    steps = _steps(batch, ahead, before, rows.ds)
    steps[opens & empty] = 1
    gaps = np.flatnonzero(steps > 1)
    if not len(gaps):
        return rows
    too_long = gaps[steps[gaps] - 1 > max_fill]
    if data.fill == "refuse" or len(too_long):
        bad = gaps if data.fill == "refuse" else too_long
        missing = int((steps[bad] - 1).sum())
        row = bad[0]
        expected = batch.calendar.text(batch.calendar.after(before[row : row + 1], 1)[0, 0])
        raise batch.refuse(
            MissingSteps,
            ahead[bad],
            f"{missing} steps are missing in {len(np.unique(rows.series[bad]))} series: expected "
            f"{expected} first, found {batch.calendar.text(rows.ds[row])}",
            detail=lambda at: f"{batch.name(at)}: steps before {batch.at(at)} are missing",
            help="send the missing steps first or in the same request; a model trained with "
            f'fill = "zero", "forward" or "mask" fills up to {max_fill} steps by itself',
        )
    made = int((steps[gaps] - 1).sum())
    if made > max_rows:
        raise batch.refuse(
            RequestTooLarge,
            ahead[gaps],
            f"{made:,} steps are missing before these observations: at most {max_rows:,} are "
            "filled at once",
            detail=lambda at: f"{batch.name(at)}: steps before {batch.at(at)} are missing",
            help="send fewer series, or fewer gaps, in one request",
        )
    return _fill(batch, rows, before, steps, data.fill, stored)


def _steps(
    batch: _Batch,
    ahead: Int[np.ndarray, " ahead"],
    before: Int[np.ndarray, " ahead"],
    stamps: Int[np.ndarray, " ahead"],
) -> Int[np.ndarray, " ahead"]:
    try:
        return batch.calendar.steps_between(before, stamps)
    except WrongFrequency:
        pass
    bad = []
    for row in range(len(stamps)):  # only now, to name every one
        try:
            batch.calendar.steps_between(before[row : row + 1], stamps[row : row + 1])
        except WrongFrequency:
            bad.append(row)
    raise _off_grid(batch, ahead[np.array(bad)])


def _off_grid(batch: _Batch, rows: Int[np.ndarray, " bad"]) -> Refused:
    return batch.refuse(
        WrongFrequency,
        rows,
        f"{len(rows)} stamps are not steps of freq={batch.calendar.freq!r} that go on from what "
        "is stored",
        detail=lambda row: f"{batch.name(row)}: {batch.at(row)} is not one of its steps",
        help="send stamps that continue the series; GET /v1/series/{unique_id} tells its last_ds",
    )


def _fill(
    batch: _Batch,
    rows: Observations,
    before: Int[np.ndarray, " row"],
    steps: Int[np.ndarray, " row"],
    fill: Fill,
    stored: Callable[[Observations], Observations],
) -> Observations:
    """Insert the missing steps in front of the rows that follow them, marked as filled."""
    last_y, last_covariates = _before(rows, before, steps, stored)
    filled = insert_steps(batch.calendar, rows.ds, steps - 1)
    source, inserted = filled.source, filled.inserted
    return Observations(
        rows.series[source],
        filled.stamps,
        np.where(inserted, fill_values(fill, last_y)[source], rows.y[source]),
        np.where(inserted[:, None], last_covariates[source], rows.covariates[source]),
        inserted | rows.filled[source],
    )


def _before(
    rows: Observations,
    before: Int[np.ndarray, " row"],
    steps: Int[np.ndarray, " row"],
    stored: Callable[[Observations], Observations],
) -> tuple[Float[np.ndarray, " row"], Float[np.ndarray, "row covariate"]]:
    """Value and covariates of the step before each row; only those of gaps mean anything."""
    y, covariates = np.roll(rows.y, 1), np.roll(rows.covariates, 1, axis=0)
    opens = np.r_[True, rows.series[1:] != rows.series[:-1]] & (steps > 1)
    asked = np.flatnonzero(opens)
    if len(asked):
        ends = replace(rows.take(asked), ds=before[asked])
        found = stored(ends)  # both are ordered by series, one stamp each
        y[asked], covariates[asked] = found.y, found.covariates
    return y, covariates


def with_values(rows: Observations, fill: str) -> Observations:
    """Rows whose NaN are what the policy makes of them; a series begins with a value."""
    gone = np.isnan(rows.y)
    if fill == "zero":
        return replace(rows, y=np.where(gone, 0.0, rows.y), filled=gone)
    begun = np.flatnonzero(~gone)
    begin = np.full(int(rows.series.max(initial=-1)) + 1, len(rows))
    np.minimum.at(begin, rows.series[begun], begun)
    late = np.arange(len(rows)) >= begin[rows.series]
    return rows.take(late & ~gone if fill == "forward" else late)

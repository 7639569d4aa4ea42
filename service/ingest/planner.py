"""
Plan how a batch of observations is stored: what is new, a duplicate, a correction or filled.

A plan depends only on the batch, on where each series ends and on the stored values. Either the
whole batch can be stored, or it is refused and nothing of it is stored.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int

from forecast.calendars.calendar import Calendar
from forecast.config import DataConfig, Fill
from forecast.data.checks import ABOVE_ZERO, is_forbidden
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
_MAX_ITEMS = 10
"""Most items that an error names one by one."""


@dataclass(frozen=True, slots=True)
class Known:
    """First and last stored stamps of a batch's series; row `i` is the batch's series `i`."""

    names: Sequence[str]
    first_ds: Int[np.ndarray, " series"]
    last_ds: Int[np.ndarray, " series"]
    empty: Bool[np.ndarray, " series"]
    """True for a series without stored observations; its stamps are meaningless."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Rows to append to the log; `series` are rows of `Known`."""

    status: Int[np.ndarray, " item"]
    """NEW, DUPLICATE or REVISED for each item, in the order of the request."""
    fresh: Observations
    """Steps after the last stored one of each series, in order; filled steps are included."""
    revised: Observations
    """Corrections of stored steps."""

    @property
    def filled(self) -> int:
        """Number of steps that the policy fills."""
        return int(self.fresh.filled.sum())

    def fills(self, names: Sequence[str]) -> tuple[tuple[str, int, int], ...]:
        """Return series, first stamp and number of steps of each gap that is filled."""
        fresh, filled = self.fresh, self.fresh.filled
        if not filled.any():
            return ()
        is_first = np.r_[True, fresh.series[1:] != fresh.series[:-1]]
        begins = np.flatnonzero(filled & (is_first | ~np.r_[False, filled[:-1]]))
        gap = np.cumsum(np.isin(np.arange(len(fresh)), begins))[filled] - 1
        return tuple(
            (names[int(fresh.series[row])], int(fresh.ds[row]), int(size))
            for row, size in zip(begins, np.bincount(gap), strict=True)
        )


@dataclass(frozen=True, slots=True)
class _Batch:
    """A batch ordered by series and stamp, with what error messages need."""

    rows: Observations
    item: Int[np.ndarray, " row"]
    """Index of each row in the request."""
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
        """Return the error, with `detail` of the first rows in the order of the request."""
        items = sorted((int(self.item[row]), int(row)) for row in rows)[:_MAX_ITEMS]
        first = items[0][1]
        return Refused(
            kind(message, where=f"{self.name(first)} at {self.at(first)}", help=help),
            [(self.pointer(item), detail(row)) for item, row in items],
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
    Plan how to store a batch.

    Args:
        rows: The observations, in any order; `series` are rows of `known`.
        known: Where each series begins and ends in the log.
        stored: Returns the latest stored values of the given stamps; those not stored are left out.
        data: Roles, kind and fill policy of the model.
        calendar: Frequency of the model.
        max_fill: Longest gap that the policy may fill, in steps.
        max_rows: Most steps that it may fill in all.
        pointer: Returns the place of an item in the request.
        pruned: Returns whether the log of a series, a row of `known`, was pruned.

    Raises:
        Refused: The batch contradicts itself, a value is missing or forbidden by the kind, a stamp
            is off the grid or before the first stored one, or a gap is too long to fill.
    """
    order = np.lexsort((np.arange(len(rows)), rows.ds, rows.series))
    batch = _Batch(rows.take(order), order, known, calendar, pointer)
    _check_values(batch, data)
    sorted_status = np.full(len(rows), NEW)
    repeated = _repeats(batch)
    sorted_status[repeated] = DUPLICATE
    series = batch.rows.series
    is_past = ~known.empty[series] & (batch.rows.ds <= known.last_ds[series])
    past = np.flatnonzero(is_past & ~repeated)
    sorted_status[past] = _compare(batch, past, stored, pruned)
    ahead = np.flatnonzero(~is_past & ~repeated)
    fresh = _continue(batch, ahead, data, stored, max_fill, max_rows)
    status = np.empty(len(rows), np.int64)
    status[order] = sorted_status
    return Plan(status, fresh, batch.rows.take(np.flatnonzero(sorted_status == REVISED)))


def _check_values(batch: _Batch, data: DataConfig) -> None:
    """Raise if a value is missing without a policy for it, or forbidden by the kind of data."""
    missing = np.isnan(batch.rows.y)
    if missing.any() and data.fill != "mask":
        rows = np.flatnonzero(missing)
        raise batch.refuse(
            MissingValues,
            rows,
            f"{len(rows)} of {len(missing)} observations have no value: `y` is null",
            detail=lambda row: f"{batch.name(row)} at {batch.at(row)}: `y` is null",
            help='send the value, or serve a model trained with fill = "mask"',
        )
    is_first = np.r_[True, batch.rows.series[1:] != batch.rows.series[:-1]][: len(missing)]
    begins = np.flatnonzero(missing & is_first & batch.known.empty[batch.rows.series])
    if len(begins):
        raise batch.refuse(
            MissingValues,
            begins,
            f"{len(begins)} series begin with a `y` that is null",
            detail=lambda row: f"{batch.name(row)} begins at {batch.at(row)} without a value",
            help="begin each series with its first known value",
        )
    below = np.flatnonzero(is_forbidden(batch.rows.y, data.kind))
    if len(below):
        fault = "not above 0" if data.kind in ABOVE_ZERO else "negative"
        raise batch.refuse(
            NegativeValues,
            below,
            f"{len(below)} of {len(missing)} observations are {fault}; the model learned data of "
            f"kind {data.kind!r}",
            detail=lambda row: f"{batch.name(row)} at {batch.at(row)}: `y` is {fault}",
            help='correct the value, or train with kind = "real"',
        )


def _repeats(batch: _Batch) -> Bool[np.ndarray, " row"]:
    """Return which rows repeat the one before, and raise if the values of two differ."""
    rows = batch.rows
    same_step = (rows.series[1:] == rows.series[:-1]) & (rows.ds[1:] == rows.ds[:-1])
    index = np.arange(len(rows))
    same = _same_values(rows.take(index[1:]), rows.take(index[:-1]))
    conflicts = np.flatnonzero(same_step & ~same) + 1
    if len(conflicts):
        raise batch.refuse(
            DuplicateStamps,
            conflicts,
            f"{len(conflicts)} stamps are sent twice with different values",
            detail=lambda row: f"{batch.name(row)} has two different values at {batch.at(row)}",
            help="send each stamp once, with its right value",
        )
    return np.r_[False, same_step] if len(rows) else np.empty(0, bool)


def _same_values(a: Observations, b: Observations) -> Bool[np.ndarray, " row"]:
    equal = (a.y == b.y) | (np.isnan(a.y) & np.isnan(b.y))
    same: Bool[np.ndarray, " row"] = equal & (a.covariates == b.covariates).all(axis=1)
    return same


def _compare(
    batch: _Batch,
    past: Int[np.ndarray, " past"],
    stored: Callable[[Observations], Observations],
    pruned: Callable[[int], bool],
) -> Int[np.ndarray, " past"]:
    """Return DUPLICATE or REVISED for each row at or before the end of its series."""
    if not len(past):
        return np.empty(0, np.int64)
    sent = batch.rows.take(past)
    early = past[sent.ds < batch.known.first_ds[sent.series]]
    if len(early):
        raise _too_early(batch, early, pruned)
    known = stored(sent)
    places = {
        step: row
        for row, step in enumerate(zip(known.series.tolist(), known.ds.tolist(), strict=True))
    }
    steps = zip(sent.series.tolist(), sent.ds.tolist(), strict=True)
    rows = np.array([places.get(step, -1) for step in steps], np.int64)
    if (rows < 0).any():
        raise _off_grid(batch, past[rows < 0])
    return np.where(_same_values(sent, known.take(rows)), DUPLICATE, REVISED)


def _too_early(
    batch: _Batch, early: Int[np.ndarray, " early"], pruned: Callable[[int], bool]
) -> Refused:
    """Return the error for rows before the first stored step of their series."""

    def begin(row: int) -> str:
        first = batch.calendar.text(batch.known.first_ds[batch.rows.series[row]])
        return f"{batch.name(row)} begins at {first}"

    series = batch.rows.series[early]
    of_pruned = early[np.isin(series, [one for one in np.unique(series).tolist() if pruned(one)])]
    if len(of_pruned):
        return batch.refuse(
            PrunedValues,
            of_pruned,
            f"observations before the first step that pruning kept: {len(of_pruned)}; the log of "
            f"{begin(int(of_pruned[0]))}",
            detail=lambda row: f"the log of {begin(row)}",
            help="leave them out: a pruned step can be neither compared nor corrected; "
            "GET /v1/series/{unique_id} returns first_ds",
        )
    return batch.refuse(
        LateValues,
        early,
        f"observations before the first one that is stored: {len(early)}",
        detail=begin,
        help="leave them out; to add older history, read all of it into an empty log with "
        "`statecast observe`",
    )


def _continue(
    batch: _Batch,
    ahead: Int[np.ndarray, " ahead"],
    data: DataConfig,
    stored: Callable[[Observations], Observations],
    max_fill: int,
    max_rows: int,
) -> Observations:
    """Return the rows past the end of each series, with gaps filled if the policy says how."""
    rows = batch.rows.take(ahead)
    if not len(rows):
        return rows
    is_first = np.r_[True, rows.series[1:] != rows.series[:-1]]
    before = np.r_[rows.ds[:1], rows.ds[:-1]]
    empty = batch.known.empty[rows.series]
    before[is_first] = np.where(empty, rows.ds, batch.known.last_ds[rows.series])[is_first]
    steps = _count_steps(batch, ahead, before, rows.ds)
    steps[is_first & empty] = 1
    gaps = np.flatnonzero(steps > 1)
    if not len(gaps):
        return rows
    too_long = gaps[steps[gaps] - 1 > max_fill]
    if data.fill == "refuse" or len(too_long):
        refused = gaps if data.fill == "refuse" else too_long
        missing = int((steps[refused] - 1).sum())
        row = refused[0]
        expected = batch.calendar.text(batch.calendar.after(before[row : row + 1], 1)[0, 0])
        raise batch.refuse(
            MissingSteps,
            ahead[refused],
            f"{missing} steps are missing in {len(np.unique(rows.series[refused]))} series: "
            f"expected {expected} first, found {batch.calendar.text(rows.ds[row])}",
            detail=lambda at: f"{batch.name(at)}: steps before {batch.at(at)} are missing",
            help="send the missing steps first or in the same request; a model trained with "
            f'fill = "zero", "forward" or "mask" fills up to {max_fill} steps by itself',
        )
    filled = int((steps[gaps] - 1).sum())
    if filled > max_rows:
        raise batch.refuse(
            RequestTooLarge,
            ahead[gaps],
            f"{filled:,} steps are missing before these observations: at most {max_rows:,} are "
            "filled at once",
            detail=lambda at: f"{batch.name(at)}: steps before {batch.at(at)} are missing",
            help="send fewer series, or fewer gaps, in one request",
        )
    return _fill(batch, rows, before, steps, data.fill, stored)


def _count_steps(
    batch: _Batch,
    ahead: Int[np.ndarray, " ahead"],
    before: Int[np.ndarray, " ahead"],
    stamps: Int[np.ndarray, " ahead"],
) -> Int[np.ndarray, " ahead"]:
    """Return the steps from `before` to `stamps`, and raise if a stamp is off the grid."""
    try:
        return batch.calendar.steps_between(before, stamps)
    except WrongFrequency:
        pass
    off_grid = []
    for row in range(len(stamps)):  # The calendar names one stamp; the error names all of them.
        try:
            batch.calendar.steps_between(before[row : row + 1], stamps[row : row + 1])
        except WrongFrequency:
            off_grid.append(row)
    raise _off_grid(batch, ahead[np.array(off_grid)])


def _off_grid(batch: _Batch, rows: Int[np.ndarray, " off_grid"]) -> Refused:
    return batch.refuse(
        WrongFrequency,
        rows,
        f"{len(rows)} stamps do not continue their series in whole steps of "
        f"freq={batch.calendar.freq!r}",
        detail=lambda row: f"{batch.name(row)}: {batch.at(row)} is not one of its steps",
        help="send stamps that continue the series; GET /v1/series/{unique_id} returns last_ds",
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
    """Return value and covariates of the step before each row; meaningless without a gap there."""
    y, covariates = np.roll(rows.y, 1), np.roll(rows.covariates, 1, axis=0)
    opens = np.r_[True, rows.series[1:] != rows.series[:-1]] & (steps > 1)
    gaps = np.flatnonzero(opens)
    if len(gaps):
        ends = replace(rows.take(gaps), ds=before[gaps])
        values = stored(ends)  # both are ordered by series, one stamp each
        y[gaps], covariates[gaps] = values.y, values.covariates
    return y, covariates

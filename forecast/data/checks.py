"""
Checks of the content of a table: duplicates, frequency, gaps, missing and forbidden values, size.

Each check looks at all series at once and yields at most one error per kind of fault, which names
the first row at fault and counts the others.
"""

from collections.abc import Collection, Iterator

import numpy as np
from jaxtyping import Bool, Float64, Int64

from forecast.calendars.calendar import Calendar
from forecast.calendars.frequency import infer_freq
from forecast.calendars.grid import DAY
from forecast.config import DataConfig, Kind
from forecast.data.locator import quote_some
from forecast.data.long_table import LongTable
from forecast.errors import (
    ConstantSeries,
    DataError,
    DuplicateStamps,
    MissingSteps,
    MissingValues,
    NegativeValues,
    TooShort,
    WrongFrequency,
)

ABOVE_ZERO: tuple[Kind, ...] = ("price", "volatility")
"""Kinds that are learned on the log scale and whose values must be above 0."""
LARGEST = 1e18
"""Largest absolute value accepted; single precision computes with it safely."""


def problems(rows: LongTable, data: DataConfig, calendar: Calendar) -> Iterator[DataError]:
    """
    Yield an error for each kind of fault in the content, the most important first.

    Later checks assume what earlier ones establish: raise the first error, or list them all.
    """
    yield from _check_duplicates(rows, data)
    yield from _check_frequency(rows, calendar)
    yield from _check_gaps(rows, data, calendar)
    yield from _check_missing_values(rows, data)
    yield from _check_kind(rows, data)


def _check_duplicates(rows: LongTable, data: DataConfig) -> Iterator[DataError]:
    repeated = np.r_[False, rows.stamps[1:] == rows.stamps[:-1]] & ~rows.new_series
    if not repeated.any():
        return
    extra = np.flatnonzero(repeated)
    differs = np.zeros(len(extra), bool)
    for values in (rows.y, *rows.covariates.values()):
        later, earlier = values[extra], values[extra - 1]
        differs |= (later != earlier) & ~(np.isnan(later) & np.isnan(earlier))
    keys = f"[{data.id_col!r}, {data.time_col!r}]"
    if not differs.any():
        row = extra[0]
        yield DuplicateStamps(
            f"{rows.name(row)} has {rows.text(row)} twice with equal values: expected one row "
            f"per stamp {rows.extent(extra, unit='repeated row')}",
            where=rows.where(row),
            help=f"drop the repeats: df.drop_duplicates({keys})",
        )
        return
    row = extra[differs][0]
    found = f"{data.target_col}={rows.y[row - 1]:g} and {rows.y[row]:g}"
    if rows.y[row - 1] == rows.y[row]:
        found = f"{found}, with different covariates"
    yield DuplicateStamps(
        f"{rows.name(row)} has {rows.text(row)} twice with conflicting values: expected one "
        f"row per stamp, found {found} {rows.extent(extra[differs], unit='conflicting row')}",
        where=rows.where(row),
        help=f"keep the right one, or add them up: df.groupby({keys}, as_index=False)"
        f"[{data.target_col!r}].sum(); hourly local time repeats an hour each autumn: use UTC",
    )


def _check_frequency(rows: LongTable, calendar: Calendar) -> Iterator[DataError]:
    step, phase, valid = calendar.locate(rows.stamps)
    if not valid.all():
        bad = np.flatnonzero(~valid)
        row = bad[0]
        yield WrongFrequency(
            f"{rows.name(row)} has {rows.text(row)}, which is not a stamp of freq={calendar.freq!r}"
            f"{calendar.neighbours(rows.stamps[row])} {rows.extent(bad)}"
            f"{_looks_like(rows, calendar)}",
            where=rows.where(row),
            help=_frequency_help(rows, calendar)
            + f", or move the stamps to {calendar.freq!r}"
            + _zone_hint(rows.stamps[row], calendar),
        )
        return
    same_series = ~rows.new_series[1:]
    shifted = np.flatnonzero((phase[1:] != phase[:-1]) & same_series) + 1
    if shifted.size:
        row = shifted[0]
        expected = calendar.stamp_at(step[row - 1 : row] + 1, phase[row - 1 : row])[0]
        yield WrongFrequency(
            f"{rows.name(row)} has irregular steps for freq={calendar.freq!r}: after "
            f"{rows.text(row - 1)} expected {calendar.text(expected)}, found {rows.text(row)} "
            f"{rows.extent(shifted, unit='irregular step')}{_looks_like(rows, calendar)}",
            where=rows.where(row),
            help=_frequency_help(rows, calendar)
            + f", or round the stamps to {calendar.freq!r}"
            + _zone_hint(rows.stamps[row], calendar),
        )


def _inferred_freq(rows: LongTable) -> str | int | None:
    try:
        return infer_freq(rows.stamps, rows.new_series, integer=rows.integer)
    except WrongFrequency:
        return None


def _looks_like(rows: LongTable, calendar: Calendar) -> str:
    inferred = _inferred_freq(rows)
    return f"; most stamps look like {inferred!r}" if inferred not in (None, calendar.freq) else ""


def _zone_hint(stamp: np.integer, calendar: Calendar) -> str:
    if calendar.grid.days < 1 or stamp % DAY == 0:
        return ""
    return (
        "; dates with a time zone are converted to UTC: to keep the local dates, drop the zone "
        "first with .dt.tz_localize(None)"
    )


def _frequency_help(rows: LongTable, calendar: Calendar) -> str:
    inferred = _inferred_freq(rows)
    if inferred in (None, calendar.freq):
        return "declare the true frequency"
    value = f'"{inferred}"' if isinstance(inferred, str) else inferred
    return f"declare freq = {value}"


def _check_gaps(rows: LongTable, data: DataConfig, calendar: Calendar) -> Iterator[DataError]:
    step, phase, _ = calendar.locate(rows.stamps)
    jump = np.where(rows.new_series[1:], 0, np.diff(step))
    bad = np.flatnonzero(jump > 1) + 1
    if not bad.size:
        return
    row = bad[0]
    expected = calendar.text(calendar.stamp_at(step[row - 1 : row] + 1, phase[row - 1 : row])[0])
    found = f"after {rows.text(row - 1)} expected {expected}, found {rows.text(row)}"
    inferred = _inferred_freq(rows)
    if inferred not in (None, calendar.freq, "B") and _too_wide(jump[jump > 0], data):
        yield WrongFrequency(
            f"{rows.name(row)} does not advance by freq={calendar.freq!r}: {found} "
            f"{rows.extent(bad, unit='wider step')}{_looks_like(rows, calendar)}",
            where=rows.where(row),
            help=_frequency_help(rows, calendar),
        )
    elif data.fill == "refuse":
        missing = int(jump[row - 1]) - 1
        count = int((jump[jump > 1] - 1).sum())
        yield MissingSteps(
            f"{rows.name(row)} skips {missing:,} step{'s' if missing > 1 else ''} of "
            f"freq={calendar.freq!r}: {found} {rows.extent(bad, count, unit='missing step')}",
            where=rows.where(row),
            help=f'{_exchange_hint(rows, calendar)}no row means nothing sold? fill = "zero"; the '
            'last value still holds? fill = "forward"; not known? fill = "mask", which keeps the '
            "steps but does not learn from them",
        )


def _too_wide(jumps: Int64[np.ndarray, " step"], data: DataConfig) -> bool:
    """Return True if single steps are so rare that the frequency must be wrong."""
    if data.fill == "refuse":
        return len(jumps) > 1 and bool((jumps == 1).mean() < 0.5)
    return len(jumps) > 1 and bool((jumps == 1).mean() < 0.02 and (jumps == jumps[0]).mean() > 0.9)


def _exchange_hint(rows: LongTable, calendar: Calendar) -> str:
    """Return advice for gaps that are weekends or the holidays of an exchange, or an empty text."""
    if calendar.freq not in ("D", "B") or (calendar.freq == "D" and _inferred_freq(rows) != "B"):
        return ""
    sessions = Calendar("XNYS")
    step, _, valid = sessions.locate(rows.stamps)
    complete = (np.diff(step)[~rows.new_series[1:]] == 1).mean() > 0.99
    if valid.mean() > 0.99 and complete:
        return (
            "the stamps are the sessions of the New York Stock Exchange: declare "
            'freq = "XNYS"; otherwise: '
        )
    if calendar.freq == "D":
        return 'no rows at weekends? declare freq = "B", or an exchange such as "XNYS"; '
    return 'holidays of an exchange? declare its calendar, such as freq = "XNYS" or "XLON"; '


def _check_missing_values(rows: LongTable, data: DataConfig) -> Iterator[DataError]:
    allowed = data.fill != "refuse"
    for name, values in ((data.target_col, rows.y), *rows.covariates.items()):
        bad = np.flatnonzero(~(np.abs(values) <= LARGEST))
        if allowed and name == data.target_col:
            bad = bad[~np.isnan(values[bad])]
        if not bad.size:
            continue
        row = bad[0]
        found = "NaN" if np.isnan(values[row]) else f"{values[row]:g}"
        advice = "fill the column first: a covariate must be known at every step"
        if np.isinf(values[row]):
            advice = "correct these rows; were they divided by zero?"
        elif np.isfinite(values[row]):
            advice = "correct these rows, or use a larger unit"
        elif name == data.target_col:
            advice = 'not known? fill = "mask"; nothing sold? fill = "zero"; or correct these rows'
        yield MissingValues(
            f"{rows.name(row)} has {name}={found} at {rows.text(row)}: expected a finite number, "
            f"at most {LARGEST:g} in absolute value {rows.extent(bad)}",
            where=rows.where(row),
            help=advice,
        )


def is_forbidden(y: Float64[np.ndarray, " row"], kind: Kind) -> Bool[np.ndarray, " row"]:
    """
    Return True for each value that the kind does not allow; every kind allows NaN.

    >>> y = np.array([-1.0, 0.0, 2.0])
    >>> [is_forbidden(y, kind).tolist() for kind in ("count", "price")]
    [[True, False, False], [True, True, False]]
    """
    if kind in ("auto", "real"):
        return np.zeros(len(y), bool)
    return np.asarray(y <= 0 if kind in ABOVE_ZERO else y < 0)


def _check_kind(rows: LongTable, data: DataConfig) -> Iterator[DataError]:
    bad = np.flatnonzero(is_forbidden(rows.y, data.kind))
    if not bad.size:
        return
    expected, advice = "0 or more", 'declare kind = "real", or correct returns and reversals first'
    if data.kind in ABOVE_ZERO:
        expected = "values above 0"
        advice = (
            'no trade on that day? leave the value out and set fill = "mask"; may values '
            'be 0 or less? declare kind = "real"'
        )
    yield NegativeValues(
        f"{rows.name(bad[0])} has {data.target_col}={rows.y[bad[0]]:g} at {rows.text(bad[0])}: "
        f"kind={data.kind!r} expects {expected} {rows.extent(bad)}",
        where=rows.where(bad[0]),
        help=advice,
    )


def size_problems(
    rows: LongTable, data: DataConfig, *, to_learn: bool, continued: Collection[str] = ()
) -> Iterator[DataError]:
    """
    Yield an error for series without a value, or else for data that nothing can be learned from.

    Args:
        rows: Sorted rows; before learning, their missing steps have been filled.
        data: Names of the columns.
        to_learn: True if a model will be trained: some series must have two values, and some
            value must change.
        continued: Series that continue a state; they may be empty.
    """
    lengths = np.bincount(rows.series[~np.isnan(rows.y)], minlength=len(rows.names))
    source = str(rows.place.frame.attrs.get("source", ""))
    new = np.array([name not in continued for name in rows.names], bool)
    empty = np.flatnonzero(new & (lengths == 0))
    if len(empty):
        yield TooShort(
            f"series {rows.names[empty[0]]!r} has no row with a value: expected at least 1 "
            f"({len(empty):,} of {len(lengths):,} series: "
            f"{quote_some([rows.names[i] for i in empty.tolist()])})",
            where=source,
            help="leave these series out until they have one",
        )
        return
    if to_learn and lengths.max() < 2:
        yield TooShort(
            f"no series has two rows with a value: expected at least one such series, found "
            f"{len(lengths):,} series of 1 row",
            where=source,
            help="give more history, and check that id_col is not different in every row",
        )
        return
    first = rows.y[rows.starts][rows.series - rows.series[0]] if len(rows.y) else rows.y
    if to_learn and len(rows.y) and (np.isnan(rows.y) | (rows.y == first)).all():
        yield ConstantSeries(
            f"series {rows.names[0]!r} repeats {data.target_col}={first[0]:g} at every stamp, and "
            f"so does each of the {len(lengths):,} series: expected values that change",
            where=rows.where(0),
            help="check that target_col names the right column",
        )

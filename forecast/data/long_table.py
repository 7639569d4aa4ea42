"""A long table as arrays sorted by series and stamp, which can describe their rows in messages."""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float64, Int64

from forecast.calendars.calendar import Calendar, stamp_text
from forecast.config import DataConfig
from forecast.data.columns import need_columns
from forecast.data.locator import Locator, quote_some
from forecast.data.parsing import read_names, read_numbers, read_stamps
from forecast.errors import TooShort, WrongFrequency


@dataclass(frozen=True, slots=True, kw_only=True)
class LongTable:
    """Rows sorted by series and stamp, as arrays."""

    names: tuple[str, ...]
    """Names of the series, sorted."""
    series: Int64[np.ndarray, " row"]
    """Index into `names`."""
    stamps: Int64[np.ndarray, " row"]
    """Nanoseconds since the epoch (naive UTC), or the integer step."""
    y: Float64[np.ndarray, " row"]
    covariates: dict[str, Float64[np.ndarray, " row"]]
    origin: Int64[np.ndarray, " row"]
    """Position of the row in the table that was read."""
    integer: bool
    """True if stamps are integer steps instead of dates."""
    place: Locator

    @property
    def new_series(self) -> Bool[np.ndarray, " row"]:
        """True on the first row of each series."""
        changed: Bool[np.ndarray, " row"] = np.ones(len(self.series), bool)
        changed[1:] = self.series[1:] != self.series[:-1]
        return changed

    @property
    def starts(self) -> Int64[np.ndarray, " series"]:
        """First row of each series that has rows."""
        return np.flatnonzero(self.new_series)

    def take(self, rows: Int64[np.ndarray, " kept"] | Bool[np.ndarray, " row"]) -> "LongTable":
        """Return only these rows, in this order."""
        return replace(
            self,
            series=self.series[rows],
            stamps=self.stamps[rows],
            y=self.y[rows],
            covariates={name: values[rows] for name, values in self.covariates.items()},
            origin=self.origin[rows],
        )

    def text(self, row: int | np.integer) -> str:
        """Return the stamp of a row as text."""
        stamp = self.stamps[int(row)]
        return str(stamp) if self.integer else stamp_text(stamp)

    def name(self, row: int | np.integer) -> str:
        """Return the quoted name of the series of a row, as a message begins."""
        return f"series {self.names[self.series[int(row)]]!r}"

    def where(self, row: int | np.integer) -> str:
        """Return the file and line of a row, or its position in the table."""
        return self.place.where(self.origin[int(row)])

    def extent(
        self, rows: Int64[np.ndarray, " bad"], count: int | None = None, unit: str = "row"
    ) -> str:
        """Say that `count` units in how many series are at fault, and name the first few series."""
        bad = np.unique(self.series[rows])
        count = len(rows) if count is None else count
        plural = unit if count == 1 else f"{unit}s"
        shown = quote_some([self.names[i] for i in bad[:3].tolist()])
        more = f" and {len(bad) - 3:,} more" if len(bad) > 3 else ""
        total = len(np.unique(self.series[self.new_series]))
        return f"({count:,} {plural} in {len(bad):,} of {total:,} series: {shown}{more})"


def read_long_table(frame: pd.DataFrame, data: DataConfig) -> LongTable:
    """
    Read the columns that have a role and sort them by series and stamp.

    Raises:
        MissingColumns, WrongType, BadStamps, TooShort: The table cannot be read as series.
    """
    need_columns(frame, data, ("id_col", "time_col", "target_col", "known_future", "past_only"))
    source = str(frame.attrs.get("source", ""))
    if frame.empty:
        raise TooShort(
            "the table has no rows: expected at least one for each series",
            where=source,
            help="check the file or the query it came from",
        )
    place = Locator(frame, data.id_col)
    series, names = read_names(frame[data.id_col], place)
    declared = data.freq is not None and Calendar(data.freq).is_integer
    stamps, integer = read_stamps(frame[data.time_col], place, wants_integers=declared)
    if data.freq is not None and declared != integer:
        found, hint = ("integers", "1") if integer else ("dates", '"D", "W-MON", "MS"')
        raise WrongFrequency(
            f"freq={data.freq!r} expects {'integers' if declared else 'dates'} in "
            f"{data.time_col!r}: found {found} such as {frame[data.time_col].iloc[0]}",
            where=source,
            help=f"declare freq = {hint}, or convert the column",
        )
    rows = LongTable(
        names=names,
        series=series,
        stamps=stamps,
        y=read_numbers(frame[data.target_col], place, "target_col"),
        covariates={
            name: read_numbers(frame[name], place, role)
            for role in ("past_only", "known_future")
            for name in getattr(data, role)
        },
        origin=np.arange(len(frame)),
        integer=integer,
        place=place,
    )
    in_order = (series[1:] > series[:-1]) | (
        (series[1:] == series[:-1]) & (stamps[1:] >= stamps[:-1])
    )
    return rows if in_order.all() else rows.take(_order(series, stamps))


def _order(
    series: Int64[np.ndarray, " row"], stamps: Int64[np.ndarray, " row"]
) -> Int64[np.ndarray, " row"]:
    """
    Return the rows sorted by series and stamp.

    Where series and stamp fit into one key of 63 bits, one stable sort of the key is faster.
    """
    if int(stamps.max()) - int(stamps.min()) >= 1 << 63:  # more than 292 years of nanoseconds
        return np.lexsort((stamps, series))
    since = stamps - stamps.min()
    unit = max(int(np.gcd.reduce(since)), 1)
    span = int(since.max()) // unit + 1
    if span * (int(series.max()) + 1) >= 1 << 63:
        return np.lexsort((stamps, series))
    return np.argsort(series * span + since // unit, kind="stable")

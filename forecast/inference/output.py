"""Forecast arrays as tables in the form that the user's own table has: lo-80, hi-80, ql0.9."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from forecast.calendars.calendar import Calendar
from forecast.config import DataConfig
from forecast.data.io import read_table, to_native
from forecast.errors import UnknownQuantile

MODEL = "statecast"
"""Name of the forecast column in every table of forecasts, and prefix of its intervals."""
_INTEGER = r"0|-?[1-9]\d{0,17}"
"""Names that stay the same when read as a 64-bit integer and written again."""


def as_numbers(values: float | int | Sequence[float | int] | None) -> tuple[float | int, ...]:
    """
    Return levels or quantiles as a tuple, whether given as one number, several or None.

    >>> as_numbers(80), as_numbers([80, 95]), as_numbers(None)
    ((80,), (80, 95), ())
    """
    return () if values is None else tuple(np.atleast_1d(values).tolist())


def level_quantiles(levels: Sequence[float | int]) -> tuple[float, ...]:
    """
    Return the lower and upper quantile of each central interval.

    Raises:
        UnknownQuantile: A level is below 1: a fraction was given where a percentage belongs.

    >>> level_quantiles([80])
    (0.1, 0.9)
    """
    for level in levels:
        if level < 1:
            raise UnknownQuantile(
                f"level={level:g} is not possible: expected percent, such as 80",
                help=f"ask for {100 * level:g}" if level > 0 else "ask for 1 to 99",
            )
    return tuple(round(0.5 + side * level / 200, 9) for level in levels for side in (-1, 1))


def forecast_frame(
    ids: Sequence[str],
    ds: Int[np.ndarray, "series horizon"],
    outputs: Float[np.ndarray, "series horizon output"],
    levels: Sequence[float | int],
    calendar: Calendar,
    *,
    quantiles: Sequence[float | int] = (),
) -> pd.DataFrame:
    """
    Return forecasts as a long frame.

    Args:
        ids: Names of the series.
        ds: Stamp of each forecast step.
        outputs: The point forecast, then two quantiles a level, then one a quantile.
        levels: Central intervals in percent.
        calendar: The calendar of the stamps.
        quantiles: Fractions.

    Returns:
        `unique_id`, `ds`, `statecast`, then `statecast-lo-80` and `statecast-hi-80` for each level
        and `statecast_ql0.9` for each quantile.
    """
    columns = {
        "unique_id": np.repeat(np.asarray(ids, dtype=object), ds.shape[1]),
        "ds": as_stamps(ds.ravel(), calendar),
    }
    names = [MODEL]
    names += [f"{MODEL}-{end}-{level:g}" for level in levels for end in ("lo", "hi")]
    names += [f"{MODEL}_ql{quantile:g}" for quantile in quantiles]
    for i, name in enumerate(names):
        columns[name] = outputs[..., i].ravel()
    return pd.DataFrame(columns)


def sample_frame(
    ids: Sequence[str],
    ds: Int[np.ndarray, "series horizon"],
    paths: Float[np.ndarray, "series path horizon"],
    calendar: Calendar,
) -> pd.DataFrame:
    """Return sample paths as a long frame: `unique_id`, `sample` (from 0), `ds`, `statecast`."""
    series, number, horizon = paths.shape
    return pd.DataFrame(
        {
            "unique_id": np.repeat(np.asarray(ids, dtype=object), number * horizon),
            "sample": np.tile(np.repeat(np.arange(number), horizon), series),
            "ds": as_stamps(np.repeat(ds[:, None], number, axis=1).ravel(), calendar),
            MODEL: paths.ravel(),
        }
    )


def as_stamps(stamps: Int[np.ndarray, " n"], calendar: Calendar) -> np.ndarray:
    """Return stamps as users see them: datetimes, or integers where the calendar counts steps."""
    return stamps if calendar.is_integer else stamps.astype("datetime64[ns]")


@dataclass(frozen=True, slots=True)
class TableForm:
    """The form of a user's table, in which forecasts for it are returned."""

    table: Any
    """A table of the library that forecasts are returned in."""
    integer_ids: bool
    """True if the names of the series are integers."""

    @classmethod
    def of(cls, table: Any, data: DataConfig) -> "TableForm":
        """Return the form of `table`, whose columns `data` names."""
        ids = read_table(table, data=data)[data.id_col]
        return cls(table, pd.api.types.is_integer_dtype(ids))

    def apply(self, frame: pd.DataFrame, data: DataConfig) -> Any:
        """
        Return a frame of forecasts in this form, with the column names of `data`.

        Names of series become integers again only if all of them are: a series that was observed
        later may have a name in letters.
        """
        if self.integer_ids and frame["unique_id"].astype(str).str.fullmatch(_INTEGER).all():
            frame["unique_id"] = frame["unique_id"].astype(np.int64)
        names = {"unique_id": data.id_col, "ds": data.time_col, "y": data.target_col}
        return to_native(frame.rename(columns=names), self.table)

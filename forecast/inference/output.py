"""Forecast arrays as a long table: lo-80, hi-80, ql0.9."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from forecast.calendars.calendar import Calendar
from forecast.errors import UnknownQuantile

MODEL = "statecast"
"""Name of our columns in every table of forecasts."""


def as_numbers(asked: float | int | Sequence[float | int] | None) -> tuple[float | int, ...]:
    """
    One number, several, or none, as levels and quantiles are asked for.

    >>> as_numbers(80), as_numbers([80, 95]), as_numbers(None)
    ((80,), (80, 95), ())
    """
    return () if asked is None else tuple(np.atleast_1d(asked).tolist())


def level_quantiles(levels: Sequence[float | int]) -> tuple[float, ...]:
    """
    Lower and upper quantile of each central interval.

    Raises:
        UnknownQuantile: A level is no percentage.

    >>> level_quantiles([80])
    (0.1, 0.9)
    """
    for level in levels:
        if level < 1:
            raise UnknownQuantile(
                f"a level of {level:g} was asked: expected percent, such as 80",
                help=f"ask for {100 * level:g}" if level > 0 else "ask for 1 to 99",
            )
    return tuple(round(0.5 + side * level / 200, 9) for level in levels for side in (-1, 1))


def forecast_frame(
    ids: Sequence[str],
    ds: Int[np.ndarray, "series horizon"],
    outputs: Float[np.ndarray, "series horizon output"],
    levels: Sequence[float | int],
    calendar: Calendar,
) -> pd.DataFrame:
    """Forecasts as a long frame: unique_id, ds, statecast, and two columns a level."""
    columns = {
        "unique_id": np.repeat(np.asarray(ids, dtype=object), ds.shape[1]),
        "ds": as_stamps(ds.ravel(), calendar),
        MODEL: outputs[..., 0].ravel(),
    }
    for i, level in enumerate(levels):
        for side, name in enumerate(("lo", "hi")):
            columns[f"{MODEL}-{name}-{level:g}"] = outputs[..., 1 + 2 * i + side].ravel()
    return pd.DataFrame(columns)


def as_stamps(stamps: Int[np.ndarray, " n"], calendar: Calendar) -> np.ndarray:
    """Stamps as users see them: datetimes, or the integers they are."""
    return stamps if calendar.is_integer else stamps.astype("datetime64[ns]")

"""Rolling origins in one pass: the state rolls on from cutoff to cutoff, nothing is read twice."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from forecast.bundle import Bundle
from forecast.calendars import Calendar
from forecast.errors import UnknownQuantile
from forecast.panel import Panel
from forecast.splits import cutoff_lengths
from forecast.streaming import forecast, observe, warm_up

MODEL = "statecast"
"""Name of our columns in every table of forecasts."""


def backtest(
    bundle: Bundle,
    panel: Panel,
    *,
    horizon: int,
    n_windows: int,
    step_size: int,
    levels: Sequence[float | int] = (80, 95),
) -> pd.DataFrame:
    """
    Forecast the panel from `n_windows` cutoffs with the bundle's weights as they are.

    Whether the weights have seen the targets is the caller's doing: train on
    `splits.history(...)` for an honest score.

    Args:
        bundle: The model.
        panel: All observations, the last `horizon` steps of each series being the last targets.
        horizon: Steps ahead, at most what the model learned.
        n_windows: How many cutoffs.
        step_size: Steps from one cutoff to the next.
        levels: Central intervals to add, in percent.

    Returns:
        Columns unique_id, ds, cutoff, y, statecast, statecast-lo-80, statecast-hi-80, ...

    Raises:
        TooShort: A series has nothing before its first cutoff.
    """
    known = cutoff_lengths(panel, horizon=horizon, n_windows=n_windows, step_size=step_size)
    states = warm_up(bundle, panel.head(known[0]))
    frames = []
    for window, lengths in enumerate(known):
        if window:
            states = observe(bundle, states, panel.head(lengths).tail(known[window - 1]))
        target = panel.indptr[:-1, None] + lengths[:, None] + np.arange(horizon)
        outputs = forecast(
            bundle, states, horizon=horizon, quantiles=level_quantiles(levels),
            known_future=panel.known_future[target],
        )  # fmt: skip
        frame = forecast_frame(panel.ids, panel.ds[target], outputs, levels, bundle.calendar)
        cutoff = as_stamps(np.repeat(states.last_ds, horizon), bundle.calendar)
        y = np.where(panel.observed[target], panel.values[target], np.nan).ravel()
        frame.insert(2, "cutoff", cutoff)
        frame.insert(3, "y", y)
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


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

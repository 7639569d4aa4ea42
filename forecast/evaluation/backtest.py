"""Rolling origins in one pass: the state rolls on from cutoff to cutoff, nothing is read twice."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from forecast.bundle import Bundle
from forecast.data.panel import Panel
from forecast.data.splits import cutoff_lengths
from forecast.inference.forecasting import forecast
from forecast.inference.observing import observe, warm_up
from forecast.inference.output import as_stamps, forecast_frame, level_quantiles


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
            bundle,
            states,
            horizon=horizon,
            quantiles=level_quantiles(levels),
            known_future=panel.known_future[target],
        )
        frame = forecast_frame(panel.ids, panel.ds[target], outputs, levels, bundle.calendar)
        cutoff = as_stamps(np.repeat(states.last_ds, horizon), bundle.calendar)
        y = np.where(panel.observed[target], panel.values[target], np.nan).ravel()
        frame.insert(2, "cutoff", cutoff)
        frame.insert(3, "y", y)
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)

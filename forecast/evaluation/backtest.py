"""Backtests from rolling origins: each state moves on from cutoff to cutoff, in one pass."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from forecast.bundle import Bundle
from forecast.config import Config
from forecast.data.panel import Panel
from forecast.data.splits import cutoff_lengths
from forecast.inference.forecasting import forecast
from forecast.inference.observing import observe, warm_up
from forecast.inference.output import as_stamps, forecast_frame, level_quantiles
from forecast.training.progress import TrainEvent
from forecast.training.train import train


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
    Forecast a panel from `n_windows` cutoffs, with the weights of the bundle as they are.

    For an honest score, the caller gives a bundle whose weights have not seen the targets: one
    trained on `splits.history(...)`.

    Args:
        bundle: The model.
        panel: All observations; the last `horizon` steps of each series are its last targets.
        horizon: Steps ahead, at most ten times what the model learned.
        n_windows: Number of cutoffs.
        step_size: Steps from one cutoff to the next.
        levels: Central intervals in percent.

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


def train_and_backtest(
    panel: Panel,
    config: Config,
    *,
    horizon: int,
    n_windows: int,
    step_size: int,
    levels: Sequence[float | int] = (),
    refit: bool = False,
    on_event: Callable[[TrainEvent], None] | None = None,
) -> pd.DataFrame:
    """
    Train on what precedes the first cutoff, then backtest on the rest of the panel.

    Args:
        panel: All observations.
        config: The recipe, with `data.freq` and `data.kind` set.
        horizon: Steps ahead.
        n_windows: Number of cutoffs.
        step_size: Steps from one cutoff to the next.
        levels: Central intervals in percent.
        refit: Train a new model for each cutoff, on what precedes it.
        on_event: Called with a progress report about a hundred times a training.

    Returns:
        The columns of `backtest`.

    Raises:
        TooShort: A series has nothing before its first cutoff.
    """
    known = cutoff_lengths(panel, horizon=horizon, n_windows=n_windows, step_size=step_size)
    frames = []
    for i, lengths in enumerate(known if refit else known[:1]):
        bundle = train(panel.head(lengths), config, on_event=on_event).bundle
        frames.append(
            backtest(
                bundle,
                panel.head(known[i if refit else -1] + horizon),
                horizon=horizon,
                n_windows=1 if refit else n_windows,
                step_size=step_size,
                levels=levels,
            )
        )
    return pd.concat(frames, ignore_index=True)

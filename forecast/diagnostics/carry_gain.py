"""Measure how much accuracy a model gains by carrying its state from chunk to chunk."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from jaxtyping import Int

from forecast.bundle import Bundle
from forecast.config import Config
from forecast.data.panel import Panel
from forecast.data.splits import cutoff_lengths, history
from forecast.evaluation import metrics
from forecast.inference.forecasting import forecast
from forecast.inference.observing import observe, warm_up
from forecast.inference.output import as_stamps
from forecast.inference.states import States
from forecast.training.train import train

CARRIED, RESET = "carried", "reset"
"""Columns of forecasts whose state is carried throughout, or dropped where a chunk begins."""
WINDOWED = "windowed"
"""Column of a model trained without carried state, which reads a window for each forecast."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CarryGain:
    """Forecasts with and without carried state, at the same cutoffs of the same series."""

    cv: pd.DataFrame
    """`unique_id`, `ds`, `cutoff`, `y`, and one column for each way to keep the state."""
    scores: pd.DataFrame
    """`way`, `mase`, `wape`, and `gain`: the share by which the MASE of `carried` is lower."""
    chunk_length: int
    """Steps between two resets of the state."""


def carry_gain(
    bundle: Bundle,
    panel: Panel,
    *,
    n_windows: int = 8,
    step_size: int = 1,
    horizon: int | None = None,
    chunk_length: int | None = None,
) -> CarryGain:
    """
    Backtest one model with its state carried, and with the network's state reset at each chunk.

    Only the network's state is reset; its filters (running level, seasonal lags) go on in both.
    Cutoffs one step apart fall on every position in a chunk, so the reset state has every age that
    occurs in use.

    Args:
        bundle: The model; for an honest score its weights have not seen the targets.
        panel: All observations; the last `horizon` steps are the last targets.
        n_windows: Number of cutoffs.
        step_size: Steps from one cutoff to the next.
        horizon: Steps ahead; None takes the trained horizon.
        chunk_length: Steps between two resets; None takes the chunk length of the training.

    Raises:
        TooShort: A series has nothing before its first cutoff.

    References:
        Katrompas & Metsis, Enhancing LSTM models with self-attention and stateful training,
        IntelliSys 2021 (stateful and stateless LSTM on the same data).
    """
    horizon = bundle.horizon if horizon is None else horizon
    chunk = chunk_length or bundle.config.train.chunk_length
    known = cutoff_lengths(panel, horizon=horizon, n_windows=n_windows, step_size=step_size)
    parts = []
    for lengths in known:
        ways = {
            CARRIED: warm_up(bundle, panel.head(lengths)),
            RESET: reset_before(bundle, panel, lengths, (lengths - 1) // chunk * chunk),
        }
        parts.append(
            _table({way: (bundle, states) for way, states in ways.items()}, panel, lengths, horizon)
        )
    return _scored(pd.concat(parts, ignore_index=True), panel, bundle, chunk)


def train_both_ways(
    panel: Panel,
    config: Config,
    *,
    n_windows: int = 4,
    step_size: int | None = None,
    horizon: int | None = None,
) -> CarryGain:
    """
    Train one recipe with and without carried state, and score both at the same cutoffs.

    Both models learn from what precedes the first cutoff. Without carried state the window is
    `model.window` or, if that is not set, one chunk of the training; filters go on in both.

    Args:
        panel: All observations.
        config: The recipe, with `data.freq` and `data.kind` set; `train.stateful` is set here, and
            `model.window` is unset for the model with carried state.
        n_windows: Number of cutoffs.
        step_size: Steps from one cutoff to the next; None takes the horizon.
        horizon: Steps ahead; None takes the horizon of `config`.

    Raises:
        TooShort: A series has nothing before its first cutoff.
    """
    horizon = horizon or config.model.horizon
    assert horizon is not None, "the horizon decides the cutoffs: set it"
    config = replace(config, model=replace(config.model, horizon=horizon))
    settings = {"horizon": horizon, "n_windows": n_windows, "step_size": step_size or horizon}
    seen = history(panel, **settings)
    with_state = replace(
        config,
        model=replace(config.model, window=None, bidirectional=False),
        train=replace(config.train, stateful=True, stride=None, shuffle="series"),
    )
    without = replace(config, train=replace(config.train, stateful=False))
    bundles = {CARRIED: train(seen, with_state).bundle, WINDOWED: train(seen, without).bundle}
    parts = []
    for lengths in cutoff_lengths(panel, **settings):
        known = panel.head(lengths)
        ways = {way: (bundle, warm_up(bundle, known)) for way, bundle in bundles.items()}
        parts.append(_table(ways, panel, lengths, horizon))
    chunk = bundles[CARRIED].config.train.chunk_length
    return _scored(pd.concat(parts, ignore_index=True), panel, bundles[CARRIED], chunk)


def reset_before(
    bundle: Bundle,
    panel: Panel,
    lengths: Int[np.ndarray, " series"],
    begins: Int[np.ndarray, " series"],
) -> States:
    """Return states after `lengths` steps, with the network's state reset at step `begins`."""
    states = warm_up(bundle, panel.head(begins))
    states = replace(states, hidden=0 * states.hidden, cell=0 * states.cell)
    return observe(bundle, states, panel.head(lengths).tail(begins))


def panel_frame(panel: Panel, bundle: Bundle) -> pd.DataFrame:
    """Return the panel as a long frame: `unique_id`, `ds`, `y` (NaN where not observed)."""
    return pd.DataFrame(
        {
            "unique_id": np.repeat(np.asarray(panel.ids, dtype=object), panel.lengths),
            "ds": as_stamps(panel.ds, bundle.calendar),
            "y": np.where(panel.observed, panel.values, np.nan),
        }
    )


def _table(
    ways: Mapping[str, tuple[Bundle, States]],
    panel: Panel,
    lengths: Int[np.ndarray, " series"],
    horizon: int,
) -> pd.DataFrame:
    """Return the forecasts of each way from one cutoff."""
    target = panel.indptr[:-1, None] + lengths[:, None] + np.arange(horizon)
    calendar = next(iter(ways.values()))[0].calendar
    last = panel.ds[panel.indptr[:-1] + lengths - 1]
    columns = {
        "unique_id": np.repeat(np.asarray(panel.ids, dtype=object), horizon),
        "ds": as_stamps(panel.ds[target].ravel(), calendar),
        "cutoff": as_stamps(np.repeat(last, horizon), calendar),
        "y": np.where(panel.observed[target], panel.values[target], np.nan).ravel(),
    }
    for way, (bundle, states) in ways.items():
        known = panel.known_future[target]
        outputs = forecast(bundle, states, horizon=horizon, known_future=known)
        columns[way] = outputs[..., 0].ravel()
    return pd.DataFrame(columns)


def _scored(cv: pd.DataFrame, panel: Panel, bundle: Bundle, chunk_length: int) -> CarryGain:
    season = (bundle.config.data.season_lengths or (1,))[0]
    table = metrics.evaluate(cv, panel_frame(panel, bundle), season_length=season)
    wide = table.pivot(index="model", columns="metric", values="value")
    ways = [name for name in cv.columns[4:] if name in wide.index]
    scores = wide.loc[ways, ["mase", "wape"]].rename_axis(index="way", columns=None).reset_index()
    scores["gain"] = 1 - scores["mase"].iloc[0] / scores["mase"]
    return CarryGain(cv=cv, scores=scores, chunk_length=chunk_length)

"""What carrying the state from chunk to chunk is worth, in accuracy."""

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
"""Columns: the state goes on from the first step; it is dropped at each chunk's first step."""
WINDOWED = "windowed"
"""Column of weights trained without carried state, which read the last window anew each time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CarryGain:
    """One forecast a way of keeping the state, at the same cutoffs of the same series."""

    cv: pd.DataFrame
    """`unique_id`, `ds`, `cutoff`, `y`, one column a way."""
    scores: pd.DataFrame
    """`way`, `mase`, `wape`, and `gain`: by how much `carried` has less MASE than this way."""
    chunk_length: int


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
    The same weights with the state carried, and with the network's state dropped at each chunk.

    Only the network forgets: its filters (running level, seasonal lags) go on in both. Cutoffs
    one step apart fall anywhere in a chunk, so that the reset state is as old as it would be.

    Args:
        bundle: The model; give weights that have not seen the targets.
        panel: All observations; the last `horizon` steps are the last targets.
        n_windows: How many cutoffs.
        step_size: Steps from one to the next.
        horizon: Steps ahead; None takes all the model has learned.
        chunk_length: Steps between two resets; None takes that of the training.

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
    The same recipe trained with and without carried state, scored at the same cutoffs.

    Both learn from what precedes the first cutoff. Without carried state the window is that of
    `model.window`, else one chunk of the training; filters run on in both.

    Args:
        panel: All observations.
        config: The recipe; `train.stateful` and `model.window` of the carried way are set here,
            `data.freq` and `data.kind` are known.
        n_windows: How many cutoffs.
        step_size: Steps from one to the next; None is the horizon.
        horizon: Steps ahead; None takes that of the model.

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
    """States after `lengths` steps, of which the network remembers those from `begins` on."""
    states = warm_up(bundle, panel.head(begins))
    states = replace(states, hidden=0 * states.hidden, cell=0 * states.cell)
    return observe(bundle, states, panel.head(lengths).tail(begins))


def panel_frame(panel: Panel, bundle: Bundle) -> pd.DataFrame:
    """The panel as a long frame: `unique_id`, `ds`, `y` (NaN where not observed)."""
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
    """Forecasts of each way from one cutoff."""
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
        made = forecast(bundle, states, horizon=horizon, known_future=panel.known_future[target])
        columns[way] = made[..., 0].ravel()
    return pd.DataFrame(columns)


def _scored(cv: pd.DataFrame, panel: Panel, bundle: Bundle, chunk_length: int) -> CarryGain:
    season = (bundle.config.data.season_lengths or (1,))[0]
    found = metrics.evaluate(cv, panel_frame(panel, bundle), season_length=season)
    wide = found.pivot(index="model", columns="metric", values="value")
    ways = [name for name in cv.columns[4:] if name in wide.index]
    scores = wide.loc[ways, ["mase", "wape"]].rename_axis(index="way", columns=None).reset_index()
    scores["gain"] = 1 - scores["mase"].iloc[0] / scores["mase"]
    return CarryGain(cv=cv, scores=scores, chunk_length=chunk_length)

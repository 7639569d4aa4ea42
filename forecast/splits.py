"""Cutoffs and rolling origins: the only module that decides what may be known when."""

import numpy as np
from jaxtyping import Int

from forecast.errors import TooShort
from forecast.panel import Panel


def cutoff_lengths(
    panel: Panel, *, horizon: int, n_windows: int, step_size: int
) -> Int[np.ndarray, "window series"]:
    """
    How many steps of each series are known at each cutoff, first cutoff first.

    The last cutoff leaves exactly `horizon` steps; each earlier one is `step_size` steps before.

    Raises:
        TooShort: A series has nothing left before its first cutoff.
    """
    back = horizon + step_size * np.arange(n_windows - 1, -1, -1)
    known = panel.lengths[None, :] - back[:, None]
    short = np.flatnonzero(known[0] < 1)
    if len(short):
        worst = short[0]
        raise TooShort(
            f"{len(short)} of {panel.num_series} series have nothing before the first cutoff: "
            f"{n_windows} windows of {horizon} steps, {step_size} apart, need more than "
            f"{int(back[0])} steps",
            where=f"series '{panel.ids[worst]}' with {int(panel.lengths[worst])} steps",
            help="ask for fewer windows or a shorter horizon, or leave those series out",
        )
    return known


def history(panel: Panel, *, horizon: int, n_windows: int, step_size: int) -> Panel:
    """What training may see before a backtest: everything up to the first cutoff."""
    known = cutoff_lengths(panel, horizon=horizon, n_windows=n_windows, step_size=step_size)
    return panel.head(known[0])

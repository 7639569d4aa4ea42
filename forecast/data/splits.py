"""Cutoffs of a backtest with rolling origins: only this module decides what may be known when."""

import numpy as np
from jaxtyping import Int

from forecast.config import Kind
from forecast.data.checks import is_forbidden
from forecast.data.panel import Panel
from forecast.data.validation import detect_kind
from forecast.errors import ConfigError, NegativeValues, TooShort


def cutoff_lengths(
    panel: Panel, *, horizon: int, n_windows: int, step_size: int
) -> Int[np.ndarray, "window series"]:
    """
    Return the number of steps of each series that are known at each cutoff, first cutoff first.

    The last cutoff leaves exactly `horizon` steps; each earlier one lies `step_size` steps before.

    Raises:
        TooShort: A series has no step before its first cutoff.
        ConfigError: `n_windows` or `step_size` is below 1.
    """
    if n_windows < 1 or step_size < 1:
        raise ConfigError(
            f"n_windows={n_windows} and step_size={step_size} must both be at least 1"
        )
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
    """Return what training may see before a backtest: every series up to its first cutoff."""
    known = cutoff_lengths(panel, horizon=horizon, n_windows=n_windows, step_size=step_size)
    return panel.head(known[0])


def kind_before(panel: Panel, known: Int[np.ndarray, " series"]) -> Kind:
    """
    Detect the kind of the values from the `known[i]` steps before each series' cutoff alone.

    Raises:
        NegativeValues: A value after the cutoff cannot be of that kind.
    """
    past = panel.head(known)
    kind = detect_kind(past.values[past.observed])
    later = panel.tail(known)
    bad = np.flatnonzero(is_forbidden(later.values, kind) & later.observed)
    if len(bad):
        series = int(np.searchsorted(later.indptr, bad[0], side="right")) - 1
        raise NegativeValues(
            f"the values before the first cutoff are of kind={kind!r}, which expects 0 or more: "
            f"found {later.values[bad[0]]:g} after it ({len(bad):,} such values)",
            where=f"series {later.ids[series]!r}",
            help='declare kind = "real"',
        )
    return kind

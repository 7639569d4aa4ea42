"""Measure how far back a forecast depends on the past, by changing one past value at a time."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from forecast.bundle import Bundle
from forecast.data.panel import Panel
from forecast.errors import TooShort
from forecast.inference.forecasting import forecast
from forecast.inference.observing import warm_up
from forecast.inference.states import States

NEGLIGIBLE = 0.01
"""A step is forgotten if the forecast depends on it less than this share of the last step's."""
ROUNDING = 1e-6
"""Dependence that rounding in single precision explains."""
MAX_STEPS = 400_000
"""Most steps read in one batch; it limits the memory used and changes no result."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryProfile:
    """Dependence of the forecast on each past step, and how far it reaches."""

    table: pd.DataFrame
    """
    `lag` (steps before the cutoff), `series` (number of series that long), and the dependence:
    mean absolute change of the forecast over horizon and series, per unit of change of the value.
    `total` is that of the whole model, `filters` with the network's state unchanged, `network`
    with the filters unchanged. `share` is `total` divided by its value at lag 0.
    """
    reach: int | None
    """First lag from which `total` stays below 1 % of its value at lag 0; None if there is none."""
    network_reach: int | None
    """First lag from which `network` stays below 1 % of its value at lag 0."""
    horizon: int
    num_series: int


def memory_profile(
    bundle: Bundle,
    panel: Panel,
    *,
    horizon: int | None = None,
    lags: Sequence[int] | None = None,
    size: float = 1.0,
    num_series: int = 16,
) -> MemoryProfile:
    """
    Measure how much the forecast changes when one past value changes, lag by lag.

    The longest series are measured, from a cutoff `horizon` steps before their end, where
    known-future covariates are available. A value is raised by `size` units of its series: the
    mean absolute seasonal difference, or 1 % of the mean absolute value if that is larger. All
    changed copies of the series are then read in batches.

    `filters` and `network` do not add up to `total` exactly, since the correction of the network
    depends on both. The embedding of the last step counts as filters: it is no memory.

    Args:
        bundle: The model.
        panel: Series to measure on.
        horizon: Steps ahead to average over; None takes the trained horizon.
        lags: Steps before the cutoff, from 0; None takes 0 and about 8 lags for each factor of
            ten, evenly on the log scale, up to the length of the longest series.
        size: Size of the change, in units of each series.
        num_series: Most series to measure on.

    Raises:
        TooShort: No series has two steps before the cutoff.

    References:
        Khandelwal et al., Sharp nearby, fuzzy far away: how neural language models use context,
        ACL 2018 (perturbing the context to find how much of it is used).
    """
    horizon = bundle.horizon if horizon is None else horizon
    known = panel.lengths - horizon
    rows = np.argsort(-known, kind="stable")[:num_series]
    rows = rows[known[rows] >= 2]
    if not len(rows):
        raise TooShort(
            f"no series has two steps before its last {horizon}",
            help="give longer series, or a shorter horizon",
        )
    part = panel.take(rows)
    history = part.head(known[rows])
    ahead = part.indptr[:-1, None] + history.lengths[:, None] + np.arange(horizon)
    future = part.known_future[ahead]
    unit = series_units(history, (bundle.config.data.season_lengths or (1,))[0])
    steps = _log_spaced(int(history.lengths.max())) if lags is None else sorted({0, *lags})

    base = warm_up(bundle, history)
    before = forecast(bundle, base, horizon=horizon, known_future=future)[..., 0]
    dependence = np.full((len(steps), len(rows), 3), np.nan)
    pairs = [
        (i, row)
        for i, lag in enumerate(steps)
        for row in np.flatnonzero(history.lengths > lag)
        if history.observed[history.indptr[row + 1] - 1 - lag]
    ]
    batch = max(1, MAX_STEPS // int(history.lengths.max()))
    for begin in range(0, len(pairs), batch):
        i, series = np.array(pairs[begin : begin + batch], np.int64).T
        lag = np.array(steps, np.int64)[i]
        changed = warm_up(bundle, _raise_values(history, series, lag, size * unit[series]))
        for j, states in enumerate(_mix_states(base.take(series), changed)):
            after = forecast(bundle, states, horizon=horizon, known_future=future[series])[..., 0]
            change = np.abs(after - before[series]).mean(1)
            dependence[i, series, j] = change / (size * unit[series])
    count = np.isfinite(dependence[..., 0]).sum(1)
    means = np.nansum(dependence, axis=1) / np.maximum(count, 1)[:, None]
    table = pd.DataFrame({"lag": steps, "series": count})
    table[["total", "filters", "network"]] = means
    table = table[table["series"] > 0].reset_index(drop=True)
    first = float(table["total"].iloc[0])
    table["share"] = table["total"] / first if first > 0 else np.nan
    return MemoryProfile(
        table=table,
        reach=_reach(table["lag"], table["total"]),
        network_reach=_reach(table["lag"], table["network"]),
        horizon=horizon,
        num_series=len(rows),
    )


def series_units(panel: Panel, season_length: int) -> Float[np.ndarray, " series"]:
    """
    Return the mean absolute seasonal difference, at least 1 % of the mean absolute value.

    Steps without a value are left out. A series without values, or with zeros alone, has unit 1.
    """
    units = np.ones(panel.num_series)
    for i, (begin, end) in enumerate(zip(panel.indptr[:-1], panel.indptr[1:], strict=True)):
        y = np.where(panel.observed[begin:end], panel.values[begin:end], np.nan)
        change = np.abs(y[season_length:] - y[:-season_length])
        change = change[np.isfinite(change)]
        size = np.abs(y[np.isfinite(y)])
        unit = max(change.mean() if len(change) else 0.0, 0.01 * size.mean() if len(size) else 0.0)
        units[i] = unit if unit > 0 else 1.0
    return units


def _log_spaced(length: int) -> list[int]:
    """Return 0, then about 8 lags for each factor of ten, below `length`."""
    count = max(2, round(8 * np.log10(max(length, 2))))
    return [0, *(int(k) for k in np.unique(np.geomspace(1, max(length - 1, 1), count).round()))]


def _raise_values(
    panel: Panel,
    series: Int[np.ndarray, " copy"],
    lag: Int[np.ndarray, " copy"],
    by: Float[np.ndarray, " copy"],
) -> Panel:
    """Copy one series for each lag, with the value `lag` steps before its end raised."""
    copies = panel.take(series)
    values = copies.values.copy()
    values[copies.indptr[1:] - 1 - lag] += by
    return replace(copies, values=values)


def _mix_states(base: States, changed: States) -> tuple[States, States, States]:
    """Return `changed`, then `base` with only the filters and only the network's state changed."""
    return (
        changed,
        replace(changed, hidden=base.hidden, cell=base.cell),
        replace(base, hidden=changed.hidden, cell=changed.cell),
    )


def _reach(lags: "pd.Series[int]", dependence: "pd.Series[float]") -> int | None:
    """Return the first lag from which the dependence stays negligible; None if there is none."""
    small = dependence.to_numpy() < max(NEGLIGIBLE * dependence.iloc[0], ROUNDING)
    if small.all():
        return 0
    if not small[-1]:
        return None
    return int(lags.iloc[len(small) - int(np.argmin(small[::-1]))])

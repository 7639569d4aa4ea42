"""How far back a forecast depends on the past: measured by changing one past value at a time."""

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
"""Share of the dependence on the last value below which a step is taken for forgotten."""
ROUNDING = 1e-6
"""Dependence below which nothing but rounding in single precision is seen."""
MAX_STEPS = 400_000
"""Most steps that are read at once: bounds memory, changes no result."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryProfile:
    """Dependence of the forecast on each past step, and how far it reaches."""

    table: pd.DataFrame
    """
    `lag` (steps before the cutoff), `series` (how many are that long), and the dependence
    `total`, `filters` (the network's state as if nothing had changed) and `network` (the filters
    as if nothing had changed): mean absolute change of the forecast over horizon and series, per
    unit of change of the value. `share` is `total` over that of lag 0.
    """
    reach: int | None
    """First lag from which `total` stays under 1 % of that of lag 0; None: not within the lags."""
    network_reach: int | None
    """The same of `network`, beside its own lag 0."""
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
    Change the value `k` steps before the cutoff, read the series again, compare the forecasts.

    The longest series are taken, and the cutoff lies `horizon` steps before their end, so that
    known-future covariates are there. A value is raised by `size` of its series' own units: the
    mean absolute seasonal difference, or 1 % of the mean absolute value where that is larger.
    All changed copies of the series are read in batches.

    The split is of one change at a time: filters and network do not add up to `total` exactly,
    since the network's correction depends on both. What the network embedded of the last step
    counts as filters, for it remembers nothing.

    Args:
        bundle: The model.
        panel: Series to measure on.
        horizon: Steps ahead that are averaged; None takes all the model has learned.
        lags: Steps before the cutoff, from 0; None takes about 8 an octave of ten, evenly on
            the log scale, up to the length of the longest series.
        size: Size of the change, in units of each series.
        num_series: Most series.

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
    found = np.full((len(steps), len(rows), 3), np.nan)
    pairs = [
        (i, row)
        for i, lag in enumerate(steps)
        for row in np.flatnonzero(history.lengths > lag)
        if history.observed[history.indptr[row + 1] - 1 - lag]
    ]
    most = max(1, MAX_STEPS // int(history.lengths.max()))
    for begin in range(0, len(pairs), most):
        at, series = np.array(pairs[begin : begin + most], np.int64).T
        lag = np.array(steps, np.int64)[at]
        changed = warm_up(bundle, _raised(history, series, lag, size * unit[series]))
        for j, states in enumerate(_halves(base.take(series), changed)):
            after = forecast(bundle, states, horizon=horizon, known_future=future[series])[..., 0]
            change = np.abs(after - before[series]).mean(1)
            found[at, series, j] = change / (size * unit[series])
    count = np.isfinite(found[..., 0]).sum(1)
    means = np.nansum(found, axis=1) / np.maximum(count, 1)[:, None]
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
    Mean absolute seasonal difference of each series, at least 1 % of its mean absolute value.

    Steps without a value are left out; 1 where nothing is left or all is 0.
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
    """0, then about 8 lags for each factor of ten, below `length`."""
    count = max(2, round(8 * np.log10(max(length, 2))))
    return [0, *(int(k) for k in np.unique(np.geomspace(1, max(length - 1, 1), count).round()))]


def _raised(
    panel: Panel,
    series: Int[np.ndarray, " copy"],
    lag: Int[np.ndarray, " copy"],
    by: Float[np.ndarray, " copy"],
) -> Panel:
    """A copy of a series for each lag, in which the value `lag` steps before the end is raised."""
    copies = panel.take(series)
    values = copies.values.copy()
    values[copies.indptr[1:] - 1 - lag] += by
    return replace(copies, values=values)


def _halves(base: States, changed: States) -> tuple[States, States, States]:
    """All of what changed; only the filters; only the network's state."""
    return (
        changed,
        replace(changed, hidden=base.hidden, cell=base.cell),
        replace(base, hidden=changed.hidden, cell=changed.cell),
    )


def _reach(lags: "pd.Series[int]", dependence: "pd.Series[float]") -> int | None:
    """The first lag from which everything stays negligible."""
    small = dependence.to_numpy() < max(NEGLIGIBLE * dependence.iloc[0], ROUNDING)
    if small.all():
        return 0
    if not small[-1]:
        return None
    return int(lags.iloc[len(small) - int(np.argmin(small[::-1]))])

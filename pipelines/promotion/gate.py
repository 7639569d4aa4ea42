"""The promotion gate: a pure function that decides on a challenger and explains its decision."""

import math
from dataclasses import dataclass

from forecast.config import Kind

METRICS: dict[Kind, str] = {"count": "rmse", "price": "msis", "volatility": "msis"}
"""
Metric that decides for each kind of data; all other kinds are judged by `mase`.

Counts are forecast by their mean and judged by squared error, because the absolute error of sparse
series is smallest for a forecast of 0. Every model forecasts prices as a random walk, so only the
intervals can be better.
"""
NOISE = 5e-4
"""Relative gain that another thread count or machine alone can cause; treated as no gain."""
LEAST_PERCENT = 90
"""
Fewest series and rows the data may have, in percent of those the champion learned from.

A changing catalogue or retention removes a few from one training to the next. An export that was
cut short removes more, and a score on the rest says nothing about the missing series.
"""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A decision and its reason, which is logged, tagged on the run and shown to users."""

    promote: bool
    reason: str


def judge(
    challenger: float,
    *,
    seasonal_naive: float,
    champion: float | None,
    min_gain: float = 0.0,
    metric: str = "mase",
) -> Verdict:
    """
    Compare scores taken today, on the same cutoffs and series, by the same code.

    The challenger must score below the seasonal naive and below the champion by at least
    `min_gain`. A gain that rounds to 0.0 % does not replace a model that works.

    Args:
        challenger: Score of the new model, trained only on data before the first cutoff.
        seasonal_naive: Score of the seasonal naive forecast.
        champion: New score of the model in service; None if there is no champion.
        min_gain: Required relative gain over the champion, at least 0: 0.02 is 2 %.
        metric: Name of the metric; lower is better.

    >>> judge(0.80, seasonal_naive=1.0, champion=0.82, min_gain=0.05).reason
    'gain 2.4% over the champion is below the required 5.0% (MASE 0.820 -> 0.800)'
    """
    name = metric.upper()
    if not math.isfinite(challenger):
        return Verdict(False, f"the challenger has no usable score ({name} {challenger})")
    if not challenger < seasonal_naive:
        scores = f"({name} {seasonal_naive:.3f} -> {challenger:.3f})"
        return Verdict(False, f"not better than the seasonal naive forecast {scores}")
    naive = f"{1 - challenger / seasonal_naive:.1%} below the seasonal naive"
    if champion is None:
        return Verdict(True, f"no champion to beat; {naive} ({name} {challenger:.3f})")
    gain = 1 - challenger / champion if champion > 0 else -math.inf
    scores = f"({name} {champion:.3f} -> {challenger:.3f})"
    if not gain > NOISE:
        return Verdict(False, f"not better than the champion {scores}")
    if gain < min_gain:
        shortfall = f"is below the required {min_gain:.1%}"
        return Verdict(False, f"gain {gain:.1%} over the champion {shortfall} {scores}")
    return Verdict(True, f"gain {gain:.1%} over the champion {scores}; {naive}")


def incomparable(why: str) -> Verdict:
    """Refuse because the champion cannot be scored on these data, so nothing is compared."""
    return Verdict(False, f"the champion cannot be scored on these data: {why}")


def less_data(why: str) -> Verdict:
    """Refuse because the data cover only a part of what the champion learned from."""
    advice = "check the export; if this is intended, statecast models promote"
    return Verdict(False, f"the data are less than the champion learned from: {why}: {advice}")


def overtaken(judged: int | None, serving: int | None) -> Verdict:
    """
    Refuse because the champion changed since the comparison, so nobody has compared the new one.

    >>> overtaken(None, 2).reason
    'the champion changed meanwhile from none to v2: train again'
    """
    before, after = ("none" if version is None else f"v{version}" for version in (judged, serving))
    return Verdict(False, f"the champion changed meanwhile from {before} to {after}: train again")

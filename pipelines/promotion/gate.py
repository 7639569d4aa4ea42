"""Whether a new model may go into service: a pure decision that can explain itself."""

import math
from dataclasses import dataclass

from forecast.config import Kind

METRICS: dict[Kind, str] = {"count": "rmse", "price": "msis", "volatility": "msis"}
"""
What each kind is judged by; all others by `mase`.

The mean of a count is judged by squared error, since the absolute error of sparse series is least
at 0; a price is the random walk to every model, so that only its intervals can be better.
"""
NOISE = 5e-4
"""Relative gain that means nothing: other threads, another machine."""
LEAST_PERCENT = 90
"""
Least series and rows of the data, in percent of those that the champion learned from.

Catalogues and retention lose a few from one training to the next; an export that broke off loses
more, and a score over what is left of it says nothing about the series that are missing.
"""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A decision and the sentence that is logged, tagged on the run and shown to people."""

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

    The challenger must be below the seasonal naive, and below the champion by `min_gain` or
    more. A gain that rounds to 0.0 % is none: a model that works is not disturbed for nothing.

    Args:
        challenger: Score of the new model, trained on nothing after the first cutoff.
        seasonal_naive: Score of the seasonal naive forecast.
        champion: Score of the model in service, taken again; None when there is none.
        min_gain: Relative gain over the champion asked for, at least 0: 0.02 is 2 %.
        metric: What the scores are; lower is better.

    >>> judge(0.80, seasonal_naive=1.0, champion=0.82, min_gain=0.05).reason
    'gain 2.4% over the champion is below the 5.0% asked for (MASE 0.820 -> 0.800)'
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
        asked = f"is below the {min_gain:.1%} asked for"
        return Verdict(False, f"gain {gain:.1%} over the champion {asked} {scores}")
    return Verdict(True, f"gain {gain:.1%} over the champion {scores}; {naive}")


def incomparable(why: str) -> Verdict:
    """The champion cannot be scored on these data, so nobody can say which model is better."""
    return Verdict(False, f"the champion cannot be scored on these data: {why}")


def less_data(why: str) -> Verdict:
    """The data are a part of what the champion serves, so a score over them decides nothing."""
    way_out = "check the export; if it is meant, statecast models promote"
    return Verdict(False, f"the data are less than the champion learned from: {why}: {way_out}")


def overtaken(judged: int | None, serving: int | None) -> Verdict:
    """
    Another champion serves than the one that was judged, so nobody has compared it.

    >>> overtaken(None, 2).reason
    'the champion changed meanwhile from none to v2: train again'
    """
    before, after = ("none" if version is None else f"v{version}" for version in (judged, serving))
    return Verdict(False, f"the champion changed meanwhile from {before} to {after}: train again")

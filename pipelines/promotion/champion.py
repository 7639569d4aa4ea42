"""Loads the champion before a training: whether it can be scored, and with which weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int

from forecast.bundle import Bundle
from forecast.calendars.calendar import Calendar
from forecast.data import validation
from forecast.data.panel import Panel
from forecast.errors import BundleError, UnknownModel
from pipelines.promotion import gate
from pipelines.promotion.comparison import incompatibility
from pipelines.promotion.plan import Plan, not_after
from pipelines.tracking import flavor, registry
from pipelines.tracking.store import Tracking, Version


@dataclass(frozen=True, slots=True, kw_only=True)
class Champion:
    """The model in service, as a training needs it for the comparison."""

    version: int
    weights: Bundle | None = None
    """Weights to score; None if they cannot be read."""
    unseen_cutoffs: int = 0
    """Number of last cutoffs whose targets these weights have not learned from."""
    refusal: gate.Verdict | None = None
    """Verdict that holds whatever the scores are; None if the scores decide."""
    warning: str = ""
    """Message for the user before the training; may be empty."""
    note: str = ""
    """Addition to the verdict's reason; may be empty."""


def load_champion(
    tracking: Tracking, name: str, series: validation.CheckedSeries, panel: Panel, cutoffs: Plan
) -> Champion | None:
    """
    Load the champion of a registered model for scoring; None if there is no champion.

    A champion that cannot be read stays in service until somebody promotes another version by
    hand, but it does not prevent training.
    """
    version = tracking.find(name, registry.CHAMPION)
    if version is None:
        return None
    try:
        served = flavor.load_model(f"models:/{name}/{version.version}", tracking)
    except (BundleError, UnknownModel) as error:
        return Champion(
            version=version.version,
            refusal=gate.incomparable(f"it cannot be read: {error.message}"),
            warning="this model will not be promoted by itself: the champion of "
            f"{name!r}, version {version.version}, cannot be read ({error.message}); once the "
            f"new one is registered: statecast models promote {name}/VERSION",
        )
    stamps = cutoffs.stamps(panel)
    weights, reason = _weights_before(tracking, version, served, stamps)
    unseen = unseen_cutoffs(weights, stamps)
    refusal, warning, note = None, "", ""
    if why := incompatibility(weights, series, cutoffs.horizon):
        warning = (
            f"this model will not be promoted by itself: the champion of {name!r} cannot "
            f"be scored on these data ({why}); give the model a name of its own with --name"
        )
    elif why := missing_data(panel, served.calendar, served.facts):
        refusal = gate.less_data(why)
        warning = f"this model will not be promoted by itself: {refusal.reason}"
    elif unseen < cutoffs.windows:
        note, consequence = _advantage(unseen, cutoffs.windows)
        warning = (
            f"the champion of {name!r}, version {version.version}, has learned from targets of "
            f"this backtest: its scores flatter it, and {consequence}{reason}"
        )
    return Champion(
        version=version.version,
        weights=weights,
        unseen_cutoffs=unseen,
        refusal=refusal,
        warning=warning,
        note=note,
    )


def missing_data(panel: Panel, calendar: Calendar, facts: Mapping[str, Any]) -> str:
    """
    Describe what is missing of the data that a champion learned from; empty if it is enough.

    A champion that was not refitted learned only from the data before its backtest, so that much
    more may be missing unnoticed. Facts that the champion does not record are not compared.
    """
    shortfalls: list[str] = []
    for what, count in (("series", panel.num_series), ("rows", len(panel.values))):
        learned = facts.get(what)
        if isinstance(learned, int) and 100 * count < gate.LEAST_PERCENT * learned:
            least = -(-gate.LEAST_PERCENT * learned // 100)
            share = f"{gate.LEAST_PERCENT}% of {learned:,}"
            shortfalls.append(f"{count:,} {what}, at least {least:,} expected ({share})")
    cutoff, end = facts.get("cutoff"), calendar.text(panel.ds.max())
    if cutoff is not None and not not_after(cutoff, end):
        shortfalls.append(f"they end at {end}, the champion's at {cutoff}")
    return "; ".join(shortfalls)


def unseen_cutoffs(bundle: Bundle, stamps: Int[np.ndarray, "window series"]) -> int:
    """
    Count the last cutoffs whose targets the weights have not learned from.

    Refitted weights have learned from each series to its end, so a cutoff counts only if every
    series is cut after that end. Weights of a backtest learned from each series up to its own
    cutoff: there the series that ends last decides, since earlier ones were cut earlier too.

    Args:
        bundle: The weights. If their facts do not record a cutoff, all targets count as seen.
        stamps: The last known stamp at each cutoff, as `Plan.stamps` returns them.
    """
    ends = stamps.max(axis=1) if _is_held_out(bundle) else stamps.min(axis=1)
    cutoff = bundle.facts.get("cutoff")
    return sum(not_after(cutoff, bundle.calendar.text(end)) for end in ends)


def _weights_before(
    tracking: Tracking, version: Version, served: Bundle, stamps: Int[np.ndarray, "window series"]
) -> tuple[Bundle, str]:
    """
    Return champion weights that have not seen the targets, if they are kept, and else the reason.

    The weights in service were refitted on all data of their time. Unless the data have grown past
    that time, the comparison uses the weights that the champion's own backtest scored.
    """
    if _is_held_out(served) or unseen_cutoffs(served, stamps) == len(stamps):
        return served, ""
    try:
        return flavor.load_model(f"runs:/{version.run_id}/{flavor.HELD_OUT}", tracking), ""
    except (BundleError, UnknownModel) as error:
        return served, f"; the weights of its own backtest cannot be read ({error.message})"


def _is_held_out(bundle: Bundle) -> bool:
    """Whether the weights come from a backtest, trained without the end of each series."""
    return bundle.facts.get("refit") is False


def _advantage(unseen: int, windows: int) -> tuple[str, str]:
    """Return the note and the warning for a champion that has learned from some targets."""
    if not unseen:
        return (
            "the champion was scored on targets that it has learned from",
            "a better model may be refused (then: statecast models promote)",
        )
    cutoffs = f"the last {unseen} of {windows} cutoffs"
    return (
        f"judged at {cutoffs}: the champion has learned from targets of the others",
        f"the verdict uses only {cutoffs}",
    )

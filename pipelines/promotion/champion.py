"""The champion as the next training meets it: whether it can be read, and with which weights."""

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
from pipelines.tracking import flavor as record
from pipelines.tracking.store import Tracking, Version


@dataclass(frozen=True, slots=True, kw_only=True)
class Champion:
    """What a training knows of the model in service before it begins."""

    version: int
    weights: Bundle | None = None
    """To be scored; None when they cannot be read."""
    unseen_cutoffs: int = 0
    """Cutoffs, the last ones, after which these weights have learned from no target."""
    refusal: gate.Verdict | None = None
    """Why no score may put another model in its place; None when scores decide."""
    warning: str = ""
    """What the user should know before the training; may be empty."""
    note: str = ""
    """What the verdict's reason should add; may be empty."""


def load_champion(
    tracking: Tracking, name: str, series: validation.CheckedSeries, panel: Panel, cutoffs: Plan
) -> Champion | None:
    """
    The champion of a model, ready to be scored; None when there is none.

    One that cannot be read keeps its place until somebody decides, but keeps nobody from training.
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
    weights, lost = _weights_before(tracking, version, served, stamps)
    fresh = unseen_cutoffs(weights, stamps)
    refusal, warning, note = None, "", ""
    if why := incompatibility(weights, series, cutoffs.horizon):
        warning = (
            f"this model will not be promoted by itself: the champion of {name!r} cannot "
            f"be scored on these data ({why}); give the model a name of its own with --name"
        )
    elif why := missing_data(panel, served.calendar, served.facts):
        refusal = gate.less_data(why)
        warning = f"this model will not be promoted by itself: {refusal.reason}"
    elif fresh < cutoffs.windows:
        note, follows = _learned(fresh, cutoffs.windows)
        warning = (
            f"the champion of {name!r}, version {version.version}, has learned from targets of "
            f"this backtest: its scores flatter it, and {follows}{lost}"
        )
    return Champion(
        version=version.version,
        weights=weights,
        unseen_cutoffs=fresh,
        refusal=refusal,
        warning=warning,
        note=note,
    )


def missing_data(panel: Panel, calendar: Calendar, facts: Mapping[str, Any]) -> str:
    """
    What the data lack of those that a champion learned from; empty when they are enough.

    A champion without a refit learned from what precedes its backtest: then the data may lack
    that much more unnoticed. What its facts do not tell is not compared.
    """
    found: list[str] = []
    for what, count in (("series", panel.num_series), ("rows", len(panel.values))):
        learned = facts.get(what)
        if isinstance(learned, int) and 100 * count < gate.LEAST_PERCENT * learned:
            least = -(-gate.LEAST_PERCENT * learned // 100)
            share = f"{gate.LEAST_PERCENT}% of {learned:,}"
            found.append(f"{count:,} {what}, at least {least:,} expected ({share})")
    cutoff, end = facts.get("cutoff"), calendar.text(panel.ds.max())
    if cutoff is not None and not not_after(cutoff, end):
        found.append(f"they end at {end}, the champion's at {cutoff}")
    return "; ".join(found)


def unseen_cutoffs(bundle: Bundle, stamps: Int[np.ndarray, "window series"]) -> int:
    """
    After how many cutoffs, the last ones, the weights have learned from no target.

    Weights that learned from everything know each series to its end, so every series must be cut
    after theirs. Those of a backtest were cut before the end of each series: the series that goes
    on for longest tells, and one that has ended earlier was cut as much earlier.

    Args:
        bundle: The weights; where their facts do not tell the cutoff, all targets count as seen.
        stamps: The last known stamp at each cutoff, as `Plan.stamps` gives them.
    """
    cut = _held_out(bundle)
    ends = stamps.max(axis=1) if cut else stamps.min(axis=1)
    cutoff = bundle.facts.get("cutoff")
    return sum(not_after(cutoff, bundle.calendar.text(end)) for end in ends)


def _weights_before(
    tracking: Tracking, version: Version, served: Bundle, stamps: Int[np.ndarray, "window series"]
) -> tuple[Bundle, str]:
    """
    The champion with weights that have not seen the targets, if such are kept; else why not.

    The weights in service were refitted on everything there was; unless the data have grown past
    them, the comparison takes those that its own backtest scored.
    """
    if _held_out(served) or unseen_cutoffs(served, stamps) == len(stamps):
        return served, ""
    try:
        return flavor.load_model(f"runs:/{version.run_id}/{record.HELD_OUT}", tracking), ""
    except (BundleError, UnknownModel) as error:
        lost = f"; the weights that its own backtest scored cannot be read ({error.message})"
        return served, lost


def _held_out(bundle: Bundle) -> bool:
    """Whether the weights are those of a backtest, which were kept from the end of each series."""
    return bundle.facts.get("refit") is False


def _learned(fresh: int, windows: int) -> tuple[str, str]:
    """What to note beside the verdict, and what to tell before, of a champion with an advantage."""
    if not fresh:
        return (
            "the champion was scored on targets that it has learned from",
            "a better model may be refused (then: statecast models promote)",
        )
    told = f"at the last {fresh} of {windows} cutoffs"
    return f"judged {told}: the champion has learned from targets of the others", (
        f"the verdict looks {told} alone"
    )

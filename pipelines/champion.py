"""The champion as the next training meets it: whether it can be read, and with which weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from forecast import frames
from forecast.bundle import Bundle
from forecast.calendars import Calendar
from forecast.errors import BundleError, ForecastError
from forecast.panel import Panel
from pipelines import flavor, gate, publish, record
from pipelines.errors import UnknownModel
from pipelines.evaluation import Plan, not_after, unlike
from pipelines.tracking import Tracking, Version


@dataclass(frozen=True, slots=True, kw_only=True)
class Champion:
    """What a training knows of the model in service before it begins."""

    version: int
    weights: Bundle | None = None
    """To be scored; None when they cannot be read."""
    refusal: gate.Verdict | None = None
    """Why no score may put another model in its place; None when scores decide."""
    warning: str = ""
    """What the user should know before the training; may be empty."""


def meet(
    tracking: Tracking, name: str, series: frames.SeriesFrame, panel: Panel, cutoffs: Plan
) -> Champion | None:
    """
    The champion of a model, ready to be scored; None when there is none.

    One that cannot be read keeps its place until somebody decides, but keeps nobody from training.
    """
    version = tracking.find(name, publish.CHAMPION)
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
    weights = _weights_before(tracking, version, served, cutoffs, panel)
    refusal, warning = None, ""
    if why := unlike(weights, series, cutoffs.horizon):
        warning = (
            f"this model will not be promoted by itself: the champion of {name!r} cannot "
            f"be scored on these data ({why}); give the model a name of its own with --name"
        )
    elif why := lacking(panel, served.calendar, served.facts):
        refusal = gate.less_data(why)
        warning = f"this model will not be promoted by itself: {refusal.reason}"
    return Champion(version=version.version, weights=weights, refusal=refusal, warning=warning)


def lacking(panel: Panel, calendar: Calendar, facts: Mapping[str, Any]) -> str:
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


def _weights_before(
    tracking: Tracking, version: Version, served: Bundle, cutoffs: Plan, panel: Panel
) -> Bundle:
    """
    The champion with weights that have not seen the targets, if any such are kept.

    The weights in service were refitted on everything there was; unless the data have grown past
    them, the comparison takes those that its own backtest scored.
    """
    first = served.calendar.text(cutoffs.first_cutoff(panel))
    if not_after(served.facts.get("cutoff"), first) or not served.facts.get("refit"):
        return served
    try:
        return flavor.load_model(f"runs:/{version.run_id}/{record.HELD_OUT}", tracking)
    except ForecastError:
        return served

"""Records a verdict in the registry and moves the champion alias if it says so."""

from collections.abc import Mapping

from pipelines.promotion.gate import Verdict, overtaken
from pipelines.tracking.registry import CHAMPION, Change, move_aliases
from pipelines.tracking.store import Tracking


def decide(
    tracking: Tracking, name: str, version: int, verdict: Verdict, *, champion: int | None
) -> tuple[Verdict, Change | None]:
    """
    Record the verdict on the version, and promote the version if the verdict still holds.

    Args:
        tracking: The registry.
        name: Name of the registered model.
        version: Version of the challenger.
        verdict: The gate's verdict on the challenger.
        champion: Version that the challenger was judged against, or None. If another version is
            champion by now, nobody has compared the two and the verdict becomes a refusal.

    Returns:
        The verdict that was recorded, and the change of aliases if the version was promoted.
    """
    with tracking.exclusive():
        current = tracking.find(name, CHAMPION)
        serving = current.version if current else None
        if verdict.promote and serving != champion:
            verdict = overtaken(champion, serving)
        status = "approved" if verdict.promote else "rejected"
        notes: Mapping[str, str] = {"validation_status": status, "gate.reason": verdict.reason}
        tracking.tag_version(name, version, notes)
        return verdict, move_aliases(tracking, name, version) if verdict.promote else None

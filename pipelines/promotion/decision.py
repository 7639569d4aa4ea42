"""Record the verdict and move the alias."""

from collections.abc import Mapping

from pipelines.promotion.gate import Verdict, overtaken
from pipelines.tracking.registry import CHAMPION, Change, _point
from pipelines.tracking.store import Tracking


def decide(
    tracking: Tracking, name: str, version: int, verdict: Verdict, *, champion: int | None
) -> tuple[Verdict, Change | None]:
    """
    Note the verdict on the version, and promote it if the verdict says so and still holds.

    Args:
        tracking: The registry.
        name: Of the registered model.
        version: The challenger.
        verdict: Over the challenger and the champion.
        champion: The version that it was judged against, or None; if another one serves by now,
            nobody has compared the two, and the verdict becomes a refusal.
    """
    with tracking.alone():
        now = tracking.find(name, CHAMPION)
        serving = now.version if now else None
        if verdict.promote and serving != champion:
            verdict = overtaken(champion, serving)
        status = "approved" if verdict.promote else "rejected"
        notes: Mapping[str, str] = {"validation_status": status, "gate.reason": verdict.reason}
        tracking.tag_version(name, version, notes)
        return verdict, _point(tracking, name, version) if verdict.promote else None

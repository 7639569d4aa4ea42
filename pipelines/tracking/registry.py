"""Which version serves: register, make it challenger, promote it, go back."""

from dataclasses import dataclass

from forecast.errors import NothingBefore
from pipelines.tracking.store import Tracking

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"


@dataclass(frozen=True, slots=True)
class Change:
    """What a promotion or a rollback did."""

    name: str
    champion: int
    previous: int | None


def register(tracking: Tracking, model_uri: str, name: str, run_id: str, **tags: str) -> int:
    """Make a logged model the next version and the challenger; returns its number."""
    told = {"validation_status": "pending", **{k.replace("__", "."): v for k, v in tags.items()}}
    version = tracking.register(model_uri, name, run_id, told)
    tracking.set_alias(name, CHALLENGER, version)
    return version


def promote(tracking: Tracking, name: str, version: int) -> Change:
    """
    Put a version into service, whichever serves now; the one before stays known as `previous`.

    Raises:
        UnknownModel: There is no such version.
    """
    with tracking.alone():
        return _point(tracking, name, version)


def _point(tracking: Tracking, name: str, version: int) -> Change:
    """Set `previous`, then `champion`: a stop in between leaves the champion as it was."""
    chosen = tracking.version(name, str(version))
    before = tracking.find(name, CHAMPION)
    if before is not None and before.version == chosen.version:
        kept = tracking.find(name, PREVIOUS)
        return Change(name, chosen.version, kept.version if kept else None)
    if before is not None:
        tracking.set_alias(name, PREVIOUS, before.version)
    tracking.set_alias(name, CHAMPION, chosen.version)
    return Change(name, chosen.version, before.version if before else None)


def rollback(tracking: Tracking, name: str) -> Change:
    """
    Put the previous champion back; the one that leaves becomes `previous`.

    Raises:
        UnknownModel: There is no champion.
        NothingBefore: Only one version was ever champion.
    """
    with tracking.alone():
        now = tracking.version(name, CHAMPION)
        before = tracking.find(name, PREVIOUS)
        if before is None or before.version == now.version:
            raise NothingBefore(
                f"model {name!r} has no earlier champion: version {now.version} was the first",
                help=f"choose a version: statecast models promote {name}/VERSION",
            )
        tracking.set_alias(name, PREVIOUS, now.version)
        tracking.set_alias(name, CHAMPION, before.version)
        return Change(name, before.version, now.version)

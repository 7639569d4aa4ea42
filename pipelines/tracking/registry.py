"""Registers versions and moves their aliases: challenger, champion, previous."""

from dataclasses import dataclass

from forecast.errors import NothingBefore
from pipelines.tracking.store import Tracking

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"


@dataclass(frozen=True, slots=True)
class Change:
    """Aliases after a promotion or a rollback."""

    name: str
    champion: int
    """Version in service."""
    previous: int | None
    """Version that was in service before, if any."""


def register(tracking: Tracking, model_uri: str, name: str, run_id: str, **tags: str) -> int:
    """
    Register a logged model as the next version, make it the challenger and return its number.

    Args:
        tracking: The store.
        model_uri: URI of the logged model.
        name: Name of the registered model.
        run_id: Run that logged the model.
        tags: Tags of the version; `__` in a name stands for a dot.
    """
    dotted = {key.replace("__", "."): value for key, value in tags.items()}
    version = tracking.register(model_uri, name, run_id, {"validation_status": "pending", **dotted})
    tracking.set_alias(name, CHALLENGER, version)
    return version


def promote(tracking: Tracking, name: str, version: int) -> Change:
    """
    Make a version the champion; the champion before becomes `previous`.

    Raises:
        UnknownModel: There is no such version.
    """
    with tracking.exclusive():
        return move_aliases(tracking, name, version)


def move_aliases(tracking: Tracking, name: str, version: int) -> Change:
    """
    Make a version the champion without taking the store's lock.

    `previous` is set before `champion`: a crash in between leaves the champion as it was.

    Raises:
        UnknownModel: There is no such version.
    """
    chosen = tracking.version(name, str(version))
    before = tracking.find(name, CHAMPION)
    if before is not None and before.version == chosen.version:
        previous = tracking.find(name, PREVIOUS)
        return Change(name, chosen.version, previous.version if previous else None)
    if before is not None:
        tracking.set_alias(name, PREVIOUS, before.version)
    tracking.set_alias(name, CHAMPION, chosen.version)
    return Change(name, chosen.version, before.version if before else None)


def rollback(tracking: Tracking, name: str) -> Change:
    """
    Make the previous champion the champion again; the current one becomes `previous`.

    Raises:
        UnknownModel: There is no champion.
        NothingBefore: Only one version was ever champion.
    """
    with tracking.exclusive():
        current = tracking.version(name, CHAMPION)
        before = tracking.find(name, PREVIOUS)
        if before is None or before.version == current.version:
            raise NothingBefore(
                f"model {name!r} has no earlier champion: version {current.version} was the first",
                help=f"choose a version: statecast models promote {name}/VERSION",
            )
        tracking.set_alias(name, PREVIOUS, current.version)
        tracking.set_alias(name, CHAMPION, before.version)
        return Change(name, before.version, current.version)

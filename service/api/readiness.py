"""Reports whether the server can answer forecasts, and how far its start is."""

from service.api import schemas
from service.api.answers import model_of, successor_of
from service.errors import sentence
from service.serving.catalog import Catalog
from service.serving.slot import Slot

_PHASES = ("starting", "loading", "stopped", "replaying", "ready", "cut off", "failed")
"""The phase of a server is the first of these that one of its models is in."""
_ANSWERING = frozenset({"replaying", "ready"})


def readiness(slot: Slot) -> schemas.Readiness:
    """
    Report the readiness of one model.

    A model whose last read of a shared log failed is not ready: it might forecast from old states.
    """
    phase = slot.progress.phase
    serving = slot.serving if phase in _ANSWERING else None
    cut_off = serving.write_queue.cut_off if serving else None
    failure = slot.failure or cut_off
    if cut_off is not None:
        phase = "cut off"
    return schemas.Readiness(
        ready=phase in _ANSWERING,
        phase=phase,
        series=slot.progress.series,
        replayed=slot.progress.replayed,
        model=model_of(serving.source) if serving else None,
        reason=sentence(failure) if failure else slot.trouble,
        successor=successor_of(slot.successor),
    )


def readiness_of_all(catalog: Catalog) -> schemas.Readiness:
    """
    Report the readiness of a server of several models.

    It is ready once no model is being loaded and one can answer: a model that cannot be loaded
    does not make the server unready for the others.
    """
    each = {name: readiness(slot) for name, slot in catalog.by_name.items()}
    phase = min((one.phase for one in each.values()), key=_PHASES.index)
    return schemas.Readiness(
        ready=phase in _ANSWERING,
        phase=phase,
        model=None,
        series=sum(one.series for one in each.values()),
        replayed=sum(one.replayed for one in each.values()),
        reason="; ".join(f"{name}: {one.reason}" for name, one in each.items() if one.reason),
        models={**each},
    )

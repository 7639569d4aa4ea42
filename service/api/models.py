"""Describes the models that the server holds."""

from service.api import schemas
from service.api.answers import moment
from service.serving.serving import Serving
from service.serving.slot import Slot


def models(slot: Slot) -> list[schemas.ModelDetail]:
    """Describe the model in service and the one before it."""
    held = [slot.serving] if slot.previous is None else [slot.serving, slot.previous]
    return [model(serving, in_service=not rank) for rank, serving in enumerate(held)]


def model(serving: Serving, *, in_service: bool = True) -> schemas.ModelDetail:
    """Describe a model that the server holds."""
    source, config = serving.source, serving.bundle.config
    with serving.log.read() as transaction:
        shortened = transaction.shortened(source.digest)
    return schemas.ModelDetail(
        name=source.name,
        version=source.version,
        digest=source.digest,
        alias=source.alias,
        in_service=in_service,
        since=moment(serving.since),
        freq=serving.bundle.calendar.freq,
        kind=config.data.kind,
        horizon=serving.bundle.horizon,
        quantiles=list(config.model.quantiles),
        known_future=list(config.data.known_future),
        past_only=list(config.data.past_only),
        static=[column.name for column in serving.bundle.spec.static.columns],
        fill=config.data.fill,
        shortened=shortened,
        facts=serving.bundle.facts,
        scores=serving.bundle.scores,
    )

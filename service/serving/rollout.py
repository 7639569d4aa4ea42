"""
Rollout: replace the model in service by the one that the source names, or by the one before it.

A new model gets states of its own by a replay of the log, while the model in service answers. It
takes over in one step once its states have caught up and its forecasts pass the check. If anything
is wrong with it, the model in service stays.
"""

import time
from dataclasses import replace

from forecast.bundle import Bundle
from forecast.errors import ForecastError, NothingBefore
from service.errors import LogError, LogFrequency, ServiceError
from service.replay.backlog import replay_waiting
from service.replay.recovery import recover
from service.serving import local_copy
from service.serving.loading import Context, open_states
from service.serving.local_copy import LocalCopy
from service.serving.model_source import Source, fetch, identify
from service.serving.serving import Models, Serving, Successor
from service.serving.shadow import check_forecasts


def check_source(models: Models, context: Context) -> None:
    """
    Put a new model into service if the source names one and its forecasts pass the check.

    Raises:
        UnknownModel, ModelSourceError, BundleError: The source names no model that can be loaded.
    """
    settings = context.settings
    models.named = named = identify(settings)
    with models.lock:
        current = models.serving
        if named == models.ignored:
            return
        if models.ignored:
            models.ignored, models.successor = "", None
            local_copy.save(settings, LocalCopy(current.source, current.bundle))
        if named == current.source.identifier:
            return
    source, bundle = fetch(settings)
    if source.digest == current.source.digest:
        _rename(models, context, current, source)
        return
    models.successor = Successor(source, "replaying")
    try:
        successor = _prepare(context, current, models.previous, source, bundle)
        if successor is not None:
            _take_over(models, context, current, successor)
    except ForecastError as error:
        context.logger.warning("version %s stays out [%s]: %s", source.version, error.code, error)
        # A log that is away, or a busy server, may do better at the next check.
        temporary = isinstance(error, LogError | ServiceError)
        retry = temporary and not isinstance(error, LogFrequency)
        _refuse(models, context, source, "" if retry else named, error.message)
    except Exception:  # A model that fails in an unforeseen way must not stop the server.
        context.logger.exception("version %s stays out", source.version)
        _refuse(models, context, source, named, "internal error: see the log")


def roll_back(models: Models, context: Context) -> Serving:
    """
    Put the model before this one back in service, once its states have caught up with the log.

    Raises:
        NothingBefore: No other model was in service since the server started.
        LogError: The log cannot be read; the model in service stays.
    """
    with models.lock:
        current = models.serving
        if models.previous is None:
            raise NothingBefore(
                "no model was in service before this one since the server started",
                help="promote the version you want in the registry",
            )
        restored = _swap(models, context, models.previous)
        models.successor = Successor(current.source, "rolled back")
        models.ignored = models.named
        local_copy.save(
            context.settings,
            LocalCopy(restored.source, restored.bundle, rolled_back=current.source),
        )
        return restored


def _rename(models: Models, context: Context, current: Serving, source: Source) -> None:
    """Note that the source names the model in service by another version now."""
    with models.lock:
        if models.serving is current:
            models.serving = replace(current, source=source)
            context.report(models.serving)
            local_copy.save(context.settings, LocalCopy(source, current.bundle))


def _prepare(
    context: Context, current: Serving, previous: Serving | None, source: Source, bundle: Bundle
) -> Serving | None:
    """
    Replay the states of a new model and check its forecasts.

    Returns:
        The model, ready to take over, or None if the slot is stopping.

    Raises:
        ShadowRefused: Its forecasts are not finite, or far from those of the model in service.
        LogError: The log cannot be read, or holds series of another frequency.
    """
    if previous is not None and previous.source.digest == source.digest:
        return replace(previous, source=source)  # Its states are still in memory.
    current.log.bind_calendar(bundle.calendar)
    writer, snapshots = open_states(context, current.log, bundle)
    recover(writer, snapshots)
    replay_waiting(writer, writer.put_in_place, stopped=context.stopped)
    if context.stopped():
        return None
    check_forecasts(current.writer, writer)
    return Serving(source, writer, snapshots, current.write_queue, time.time())


def _take_over(models: Models, context: Context, current: Serving, successor: Serving) -> None:
    """Swap, unless another model came into service meanwhile; then the next check decides."""
    with models.lock:
        if models.serving is current:
            _swap(models, context, successor)
            models.successor = Successor(successor.source, "in service")
            local_copy.save(context.settings, LocalCopy(successor.source, successor.bundle))


def _refuse(models: Models, context: Context, source: Source, ignored: str, reason: str) -> None:
    models.successor = Successor(source, "refused", reason)
    models.ignored = ignored
    context.metrics.successions.labels(context.metrics.model, "refused").inc()


def _swap(models: Models, context: Context, successor: Serving) -> Serving:
    """Change the model in service in one step; running requests end with the model they have."""
    current, dropped = models.serving, models.previous
    successor = replace(successor, since=time.time())

    def swap() -> None:
        models.previous, models.serving = current, successor

    successor.write_queue.hand_over(successor.writer, swap)
    if dropped is not None and dropped.source.digest != successor.source.digest:
        dropped.snapshots.forget()
    context.report(successor)
    context.metrics.successions.labels(context.metrics.model, "in service").inc()
    context.logger.info(
        "version %s in service instead of %s", successor.source.version, current.source.version
    )
    return successor

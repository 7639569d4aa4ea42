"""Load the model that a slot starts with, open its log and restore its states."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from forecast.bundle import Bundle
from service.engine.engine import Engine
from service.engine.executor import BatchingExecutor
from service.engine.snapshots import Snapshots
from service.ingest.importer import seed
from service.ingest.write_queue import WriteQueue
from service.ingest.writer import Writer
from service.metrics import Metrics
from service.replay.recovery import recover
from service.serving import local_copy
from service.serving.serving import Models, Serving, Successor
from service.settings import Settings
from service.storage.log import ObservationLog


@dataclass(frozen=True, slots=True)
class Context:
    """What loading and rollout need from their slot."""

    settings: Settings
    metrics: Metrics
    executor: BatchingExecutor
    logger: logging.Logger
    stopped: Callable[[], bool]
    """Returns whether the slot is stopping, so that a replay can be left unfinished."""
    report: Callable[[Serving], None]
    """Called with the model in service whenever that changes."""


def load(context: Context) -> Models:
    """
    Load the model that the slot starts with; its log stays open if it succeeds.

    Series that the snapshots lack are left to be replayed.

    Raises:
        UnknownModel, ModelSourceError, BundleError: There is no model that can be loaded.
        LogError: The log cannot be opened, or holds series of another frequency.
        DataError: The seed data cannot be used.
    """
    start, settings = time.perf_counter(), context.settings
    copy = local_copy.choose(settings)
    if settings.seed_data is not None:
        seed(settings.log_url, settings.seed_data, copy.bundle.config.data)
    log = ObservationLog(settings.log_url)
    try:
        log.bind_calendar(copy.bundle.calendar)
        writer, snapshots = open_states(context, log, copy.bundle)
        restored = recover(writer, snapshots)
        snapshots.forget_others()
        local_copy.save(settings, copy)
    except BaseException:
        log.close()
        raise
    write_queue = WriteQueue(writer, settings.limits.deadline)
    context.logger.info(
        "serving %s version %s: %d series from snapshots, %d to be replayed, %.1f s",
        copy.source.name,
        copy.source.version,
        restored,
        len(writer.waiting),
        time.perf_counter() - start,
    )
    models = Models(
        Serving(copy.source, writer, snapshots, write_queue, time.time()),
        named=copy.source.identifier,
    )
    if copy.rolled_back is not None:
        models.ignored = copy.rolled_back.identifier
        models.successor = Successor(copy.rolled_back, "rolled back")
    return models


def open_states(context: Context, log: ObservationLog, bundle: Bundle) -> tuple[Writer, Snapshots]:
    """Return a writer without any states of a model yet, and the snapshots to restore them from."""
    settings, data = context.settings, bundle.config.data
    own = log.with_covariates((*data.known_future, *data.past_only))
    writer = Writer(
        Engine(bundle, context.executor),
        own,
        context.metrics,
        unknown_series=settings.unknown_series,
        limits=settings.limits,
    )
    return writer, Snapshots(settings.data_dir / "snapshots", own, bundle.digest)

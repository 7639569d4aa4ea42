"""The observation log worked on from the command line, beside a server or without one."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from forecast.bundle import Bundle
from forecast.calendars.calendar import Calendar
from forecast.files import replacing
from service.api import timestamps
from service.engine.engine import Engine
from service.engine.executor import BatchingExecutor
from service.engine.snapshots import Snapshots
from service.errors import LogLocked, Refused
from service.ingest.write_queue import WriteQueue
from service.ingest.writer import Writer
from service.metrics import Metrics
from service.replay.recovery import recover
from service.settings import Limits, Settings
from service.storage.exporter import Selection, export, named
from service.storage.log import ObservationLog
from service.storage.retention import Pruned, RetentionRule, preview

_PATIENCE = 24 * 3600.0
"""Seconds for all of it: nobody else waits."""
_PART = 2.0
"""Seconds for one transaction: servers that share the log wait so long."""
Told = Callable[[int, int], None]
"""How much is done, and of how much."""


def describe(settings: Settings) -> dict[str, Any]:
    """Place, schema, frequency, size and span of the log, and what was pruned."""
    log = ObservationLog(settings.log_url, reads_only=True)
    try:
        with log.read() as transaction:
            totals = asdict(transaction.totals())
        calendar, size = log.calendar, log.size()
    finally:
        log.close()
    for name in ("first_ds", "last_ds"):
        if calendar is not None and totals[name] is not None:
            totals[name] = calendar.text(totals[name])
    return {
        "place": log.place,
        "freq": calendar.freq if calendar else None,
        "bytes": size,
        **totals,
    }


def export_log(
    settings: Settings,
    path: Path,
    *,
    unique_ids: Sequence[str] = (),
    since: str | None = None,
    until: str | None = None,
    full: bool = False,
    told: Told,
) -> dict[str, int]:
    """
    Write the log to a Parquet file: whole, or as if it had never begun.

    Raises:
        BadStamps: `since` or `until` is none.
        UnknownSeries: One of those named is not there.
        OSError: The file cannot be written.
    """
    log = ObservationLog(settings.log_url, reads_only=True)
    try:
        calendar = log.calendar or Calendar("D")
        ends = _stamp(since, calendar), _stamp(until, calendar)
        chosen = Selection(tuple(unique_ids), *ends, full=full)
        with (
            log.read() as transaction,
            replacing(path, per_process=True) as temporary,
            temporary.open("wb") as file,
        ):
            return export(transaction, file, chosen, is_integer=calendar.is_integer, told=told)
    finally:
        log.close()


def prune_preview(settings: Settings, *, steps: int | None, before: str | None) -> Pruned:
    """What `prune_log` would take out; a server may run."""
    log = ObservationLog(settings.log_url, reads_only=True)
    try:
        calendar = log.calendar or Calendar("D")
        with log.read() as transaction:
            return preview(transaction, _keep(steps, before, calendar), calendar)
    finally:
        log.close()


def prune_log(
    settings: Settings,
    bundle: Bundle,
    *,
    steps: int | None,
    before: str | None,
    vacuum: bool,
    told: Told,
) -> Pruned:
    """
    Take older steps out of the log; the model goes on from where it begins then.

    Raises:
        BadStamps: `before` is none.
        LogLocked: A server has the log open, and it is a file.
    """
    data = bundle.config.data
    log = _open(settings, (*data.known_future, *data.past_only))
    executor = BatchingExecutor(_PATIENCE, 1_000, metrics := Metrics())
    try:
        log.bind_calendar(bundle.calendar)
        writer = Writer(
            Engine(bundle, executor), log, metrics, unknown_series="refuse", limits=Limits()
        )
        kept = Snapshots(settings.data_dir / "snapshots", log, bundle.digest)
        restored = recover(writer, kept)
        write_queue = WriteQueue(writer, _PATIENCE)
        try:
            taken = write_queue.prune(
                _keep(steps, before, bundle.calendar), list, told, seconds=_PART
            )
        finally:
            write_queue.close()
        if restored and not log.shared:
            kept.save(writer.engine)  # else they would be those of a log with other rows
        if vacuum:
            log.vacuum()
    finally:
        executor.close()
        log.close()
    return taken


def delete_series(settings: Settings, unique_ids: Sequence[str]) -> int:
    """
    Take series away for good, all of them or none; returns how many rows they had.

    Raises:
        UnknownSeries: One of them is not there.
        LogLocked: A server has the log open, and it is a file.
    """
    log = _open(settings)
    try:
        with log.write() as transaction:
            return transaction.remove([e.number for e in named(transaction, unique_ids)])
    finally:
        log.close()


def _stamp(text: str | None, calendar: Calendar) -> int | None:
    try:
        return None if text is None else timestamps.parse_text(text, calendar, "")
    except Refused as refusal:
        raise refusal.error from None


def _keep(steps: int | None, before: str | None, calendar: Calendar) -> RetentionRule:
    return RetentionRule(steps, _stamp(before, calendar))


def _open(settings: Settings, covariates: Sequence[str] = ()) -> ObservationLog:
    try:
        return ObservationLog(settings.log_url, covariates)
    except LogLocked as error:
        error.help = "ask the server to do it: --server URL; or stop it first"
        raise

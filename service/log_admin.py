"""Work on the observation log from the command line, with or without a running server."""

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
from service.storage.exporter import Selection, export, find_series
from service.storage.log import ObservationLog
from service.storage.retention import Pruned, RetentionRule, preview

_PATIENCE = 24 * 3600.0
"""Longest time that work may take, in seconds: nobody else waits for it."""
_PART = 2.0
"""Time that one transaction should take, in seconds: servers that share the log wait so long."""
OnProgress = Callable[[int, int], None]
"""Called with how much is done, and of how much."""


def describe(settings: Settings) -> dict[str, Any]:
    """Return place, schema, frequency, size, span and pruned steps of the log."""
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
    on_progress: OnProgress,
) -> dict[str, int]:
    """
    Export the log to a Parquet file, which is written whole or not at all.

    Raises:
        BadStamps: `since` or `until` is not a stamp of the log.
        UnknownSeries: A named series is not in the log.
        OSError: The file cannot be written.
    """
    log = ObservationLog(settings.log_url, reads_only=True)
    try:
        calendar = log.calendar or Calendar("D")
        ends = _stamp(since, calendar), _stamp(until, calendar)
        selection = Selection(tuple(unique_ids), *ends, full=full)
        with (
            log.read() as transaction,
            replacing(path, per_process=True) as temporary,
            temporary.open("wb") as file,
        ):
            return export(
                transaction,
                file,
                selection,
                is_integer=calendar.is_integer,
                on_progress=on_progress,
            )
    finally:
        log.close()


def prune_preview(settings: Settings, *, steps: int | None, before: str | None) -> Pruned:
    """Return what `prune_log` would remove; a server may be running."""
    log = ObservationLog(settings.log_url, reads_only=True)
    try:
        calendar = log.calendar or Calendar("D")
        with log.read() as transaction:
            return preview(transaction, _rule(steps, before, calendar), calendar)
    finally:
        log.close()


def prune_log(
    settings: Settings,
    bundle: Bundle,
    *,
    steps: int | None,
    before: str | None,
    vacuum: bool,
    on_progress: OnProgress,
) -> Pruned:
    """
    Remove older steps from the log; the model's states continue from the new beginning.

    Raises:
        BadStamps: `before` is not a stamp of the log.
        LogLocked: A server has the log open, and the log is a file.
    """
    data = bundle.config.data
    log = _open(settings, (*data.known_future, *data.past_only))
    executor = BatchingExecutor(_PATIENCE, 1_000, metrics := Metrics())
    try:
        log.bind_calendar(bundle.calendar)
        writer = Writer(
            Engine(bundle, executor), log, metrics, unknown_series="refuse", limits=Limits()
        )
        snapshots = Snapshots(settings.data_dir / "snapshots", log, bundle.digest)
        restored = recover(writer, snapshots)
        write_queue = WriteQueue(writer, _PATIENCE)
        try:
            pruned = write_queue.prune(
                _rule(steps, before, bundle.calendar), list, on_progress, seconds=_PART
            )
        finally:
            write_queue.close()
        if restored and not log.shared:
            # The snapshots of before belong to a log with other rows.
            snapshots.save(writer.engine)
        if vacuum:
            log.vacuum()
    finally:
        executor.close()
        log.close()
    return pruned


def delete_series(settings: Settings, unique_ids: Sequence[str]) -> int:
    """
    Delete series for good, all or none, and return how many rows they had.

    Raises:
        UnknownSeries: A series is not in the log.
        LogLocked: A server has the log open, and the log is a file.
    """
    log = _open(settings)
    try:
        with log.write() as transaction:
            return transaction.remove(
                [record.number for record in find_series(transaction, unique_ids)]
            )
    finally:
        log.close()


def _stamp(text: str | None, calendar: Calendar) -> int | None:
    try:
        return None if text is None else timestamps.parse_text(text, calendar, "")
    except Refused as refusal:
        raise refusal.error from None


def _rule(steps: int | None, before: str | None, calendar: Calendar) -> RetentionRule:
    return RetentionRule(steps, _stamp(before, calendar))


def _open(settings: Settings, covariates: Sequence[str] = ()) -> ObservationLog:
    try:
        return ObservationLog(settings.log_url, covariates)
    except LogLocked as error:
        error.help = "let the server do it: --server URL; or stop it first"
        raise

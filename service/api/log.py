"""Exports and prunes the observation log while the server answers requests."""

import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import IO

from starlette.responses import StreamingResponse

from service.api import schemas, timestamps
from service.engine.engine import Engine
from service.errors import NotReady, Overloaded
from service.serving.serving import Serving
from service.serving.slot import Slot
from service.settings import Settings
from service.storage.exporter import Selection, export
from service.storage.retention import RetentionRule, preview

_EXPORTS = threading.BoundedSemaphore(2)
"""Limits exports at the same time: each holds a connection and a file as large as the log."""
PARQUET = "application/vnd.apache.parquet"
_PIECE = 1 << 20
"""Bytes sent at a time."""


def prune(slot: Slot, body: schemas.PruneRequest) -> schemas.PrunedLog:
    """
    Remove older steps from the log, or count them for a dry run.

    The states of the model in service and of the one before it continue from the new beginning.

    Raises:
        Refused: `before` is not a stamp of the model's calendar.
        NotReady: A new model is replaying the log and would miss the steps.
        LogError: The log cannot be written; what was removed before stays removed.
    """
    serving, calendar = slot.serving, slot.serving.bundle.calendar
    since = None
    if body.before is not None:
        since = int(timestamps.parse([body.before], calendar, ["/before"])[0])
    rule = RetentionRule(body.keep_steps, since)
    if body.dry_run:
        with serving.log.read() as transaction:
            pruned = preview(transaction, rule, calendar)
    else:
        if slot.successor is not None and slot.successor.phase == "replaying":
            raise NotReady(
                f"version {slot.successor.source.version} is replaying the log",
                help="prune once `successor` in GET /readyz reports its outcome",
            )
        pruned = serving.write_queue.prune(rule, lambda: _engines(slot))
    return schemas.PrunedLog(
        series=pruned.series, steps=pruned.steps, rows=pruned.rows, dry_run=body.dry_run
    )


def parquet(serving: Serving, query: schemas.LogQuery, settings: Settings) -> StreamingResponse:
    """
    Export the log as a Parquet file.

    The file is written to the disk before the first byte is sent. So a slow client holds no
    transaction open, and a failure is still reported by its HTTP status.

    Raises:
        Refused: `since` or `until` is not a stamp of the model's calendar.
        UnknownSeries: A named series is not in the log.
        Overloaded: Two exports are running.
        LogError: The log cannot be read.
    """
    calendar = serving.bundle.calendar
    since, until = (
        None if text is None else timestamps.parse_text(text, calendar, f"query:{name}")
        for name, text in (("since", query.since), ("until", query.until))
    )
    selection = Selection(tuple(query.unique_id), since, until, full=query.full)
    settings.data_dir.mkdir(parents=True, exist_ok=True)  # Missing if the log is elsewhere.
    if not _EXPORTS.acquire(blocking=False):
        raise Overloaded("the log is being exported for others", help="try again later")
    with ExitStack() as cleanup:
        cleanup.callback(_EXPORTS.release)
        with ExitStack() as on_failure:
            file = on_failure.enter_context(tempfile.TemporaryFile(dir=settings.data_dir))
            with serving.log.read() as transaction:
                export(transaction, file, selection, is_integer=calendar.is_integer)
            size = file.tell()
            on_failure.pop_all()  # The response closes the file once it is sent.
    headers = {
        "Content-Length": str(size),
        "Content-Disposition": "attachment; filename=log.parquet",
    }
    return StreamingResponse(_chunks(file), media_type=PARQUET, headers=headers)


def _engines(slot: Slot) -> list[Engine]:
    return [held.engine for held in (slot.serving, slot.previous) if held is not None]


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        file.seek(0)
        while chunk := file.read(_PIECE):
            yield chunk

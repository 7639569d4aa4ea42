"""What operators do with the log while the server answers: read it out, prune it."""

import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import IO

from starlette.responses import StreamingResponse

from service.api import schemas, timestamps
from service.engine.engine import Engine
from service.errors import NotReady, Overloaded
from service.serving.slot import Serving, Slot
from service.settings import Settings
from service.storage.exporter import Selection, export
from service.storage.retention import RetentionRule, preview

_EXPORTS = threading.BoundedSemaphore(2)
"""Those that are made at once: each holds a connection, and a file as large as the log."""
PARQUET = "application/vnd.apache.parquet"
_PIECE = 1 << 20


def prune(slot: Slot, body: schemas.PruneRequest) -> schemas.PrunedLog:
    """
    Take older steps out of the log, or count them; the model before goes on from there, too.

    Raises:
        Refused: `before` is no stamp of the model's calendar.
        NotReady: A new model is replaying the log, and would miss what is taken out.
        LogError: The log cannot be written; what was taken out before stays so.
    """
    serving, calendar = slot.serving, slot.serving.bundle.calendar
    since = None
    if body.before is not None:
        since = int(timestamps.parse([body.before], calendar, ["/before"])[0])
    keep = RetentionRule(body.keep_steps, since)
    if body.dry_run:
        with serving.log.read() as transaction:
            taken = preview(transaction, keep, calendar)
    else:
        if slot.successor is not None and slot.successor.phase == "replaying":
            raise NotReady(
                f"version {slot.successor.source.version} is replaying the log",
                help="prune once GET /readyz says under `successor` what became of it",
            )
        taken = serving.write_queue.prune(keep, lambda: _held(slot))
    return schemas.PrunedLog(
        series=taken.series, steps=taken.steps, rows=taken.rows, dry_run=body.dry_run
    )


def parquet(serving: Serving, query: schemas.LogQuery, settings: Settings) -> StreamingResponse:
    """
    The log as a Parquet file.

    It is written to the disk before the first byte is sent: a client that reads slowly holds no
    transaction open, and what goes wrong is told with its status.

    Raises:
        Refused: `since` or `until` is no stamp of the model's calendar.
        UnknownSeries: One of those named is not there.
        Overloaded: Others are being made.
        LogError: The log cannot be read.
    """
    calendar = serving.bundle.calendar
    since, until = (
        None if text is None else timestamps.parse_text(text, calendar, f"query:{name}")
        for name, text in (("since", query.since), ("until", query.until))
    )
    chosen = Selection(tuple(query.unique_id), since, until, full=query.full)
    settings.data_dir.mkdir(parents=True, exist_ok=True)  # none yet where the log is elsewhere
    if not _EXPORTS.acquire(blocking=False):
        raise Overloaded("the log is being read out for others", help="try again later")
    with ExitStack() as made:
        made.callback(_EXPORTS.release)
        with ExitStack() as failed:
            file = failed.enter_context(tempfile.TemporaryFile(dir=settings.data_dir))
            with serving.log.read() as transaction:
                export(transaction, file, chosen, is_integer=calendar.is_integer)
            size = file.tell()
            failed.pop_all()  # it is closed when it is sent
    headers = {
        "Content-Length": str(size),
        "Content-Disposition": "attachment; filename=log.parquet",
    }
    return StreamingResponse(_pieces(file), media_type=PARQUET, headers=headers)


def _held(slot: Slot) -> list[Engine]:
    return [one.engine for one in (slot.serving, slot.previous) if one is not None]


def _pieces(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        file.seek(0)
        while piece := file.read(_PIECE):
            yield piece

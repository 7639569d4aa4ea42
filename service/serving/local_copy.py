"""
The server's own copy of the model in service, which the next start begins with.

A server is started again just when something is wrong: the registry is away, the version that it
names now is damaged or forecasts wildly, or was left by a rollback. What served last needs none of
them. A start begins with it and its snapshots, and what the source names takes over as it would
have otherwise. `<data_dir>/bundles` holds that one bundle, under its digest, and a note.
"""

import json
import logging
import re
import shutil
from dataclasses import asdict, dataclass

from forecast.bundle import Bundle, load_bundle, save_bundle
from forecast.errors import BundleError, ModelSourceError
from forecast.files import write_file
from service.serving.model_source import Source, fetch
from service.settings import Settings
from service.storage.log import ObservationLog

_NOTE = "in_service.json"
_COPY = re.compile(r"\.?[0-9a-f]{64}(\.new)?")
"""Folders of copies, whole or half-written: others are somebody's, who keeps models there."""
logger = logging.getLogger("service.copies")


@dataclass(frozen=True, slots=True)
class LocalCopy:
    """A model, and what is known of its source."""

    source: Source
    bundle: Bundle
    left: Source | None = None
    """The model that a rollback left: it stays out while the source names it."""


def choose(settings: Settings) -> LocalCopy:
    """
    The model to begin with: what was in service last over this log, else what the source names.

    Raises:
        UnknownModel, ModelSourceError, BundleError: As for `fetch`; there is no copy that serves.
        LogError: The log cannot be opened.
    """
    kept = read(settings)
    if kept is not None and _is_of(settings.log_url, kept.bundle):
        return kept
    try:
        return LocalCopy(*fetch(settings))
    except ModelSourceError as error:
        if kept is None:
            raise
        logger.warning("%s; serving the copy of %s", error.message, kept.source.mark)
        return kept


def keep(settings: Settings, copy: LocalCopy) -> None:
    """
    Have the next start begin with this model; copies of others go.

    Where it cannot be written a warning is logged: the next start begins with what was kept before,
    or with what the source names.
    """
    folder, digest = settings.data_dir / "bundles", copy.source.digest
    noted = {
        "model": settings.model,
        "source": asdict(copy.source),
        "left": copy.left and asdict(copy.left),
    }
    text = json.dumps(noted).encode()
    note = folder / _NOTE
    try:
        if not (folder / digest).exists():
            save_bundle(copy.bundle, folder / digest)
        if not note.is_file() or note.read_bytes() != text:
            write_file(note, text)
        for path in folder.iterdir():
            if _COPY.fullmatch(path.name) and path.name != digest:
                shutil.rmtree(path)
    except (OSError, BundleError) as error:
        logger.warning("no copy of %s is kept: %s", copy.source.mark, error)


def read(settings: Settings) -> LocalCopy | None:
    """The copy of what was in service last; None where there is none, or a damaged one."""
    folder = settings.data_dir / "bundles"
    try:
        noted = json.loads((folder / _NOTE).read_bytes())
        source, left = Source(**noted["source"]), noted["left"] and Source(**noted["left"])
        if noted["model"] != settings.model:
            return None
        bundle = load_bundle(folder / source.digest)
    except (OSError, ValueError, TypeError, KeyError):
        return None
    except BundleError as error:
        logger.warning("the copy of %s is left out: %s", source.mark, error)
        shutil.rmtree(folder / source.digest, ignore_errors=True)
        return None
    return LocalCopy(source, bundle, left)


def _is_of(log_url: str, bundle: Bundle) -> bool:
    """Whether the log was begun, with the frequency of this model."""
    log = ObservationLog(log_url)
    try:
        begun = log.calendar
    finally:
        log.close()
    return begun is not None and begun.freq == bundle.calendar.freq

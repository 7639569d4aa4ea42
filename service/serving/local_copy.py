"""
The server's own copy of the model in service, which the next start begins with.

A server is often restarted just when something is wrong: the registry cannot be reached, or the
version that it names is damaged, forecasts wildly or was rolled back. The model that served last
needs none of that. The server starts from this copy and its snapshots; a newer version at the
source then replaces it by the normal rollout.

`<data_dir>/bundles` holds the bundle in a directory named by its digest, and `in_service.json` with
the source that it came from.
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
"""Names of directories that hold copies, whole or half-written; no other directory is removed."""
logger = logging.getLogger("service.copies")


@dataclass(frozen=True, slots=True)
class LocalCopy:
    """A model and the source that it came from."""

    source: Source
    bundle: Bundle
    rolled_back: Source | None = None
    """The model that a rollback took out of service: it stays out while the source names it."""


def choose(settings: Settings) -> LocalCopy:
    """
    Return the model to start with: the copy if the log has its frequency, else the source's model.

    Raises:
        UnknownModel, ModelSourceError, BundleError: The source gives no model, as for `fetch`, and
            there is no copy to serve instead.
        LogError: The log cannot be opened.
    """
    copy = read(settings)
    if copy is not None and _fits_log(copy.bundle, settings.log_url):
        return copy
    try:
        return LocalCopy(*fetch(settings))
    except ModelSourceError as error:
        if copy is None:
            raise
        logger.warning("%s; serving the copy of %s", error.message, copy.source.identifier)
        return copy


def save(settings: Settings, copy: LocalCopy) -> None:
    """
    Make this the model that the next start begins with, and remove copies of other models.

    If the copy cannot be written, a warning is logged: the next start then begins with the copy
    before it, or with the model that the source names.
    """
    folder, digest = settings.data_dir / "bundles", copy.source.digest
    content = {
        "model": settings.model,
        "source": asdict(copy.source),
        "left": copy.rolled_back and asdict(copy.rolled_back),
    }
    text = json.dumps(content).encode()
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
        logger.warning("cannot keep a copy of %s: %s", copy.source.identifier, error)


def read(settings: Settings) -> LocalCopy | None:
    """
    Return the copy of the model that was in service last.

    Returns None if there is no copy, if it is of another `settings.model`, or if it is damaged; a
    damaged copy is removed.
    """
    folder = settings.data_dir / "bundles"
    try:
        content = json.loads((folder / _NOTE).read_bytes())
        source = Source(**content["source"])
        rolled_back = content["left"] and Source(**content["left"])
        if content["model"] != settings.model:
            return None
        bundle = load_bundle(folder / source.digest)
    except (OSError, ValueError, TypeError, KeyError):
        return None
    except BundleError as error:
        logger.warning("ignoring the copy of %s: %s", source.identifier, error)
        shutil.rmtree(folder / source.digest, ignore_errors=True)
        return None
    return LocalCopy(source, bundle, rolled_back)


def _fits_log(bundle: Bundle, log_url: str) -> bool:
    """Return whether the log has a frequency, and the model the same one."""
    log = ObservationLog(log_url)
    try:
        calendar = log.calendar
    finally:
        log.close()
    return calendar is not None and calendar.freq == bundle.calendar.freq

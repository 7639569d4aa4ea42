"""
Snapshots of live states on the disk, so that a start replays only what came after them.

Snapshots are a cache of the log. There is one file per block of series, and only blocks that have
changed are written again. Each file records the last batch of the log in its states, with the
fingerprint of that batch: a log restored to an earlier day has another. `mark.json` states that all
files together lack nothing up to its batch: blocks whose files are older have not changed since.
"""

import json
import shutil
import zlib
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from forecast.errors import StateError
from forecast.files import write_file
from forecast.inference.states import States
from service.engine.engine import Block, Engine
from service.errors import LogError
from service.storage.log import ObservationLog

_FORMAT = 2
_MARK = "mark.json"


class Snapshots:
    """
    The snapshots of one model over one log.

    Args:
        folder: Folder of the snapshots of all models.
        log: The log; snapshots of another log are not read.
        digest: Digest of the model.
    """

    def __init__(self, folder: Path, log: ObservationLog, digest: str) -> None:
        self.folder = folder / f"{log.log_id[:12]}-{digest[:16]}"
        self._log, self._digest = log, digest

    def save(self, engine: Engine, *, stopped: Callable[[], bool] = lambda: False) -> int:
        """
        Write the blocks that changed and return how many.

        Raises:
            OSError: The disk is full or read-only; the snapshots before stay valid.
            LogError: The log cannot be read, or the states belong to another history of it.
        """
        executor = engine.executor
        batch, moved = executor.run_idle(lambda: (engine.batch, engine.moved_blocks()))
        header = cache(partial(self._header, engine))
        self.folder.mkdir(parents=True, exist_ok=True)
        for place in moved:
            if stopped():
                return 0
            block = executor.run_idle(partial(engine.copy_block, place))
            try:
                write_file(self.folder / _name(place), _pack(block, header(block.batch)))
            except OSError:
                engine.not_copied(place)
                raise
        write_file(self.folder / _MARK, json.dumps(header(batch)).encode())
        return len(moved)

    def load(self, engine: Engine) -> tuple[int, dict[int, Block]]:
        """
        Return the batch after which the log must be read, and the blocks by index.

        Files that are damaged, or of another format or log, are ignored. If the mark is unusable
        all files are deleted: a later mark would vouch for files that were not written again.
        """
        header = cache(partial(self._header, engine))
        try:
            mark = json.loads((self.folder / _MARK).read_bytes())
            batch = int(mark["batch"])
        except (OSError, ValueError, KeyError, TypeError):
            mark, batch = None, 0
        if mark is None or mark != header(batch):
            self.forget()
            return 0, {}
        blocks = {}
        for path in sorted(self.folder.glob("block-*.state")):
            block = _unpack(path, header)
            if block is not None:
                blocks[int(path.stem.removeprefix("block-"))] = block
        return batch, blocks

    def _header(self, engine: Engine, batch: int) -> dict[str, Any]:
        """Return the header of the mark and of the files for a batch."""
        with self._log.read() as transaction:
            fingerprint = transaction.fingerprint(batch)
        if transaction.timeline != engine.timeline:
            raise LogError(
                "the log was restored or has another primary: its series are replayed first",
                where=self._log.place,
            )
        return {
            "format": _FORMAT,
            "log_id": self._log.log_id,
            "digest": self._digest,
            "batch": batch,
            "print": fingerprint,
            "block": engine.block,
        }

    def forget(self) -> None:
        """Delete the snapshots."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def forget_others(self) -> None:
        """Delete the snapshots of other models over the same log."""
        for folder in self.folder.parent.glob(f"{self.folder.name.partition('-')[0]}-*"):
            if folder != self.folder:
                shutil.rmtree(folder, ignore_errors=True)


def _pack(block: Block, header: dict[str, Any]) -> bytes:
    arrays = {
        "numbers": block.numbers,
        "first_ds": block.first_ds,
        "rebuilt": block.rebuilt,
        "states": np.frombuffer(block.states.to_bytes(), np.uint8),
    }
    payload = save_arrays(arrays)
    return json.dumps({**header, "crc": zlib.crc32(payload)}).encode() + b"\n" + payload


def _unpack(path: Path, expected: Callable[[int], dict[str, Any]]) -> Block | None:
    try:
        line, _, payload = path.read_bytes().partition(b"\n")
        header = json.loads(line)
        if header != {**expected(header["batch"]), "crc": zlib.crc32(payload)}:
            return None
        arrays = load_arrays(payload)
        return Block(
            header["batch"],
            arrays["numbers"],
            arrays["first_ds"],
            arrays["rebuilt"],
            States.from_bytes(arrays["states"].tobytes()),
        )
    except (OSError, ValueError, KeyError, TypeError, SafetensorError, StateError):
        return None


def _name(place: int) -> str:
    return f"block-{place:06}.state"

"""
States on the disk, so that a start replays only what came since: a cache of the log, never more.

A file a block of series, written beside the old one and moved over it; only blocks that moved
since are written again. Each file says which batch of the log is in it, with the print of that
batch: a log put back to an earlier day has another. `mark.json` says of all files together that
they lack nothing of the batches up to its own: a block whose file is older has not moved by then.
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
    Those of one model over one log.

    Args:
        folder: Where the snapshots of all models are.
        log: Whose states they are; another one's are not read.
        digest: Of the model.
    """

    def __init__(self, folder: Path, log: ObservationLog, digest: str) -> None:
        self.folder = folder / f"{log.log_id[:12]}-{digest[:16]}"
        self._log, self._digest = log, digest

    def save(self, engine: Engine, *, stopped: Callable[[], bool] = lambda: False) -> int:
        """
        Write the blocks that moved; returns how many.

        Raises:
            OSError: The disk is full or not to be written; what was there still holds.
            LogError: The log cannot be read, or is not the one that the states are of.
        """
        executor = engine.executor
        batch, moved = executor.run_idle(lambda: (engine.batch, engine.moved_blocks()))
        told = cache(partial(self._told, engine))
        self.folder.mkdir(parents=True, exist_ok=True)
        for place in moved:
            if stopped():
                return 0
            block = executor.run_idle(partial(engine.copy_block, place))
            try:
                write_file(self.folder / _name(place), _pack(block, told(block.batch)))
            except OSError:
                engine.not_copied(place)
                raise
        write_file(self.folder / _MARK, json.dumps(told(batch)).encode())
        return len(moved)

    def load(self, engine: Engine) -> tuple[int, dict[int, Block]]:
        """
        The batch from which on the log has to be read, and the blocks by their places.

        What is damaged, of another format or another log is left out, as if it were not there. If
        the mark is, all goes: a later mark would vouch for files that nobody wrote again.
        """
        told = cache(partial(self._told, engine))
        try:
            mark = json.loads((self.folder / _MARK).read_bytes())
            batch = int(mark["batch"])
        except (OSError, ValueError, KeyError, TypeError):
            mark, batch = None, 0
        if mark is None or mark != told(batch):
            self.forget()
            return 0, {}
        blocks = {}
        for path in sorted(self.folder.glob("block-*.state")):
            block = _unpack(path, told)
            if block is not None:
                blocks[int(path.stem.removeprefix("block-"))] = block
        return batch, blocks

    def _told(self, engine: Engine, batch: int) -> dict[str, Any]:
        """What mark and files of a batch say."""
        with self._log.read() as transaction:
            found = transaction.fingerprint(batch)
        if transaction.timeline != engine.timeline:
            raise LogError(
                "the log was put back or has another primary: its series are replayed first",
                where=self._log.place,
            )
        return {
            "format": _FORMAT,
            "log_id": self._log.log_id,
            "digest": self._digest,
            "batch": batch,
            "print": found,
            "block": engine.block,
        }

    def forget(self) -> None:
        """Take them away."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def forget_others(self) -> None:
        """Take away those of models that were served over the same log before."""
        for folder in self.folder.parent.glob(f"{self.folder.name.partition('-')[0]}-*"):
            if folder != self.folder:
                shutil.rmtree(folder, ignore_errors=True)


def _pack(block: Block, told: dict[str, Any]) -> bytes:
    arrays = {
        "numbers": block.numbers,
        "first_ds": block.first_ds,
        "rebuilt": block.rebuilt,
        "states": np.frombuffer(block.states.to_bytes(), np.uint8),
    }
    payload = save_arrays(arrays)
    return json.dumps({**told, "crc": zlib.crc32(payload)}).encode() + b"\n" + payload


def _unpack(path: Path, told: Callable[[int], dict[str, Any]]) -> Block | None:
    try:
        header, _, payload = path.read_bytes().partition(b"\n")
        found = json.loads(header)
        if found != {**told(found["batch"]), "crc": zlib.crc32(payload)}:
            return None
        arrays = load_arrays(payload)
        return Block(
            found["batch"],
            arrays["numbers"],
            arrays["first_ds"],
            arrays["rebuilt"],
            States.from_bytes(arrays["states"].tobytes()),
        )
    except (OSError, ValueError, KeyError, TypeError, SafetensorError, StateError):
        return None


def _name(place: int) -> str:
    return f"block-{place:06}.state"

"""The folder of a run's checkpoints and notes, which survives an interrupt."""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from forecast.config import Config
from forecast.errors import CheckpointError
from forecast.files import write_file
from forecast.training import checkpoints
from pipelines.errors import UsageError
from pipelines.workflows.job import Job


@dataclass(slots=True)
class Workspace:
    """
    Folder of one job for one set of data, locked by this process.

    Checkpoints are kept in a sub-folder for each stage, notes in `run.json`.
    """

    folder: Path
    notes: dict[str, Any] = field(default_factory=dict)
    """What the interrupted run recorded: MLflow run id, training events."""
    discarded: bool = False
    """Whether an interrupted run of this job was found and not resumed."""

    @classmethod
    @contextlib.contextmanager
    def open(cls, job: Job, digest: str, config: Config) -> Iterator["Workspace"]:
        """
        Open and lock the folder of this job with these data and settings.

        Raises:
            CheckpointError: `resume` is set but no run of this job was interrupted, or its notes
                cannot be read.
            UsageError: The same job is running.
        """
        identity = {
            "digest": digest,
            "config": config.to_dict(),
            "name": job.name,
            "refit": job.refit,
            "windows": job.windows,
            "step_size": job.step_size,
            "baselines": job.baselines,
        }
        key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]
        root = job.data_dir / "checkpoints"
        root.mkdir(parents=True, exist_ok=True)
        with _locked(root / f"{key}.lock"):
            yield cls._prepare(job, root / key)

    @classmethod
    def _prepare(cls, job: Job, folder: Path) -> "Workspace":
        root, workspace = folder.parent, cls(folder)
        interrupted = (folder / "run.json").is_file()
        if not job.resume and not (job.resume is None and interrupted):
            workspace.discarded = interrupted
            shutil.rmtree(folder, ignore_errors=True)
        elif not interrupted:
            others = sorted(path.parent.name for path in root.glob("*/run.json"))
            raise CheckpointError(
                "nothing to resume: no interrupted run has these data and settings",
                where=str(root),
                help=f"interrupted runs: {', '.join(others)}; repeat the command one was started "
                "with, and add --resume"
                if others
                else "run without --resume",
            )
        else:
            workspace.notes = _read_notes(folder / "run.json")
        folder.mkdir(parents=True, exist_ok=True)
        return workspace

    def note(self, **values: Any) -> None:
        """Record values for a resumed run."""
        self.notes |= values
        write_file(self.folder / "run.json", json.dumps(self.notes).encode())

    def saved_step(self) -> tuple[str, int] | None:
        """Return the stage whose checkpoint is the latest, and its optimiser step."""
        latest: tuple[str, int] | None = None
        for stage in ("learn", "refit"):
            path = self.folder / stage / checkpoints.NAME
            try:
                with safe_open(path, framework="pt") as file:
                    latest = (stage, int(json.loads(file.metadata()["notes"])["step"]))
            except (OSError, SafetensorError, KeyError, ValueError):
                continue
        return latest


class Stopped(KeyboardInterrupt):
    """The job was interrupted; `workspace` holds what is kept."""

    def __init__(self, workspace: Workspace) -> None:
        super().__init__()
        self.workspace = workspace


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock file of a job; the lock falls with the process, however it ends."""
    with path.open("a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise UsageError(
                "this job, with these data and settings, is running already",
                where=lock.read().strip(),
                help="wait for it; it does not need --resume",
            ) from None
        if not path.exists() or not os.path.samestat(path.stat(), os.fstat(lock.fileno())):
            raise UsageError(
                "this job has just ended", where=str(path), help="start it again if needed"
            )
        lock.truncate(0)
        lock.write(f"process {os.getpid()}")
        lock.flush()
        try:
            yield
        finally:
            path.unlink()


def _read_notes(path: Path) -> dict[str, Any]:
    try:
        notes = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        notes = None
    if not isinstance(notes, dict):
        raise CheckpointError(
            "the notes of the interrupted run cannot be read",
            where=str(path),
            help="start it again without --resume",
        )
    return notes

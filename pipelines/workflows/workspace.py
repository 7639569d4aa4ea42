"""The folder that survives an interrupt."""

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
    """The folder of a run's checkpoints, which outlives an interrupt."""

    folder: Path
    notes: dict[str, Any] = field(default_factory=dict)
    discarded: bool = False
    """Whether an interrupted run of the same job was here, and was not resumed."""

    @classmethod
    @contextlib.contextmanager
    def open(cls, job: Job, digest: str, config: Config) -> Iterator["Workspace"]:
        """
        The folder for exactly this job and these data, for this process alone.

        Raises:
            CheckpointError: `resume` was asked, and no run of this job was interrupted, or what it
                noted cannot be read.
            UsageError: This very job is running.
        """
        asked = {
            "digest": digest,
            "config": config.to_dict(),
            "name": job.name,
            "refit": job.refit,
            "windows": job.windows,
            "step_size": job.step_size,
            "baselines": job.baselines,
        }
        key = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:12]
        root = job.data_dir / "checkpoints"
        root.mkdir(parents=True, exist_ok=True)
        with _alone(root / f"{key}.lock"):
            yield cls._begun(job, root / key)

    @classmethod
    def _begun(cls, job: Job, folder: Path) -> "Workspace":
        root, work = folder.parent, cls(folder)
        kept = (work.folder / "run.json").is_file()
        if not job.resume and not (job.resume is None and kept):
            work.discarded = kept
            shutil.rmtree(work.folder, ignore_errors=True)
        elif not kept:
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
            work.notes = _read_notes(work.folder / "run.json")
        work.folder.mkdir(parents=True, exist_ok=True)
        return work

    def note(self, **values: Any) -> None:
        """Remember something for a resumed run."""
        self.notes |= values
        write_file(self.folder / "run.json", json.dumps(self.notes).encode())

    def saved_step(self) -> tuple[str, int] | None:
        """The training whose checkpoint is the latest, and its step."""
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
    """The job was interrupted; `work` says what is kept."""

    def __init__(self, work: Workspace) -> None:
        super().__init__()
        self.work = work


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold the lock of a job, which ends with its process whatever ends that."""
    with path.open("a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise UsageError(
                "this very job, with these data and settings, is running already",
                where=lock.read().strip(),
                help="wait for it; it goes on by itself, so that --resume is not needed",
            ) from None
        if not path.exists() or not os.path.samestat(path.stat(), os.fstat(lock.fileno())):
            raise UsageError(
                "this very job has just ended", where=str(path), help="start it again if need be"
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
            "what the interrupted run noted cannot be read",
            where=str(path),
            help="start it again without --resume",
        )
    return notes

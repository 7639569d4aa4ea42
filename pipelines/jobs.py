"""What is asked of a training run, and the folder in which it survives an interrupt."""

import hashlib
import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from forecast import checkpoints
from forecast.config import Config
from forecast.errors import CheckpointError


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What is asked of one run."""

    source: str
    """File or SQLAlchemy URL."""
    config: Config
    query: str | None = None
    name: str = "statecast"
    """Of the registered model."""
    data_dir: Path = Path("data")
    tracking_uri: str
    windows: int = 2
    step_size: int | None = None
    baselines: tuple[str, ...] | None = None
    min_gain: float = 0.0
    threads: int = 1
    """Of torch: with small networks more are slower, and change the last digits."""
    promote: bool = True
    """False registers the challenger and leaves the champion alone."""
    refit: bool = True
    """False puts the model into the registry that the backtest scored."""
    resume: bool | None = False
    """Go on with an interrupted run of the same job; None does so if there is one."""


@dataclass(slots=True)
class Work:
    """The folder of a run's checkpoints, which outlives an interrupt."""

    folder: Path
    notes: dict[str, Any] = field(default_factory=dict)
    discarded: bool = False
    """Whether an interrupted run of the same job was here, and was not resumed."""

    @classmethod
    def open(cls, job: Job, digest: str, config: Config) -> "Work":
        """
        The folder for exactly this job and these data.

        Raises:
            CheckpointError: `resume` was asked, and no run of this job was interrupted.
        """
        asked = {
            "digest": digest, "config": config.to_dict(), "name": job.name, "refit": job.refit,
            "windows": job.windows, "step_size": job.step_size, "baselines": job.baselines,
        }  # fmt: skip
        key = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:12]
        root = job.data_dir / "checkpoints"
        work = cls(root / key)
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
            work.notes = json.loads((work.folder / "run.json").read_text(encoding="utf-8"))
        work.folder.mkdir(parents=True, exist_ok=True)
        return work

    def note(self, **values: Any) -> None:
        """Remember something for a resumed run."""
        self.notes |= values
        fresh = self.folder / "run.json.new"
        fresh.write_text(json.dumps(self.notes), encoding="utf-8")
        fresh.replace(self.folder / "run.json")

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

    def __init__(self, work: Work) -> None:
        super().__init__()
        self.work = work


def shown(source: str) -> str:
    """A source without a password in it."""
    scheme, mark, rest = source.partition("://")
    return f"{scheme}{mark}{rest.rpartition('@')[2]}" if mark else source

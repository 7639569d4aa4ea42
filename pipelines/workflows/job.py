"""The options of one training run."""

from dataclasses import dataclass
from pathlib import Path

from forecast.config import Config
from forecast.errors import nearest
from pipelines.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Options of one training run; checked before anything is trained."""

    source: str
    """File or SQLAlchemy URL."""
    config: Config
    query: str | None = None
    name: str = "statecast"
    """Name of the registered model."""
    data_dir: Path = Path("data")
    """Folder of checkpoints and artifacts."""
    tracking_uri: str
    """MLflow's store: `sqlite:///...` or the address of a tracking server."""
    windows: int = 2
    """Number of cutoffs of the backtest."""
    step_size: int | None = None
    """Steps from one cutoff to the next; None is the horizon."""
    baselines: tuple[str, ...] | None = None
    """Baselines of the backtest; None takes those that suit the data."""
    min_gain: float = 0.0
    """Relative gain over the champion that a promotion requires."""
    threads: int = 1
    """Threads of torch. More are slower for small networks and change the last digits."""
    promote: bool = True
    """Whether a challenger that passes the gate becomes the champion."""
    refit: bool = True
    """Whether the registered model is trained again on all data; False registers the scored one."""
    resume: bool | None = False
    """Whether to continue an interrupted run of this job; None continues one if there is one."""

    def __post_init__(self) -> None:
        """Refuse options that would otherwise fail only after the training."""
        from forecast.evaluation.baselines import MODELS

        if not self.name or set(self.name) & set("/:@"):
            raise UsageError(
                f"{self.name!r} cannot be the name of a registered model",
                help="use a name without / : and @",
            )
        for baseline in self.baselines or ():
            if baseline not in MODELS:
                near = nearest(baseline, sorted(MODELS), cutoff=0.4)
                raise UsageError(
                    f"no baseline {baseline!r}: there are {', '.join(MODELS)}",
                    help=f"did you mean {near}?" if near else "name some of them",
                )

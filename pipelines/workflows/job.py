"""What is asked of a training run, and the folder in which it survives an interrupt."""

from dataclasses import dataclass
from pathlib import Path

from forecast.config import Config
from forecast.errors import nearest
from pipelines.errors import UsageError


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

    def __post_init__(self) -> None:
        """Refuse what would only be found wrong once everything is trained."""
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

"""
Files through which a case goes to the process of a peer and its forecasts come back.

The benchmark writes `task.json`, `train.parquet` (unique_id, ds, y, observed and the covariates
known ahead), `future.parquet` (unique_id, ds and these covariates, for the steps to forecast) and
`static.parquet`. The peer writes `forecasts.parquet` (unique_id, ds, `mean` if it has one, and a
column for each quantile: "0.025", ..., "0.975") and `run.json`. Both sides import this module,
which needs only pandas.
"""

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

LEVELS = (50, 80, 90, 95)
"""Central intervals requested from every peer; their ends and the median are `QUANTILES`."""
QUANTILES = (0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.975)
MEDIAN = "0.5"


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One run: what to forecast, with which data, and for how long to train."""

    case: str
    model: str
    horizon: int
    freq: str | int
    """A pandas offset, or 1 for integer stamps."""
    period: str
    """Frequency as in a pandas `Period` (h, D, W-SUN, M, Q, Y), also for integer stamps."""
    season_length: int
    """Season length of the statistical models, in steps."""
    seasons: tuple[int, ...]
    """Season lengths of the other models, the shortest first; empty if there is no season."""
    known_future: tuple[str, ...]
    static_real: tuple[str, ...]
    static_categories: dict[str, int]
    """Number of categories of each column; its codes start at 0."""
    counts: bool
    """True if values are whole numbers and many of them are 0."""
    budget_s: float | None
    """Processor seconds of training; None means no limit."""
    seed: int = 1

    @property
    def season(self) -> int:
        """The shortest season length, 1 if there is no season."""
        return self.seasons[0] if self.seasons else 1

    def write(self, folder: Path) -> None:
        """Write the task into the folder."""
        (folder / "task.json").write_text(json.dumps(asdict(self)))


@dataclass(frozen=True, slots=True)
class PeerInput:
    """A task and its tables, as a peer reads them."""

    folder: Path
    task: Task
    train: pd.DataFrame
    future: pd.DataFrame
    static: pd.DataFrame

    @property
    def lengths(self) -> pd.Series:
        """Number of training steps of each series."""
        return self.train.groupby("unique_id", sort=False).size()


def read_input(folder: Path) -> PeerInput:
    """Read the task and the tables from the folder."""
    fields = json.loads((folder / "task.json").read_text())
    tuples = {key: tuple(value) for key, value in fields.items() if isinstance(value, list)}
    tables = (pd.read_parquet(folder / f"{part}.parquet") for part in ("train", "future", "static"))
    return PeerInput(folder, Task(**{**fields, **tuples}), *tables)


class Clock:
    """
    Measure wall and processor seconds of consecutive laps.

    >>> clock = Clock()
    >>> clock.lap("fit")
    >>> sorted(clock.laps)
    ['fit_cpu_seconds', 'fit_seconds']
    """

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def lap(self, name: str) -> None:
        """End a lap and start the next one."""
        wall, cpu = time.perf_counter(), time.process_time()
        self.laps[f"{name}_seconds"] = wall - self._wall
        self.laps[f"{name}_cpu_seconds"] = cpu - self._cpu
        self._wall, self._cpu = time.perf_counter(), time.process_time()


class TrainingBudget:
    """
    Lightning callback that counts steps and epochs and stops the training at its budget.

    The budget is in processor seconds, so that other load on the machine costs the peer nothing.
    The class is mixed into the `Callback` of the Lightning package that the library uses. The
    counts are class attributes, because some libraries train with a copy of their callbacks.
    """

    budget_s: float | None = None
    steps = epochs = 0
    start = 0.0

    def on_train_start(self, *_: Any) -> None:
        """Start the budget."""
        type(self).start = time.process_time()

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        """Count a step, and stop the training if the budget is used up."""
        cls = type(self)
        cls.steps = trainer.global_step
        if cls.budget_s is not None and time.process_time() - cls.start > cls.budget_s:
            trainer.should_stop = True

    def on_train_epoch_end(self, trainer: Any, *_: Any) -> None:
        """Count a whole epoch."""
        type(self).epochs = trainer.current_epoch + 1


def write_output(
    data: PeerInput,
    forecasts: pd.DataFrame,
    clock: Clock,
    *,
    settings: str,
    steps: int | None = None,
    stopped: bool = False,
) -> None:
    """
    Write the forecasts and the report of the run.

    Args:
        data: The input of the run.
        forecasts: unique_id, ds, `mean` if there is one, and a column for each quantile.
        clock: A clock with the laps "fit" and "predict".
        settings: Settings that differ from the defaults of the library, as text.
        steps: Number of optimiser steps or trees, if there are any.
        stopped: Whether training stopped at the budget.
    """
    names = [str(q) for q in QUANTILES if str(q) in forecasts.columns]
    point = ["mean"] if "mean" in forecasts.columns else []
    forecasts[["unique_id", "ds", *point, *names]].to_parquet(data.folder / "forecasts.parquet")
    run = {**clock.laps, "settings": settings, "steps": steps, "stopped": stopped}
    (data.folder / "run.json").write_text(json.dumps(run))


def rename_levels(table: pd.DataFrame, model: str, *, median: str | None = None) -> pd.DataFrame:
    """
    Rename `MODEL-lo-80` and the like to quantiles, and the point forecast to the median.

    >>> table = pd.DataFrame({"unique_id": ["a"], "ds": [1], "m": 2.0, "m-lo-80": 1.0})
    >>> list(rename_levels(table, "m").columns)
    ['unique_id', 'ds', '0.5', '0.1']
    """
    names = {median or model: MEDIAN}
    for level in LEVELS:
        names[f"{model}-lo-{level}"] = str(round(0.5 - level / 200, 3))
        names[f"{model}-hi-{level}"] = str(round(0.5 + level / 200, 3))
    return table.rename(columns=names)

"""
What goes to the process of a peer and what comes back: plain files in a folder.

Our side writes `task.json`, `train.parquet` (unique_id, ds, y, observed and the covariates known
ahead), `future.parquet` (the same without y, for the steps to forecast) and `static.parquet`. The
peer writes `forecasts.parquet` (unique_id, ds, `mean` if it has one, and a column a quantile:
"0.025", ..., "0.975") and `run.json`. Both sides import this module, which needs only pandas.
"""

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

LEVELS = (50, 80, 90, 95)
"""Central intervals asked of every peer; their ends and the median are `QUANTILES`."""
QUANTILES = (0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.975)
MEDIAN = "0.5"


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One run: what to forecast, with what, and for how long to train."""

    case: str
    model: str
    horizon: int
    freq: str | int
    """A pandas offset, or 1 for integer stamps."""
    period: str
    """Of pandas' `Period`: h, D, W-SUN, M, Q or Y; for integers what their season stands for."""
    season_length: int
    """Of the statistical models."""
    seasons: tuple[int, ...]
    """What the other models are told, the shortest first; empty where there is none."""
    known_future: tuple[str, ...]
    static_real: tuple[str, ...]
    static_categories: dict[str, int]
    """Columns of codes from 0, and how many there are."""
    counts: bool
    """Whole numbers, of which many are zero."""
    budget_s: float | None
    """Processor seconds of training; None for no limit."""
    seed: int = 1

    @property
    def season(self) -> int:
        """The shortest season, 1 where there is none."""
        return self.seasons[0] if self.seasons else 1

    def write(self, folder: Path) -> None:
        """Put it into the folder."""
        (folder / "task.json").write_text(json.dumps(asdict(self)))


@dataclass(frozen=True, slots=True)
class Given:
    """The task and its tables, as a peer reads them."""

    folder: Path
    task: Task
    train: pd.DataFrame
    future: pd.DataFrame
    static: pd.DataFrame

    @property
    def lengths(self) -> pd.Series:
        """Steps of each series."""
        return self.train.groupby("unique_id", sort=False).size()


def receive(folder: Path) -> Given:
    """Read what our side wrote."""
    said = json.loads((folder / "task.json").read_text())
    lists = {key: tuple(value) for key, value in said.items() if isinstance(value, list)}
    tables = (pd.read_parquet(folder / f"{part}.parquet") for part in ("train", "future", "static"))
    return Given(folder, Task(**{**said, **lists}), *tables)


class Clock:
    """
    Wall and processor seconds between laps.

    >>> clock = Clock()
    >>> clock.lap("fit")
    >>> sorted(clock.laps)
    ['fit_cpu_seconds', 'fit_seconds']
    """

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def lap(self, name: str) -> None:
        """End a lap and begin the next one."""
        wall, cpu = time.perf_counter(), time.process_time()
        self.laps[f"{name}_seconds"] = wall - self._wall
        self.laps[f"{name}_cpu_seconds"] = cpu - self._cpu
        self._wall, self._cpu = time.perf_counter(), time.process_time()


class Watch:
    """
    A callback of Lightning: counts steps and epochs, ends the training at its budget.

    The budget is in seconds of the processor, so that what else the machine does costs the peer
    nothing. Mixed into the `Callback` of whichever Lightning the library uses. What it counts
    belongs to the class, for some libraries train with a copy of the callbacks they are given.
    """

    budget_s: float | None = None
    steps = epochs = 0
    start = 0.0

    def on_train_start(self, *_: Any) -> None:
        """The budget runs from here."""
        type(self).begun = time.process_time()

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        """Note where the training is; stop it if the budget is used up."""
        cls = type(self)
        cls.steps = trainer.global_step
        if cls.budget_s is not None and time.process_time() - cls.begun > cls.budget_s:
            trainer.should_stop = True

    def on_train_epoch_end(self, trainer: Any, *_: Any) -> None:
        """Note a whole epoch."""
        type(self).epochs = trainer.current_epoch + 1


def hand_back(
    given: Given,
    forecasts: pd.DataFrame,
    clock: Clock,
    *,
    settings: str,
    steps: int | None = None,
    stopped: bool = False,
) -> None:
    """
    Write the forecasts and how they came about.

    Args:
        given: What was received.
        forecasts: unique_id, ds, `mean` if there is one, and a column a quantile.
        clock: With the laps "fit" and "predict".
        settings: What was set that is not the library's default.
        steps: Optimiser steps or trees, where there are such.
        stopped: Whether training ended at the budget.
    """
    names = [str(q) for q in QUANTILES if str(q) in forecasts.columns]
    point = ["mean"] if "mean" in forecasts.columns else []
    forecasts[["unique_id", "ds", *point, *names]].to_parquet(given.folder / "forecasts.parquet")
    run = {**clock.laps, "settings": settings, "steps": steps, "stopped": stopped}
    (given.folder / "run.json").write_text(json.dumps(run))


def from_levels(table: pd.DataFrame, model: str, *, median: str | None = None) -> pd.DataFrame:
    """
    Columns `MODEL-lo-80` and so on renamed to their quantiles; the point forecast is the median.

    >>> made = pd.DataFrame({"unique_id": ["a"], "ds": [1], "m": 2.0, "m-lo-80": 1.0})
    >>> list(from_levels(made, "m").columns)
    ['unique_id', 'ds', '0.5', '0.1']
    """
    names = {median or model: MEDIAN}
    for level in LEVELS:
        names[f"{model}-lo-{level}"] = str(round(0.5 - level / 200, 3))
        names[f"{model}-hi-{level}"] = str(round(0.5 + level / 200, 3))
    return table.rename(columns=names)

"""Baselines computed in a process of their own."""

import os
import signal
from multiprocessing import get_context
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Self

import pandas as pd

from forecast.calendars.calendar import Calendar
from forecast.data import io, validation
from forecast.data.panel import Panel
from forecast.evaluation import baselines
from forecast.files import replacing
from forecast.training.parallel import end_with_parent
from pipelines.promotion.comparison import _only
from pipelines.promotion.plan import LEVELS, Plan

QUICK = ("SeasonalNaive", "Drift")
"""Baselines that are done at once: they need no process of their own."""


class BaselineProcess:
    """
    The baselines; the slow ones forecast in a process of their own while the model is trained.

    Leaving the block stops it. What it has made stays in `folder`, for a resumed run.
    """

    def __init__(
        self, series: validation.CheckedSeries, panel: Panel, plan: Plan, folder: Path
    ) -> None:
        self._made = folder / "backtest.parquet"
        self._process: SpawnProcess | None = None
        known = series.data.known_future
        self._job = (folder, self._made, series.calendar.freq, known, plan)
        if not plan.baselines or self._made.is_file():
            return
        folder.mkdir(parents=True, exist_ok=True)
        _only(series.frame, plan.part(panel), known).to_parquet(folder / "series.parquet")
        if set(plan.baselines) - set(QUICK):
            self._process = get_context("spawn").Process(
                target=_forecast_apart, args=(os.getpid(), *self._job)
            )

    def __enter__(self) -> Self:
        if self._process is not None:
            self._process.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None and self._process.is_alive():
            self._process.terminate()
            self._process.join()

    def wait(self) -> pd.DataFrame | None:
        """What they forecast, once they have; None without baselines."""
        if self._process is not None:
            self._process.join()
            assert self._process.exitcode == 0, "the baselines failed: see the lines above"
        elif self._job[-1].baselines and not self._made.is_file():
            _forecast_rivals(*self._job)
        return pd.read_parquet(self._made) if self._made.is_file() else None


def _forecast_apart(
    parent: int, folder: Path, made: Path, freq: str | int, known: tuple[str, ...], plan: Plan
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches us too; our parent decides
    end_with_parent(parent)
    _forecast_rivals(folder, made, freq, known, plan)


def _forecast_rivals(
    folder: Path, made: Path, freq: str | int, known: tuple[str, ...], plan: Plan
) -> None:
    table = baselines.cross_validate(
        io.read_table(folder / "series.parquet"),
        Calendar(freq),
        horizon=plan.horizon,
        n_windows=plan.windows,
        step_size=plan.step_size,
        season_length=plan.season_length,
        models=plan.baselines,
        levels=LEVELS,
        known_future=known,
    )
    with replacing(made) as temporary:
        table.to_parquet(temporary, index=False)

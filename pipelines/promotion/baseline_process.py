"""Forecasts of the statistical baselines, computed in a process of their own."""

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
from pipelines.promotion.comparison import select_columns
from pipelines.promotion.plan import LEVELS, Plan

QUICK = ("SeasonalNaive", "Drift")
"""Baselines fast enough to be computed in this process."""


class BaselineProcess:
    """
    Computes the baselines' forecasts, the slow ones in a process that runs during training.

    Use it as a context manager: leaving the block ends the process. A finished table stays in
    `folder`, so that a resumed run does not compute it again.
    """

    def __init__(
        self, series: validation.CheckedSeries, panel: Panel, plan: Plan, folder: Path
    ) -> None:
        self._table = folder / "backtest.parquet"
        self._process: SpawnProcess | None = None
        known = series.data.known_future
        self._job = (folder, self._table, series.calendar.freq, known, plan)
        if not plan.baselines or self._table.is_file():
            return
        folder.mkdir(parents=True, exist_ok=True)
        select_columns(series.frame, plan.part(panel), known).to_parquet(folder / "series.parquet")
        if set(plan.baselines) - set(QUICK):
            self._process = get_context("spawn").Process(
                target=_run_in_process, args=(os.getpid(), *self._job)
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
        """Wait for the forecasts and return them as a backtest table; None without baselines."""
        if self._process is not None:
            self._process.join()
            assert self._process.exitcode == 0, "the baselines failed: see the lines above"
        elif self._job[-1].baselines and not self._table.is_file():
            _forecast_baselines(*self._job)
        return pd.read_parquet(self._table) if self._table.is_file() else None


def _run_in_process(
    parent: int, folder: Path, table: Path, freq: str | int, known: tuple[str, ...], plan: Plan
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C also reaches us; the parent decides
    end_with_parent(parent)
    _forecast_baselines(folder, table, freq, known, plan)


def _forecast_baselines(
    folder: Path, table: Path, freq: str | int, known: tuple[str, ...], plan: Plan
) -> None:
    forecasts = baselines.cross_validate(
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
    with replacing(table) as temporary:
        forecasts.to_parquet(temporary, index=False)

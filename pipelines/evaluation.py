"""How good a model is: the same cutoffs and series for it, the champion and the baselines."""

import os
import signal
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from multiprocessing import get_context, parent_process
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from jaxtyping import Int

from forecast.bundle import Bundle
from forecast.calendars.calendar import Calendar
from forecast.data import io, validation
from forecast.data.checks import ABOVE_ZERO, forbidden
from forecast.data.panel import Panel
from forecast.data.splits import cutoff_lengths
from forecast.errors import TooShort
from forecast.evaluation import baselines, metrics
from forecast.evaluation.backtest import backtest
from forecast.inference.output import MODEL
from pipelines.report import LEVELS

CHAMPION = "champion"
QUICK = ("SeasonalNaive", "Drift")
"""Baselines that are done at once: they need no process of their own."""
MAX_SLOW = 300
"""Series times windows beyond which the baselines that search a model for each are left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Which cutoffs of which series are forecast, decided once for all models."""

    horizon: int
    windows: int
    step_size: int
    rows: tuple[int, ...]
    """Series of the panel that are long enough."""
    baselines: tuple[str, ...]
    season_length: int

    def part(self, panel: Panel) -> Panel:
        """The series that take part."""
        return panel if len(self.rows) == panel.num_series else panel.take(self.rows)

    def split(self, panel: Panel) -> Panel:
        """What may be learned from before the first cutoff, of the series that take part."""
        part = self.part(panel)
        return part.head(self._known(part)[0])

    def stamps(self, panel: Panel) -> Int[np.ndarray, "window series"]:
        """The last stamp known at each cutoff, first cutoff first, of the series that take part."""
        part = self.part(panel)
        found: np.ndarray = part.ds[part.indptr[:-1] + self._known(part) - 1]
        return found

    def first_cutoff(self, panel: Panel) -> int:
        """The earliest stamp at which a series is cut."""
        return int(self.stamps(panel)[0].min())

    def _known(self, part: Panel) -> np.ndarray:
        return cutoff_lengths(
            part, horizon=self.horizon, n_windows=self.windows, step_size=self.step_size
        )


def not_after(cutoff: object, stamp: str) -> bool:
    """
    Whether a cutoff, as a bundle notes it, is known and no later than a stamp.

    >>> not_after("986", "1000"), not_after("2024-02-01", "2024-01-01"), not_after(None, "7")
    (True, False, False)
    """
    if cutoff is None:
        return False
    if str(cutoff).lstrip("-").isdigit() and stamp.lstrip("-").isdigit():
        return int(str(cutoff)) <= int(stamp)
    return str(cutoff) <= stamp


def plan(
    panel: Panel,
    calendar: Calendar,
    *,
    horizon: int,
    windows: int,
    step_size: int | None = None,
    seasons: Sequence[int] | None = None,
    chosen: Sequence[str] | None = None,
    kind: str = "positive",
) -> Plan:
    """
    Choose series and baselines.

    A series takes part when a season (or 3 steps) is left before its first cutoff. Beside it
    forecast the seasonal naive, AutoETS, AutoTheta (for the kind "count" Croston and TSB instead)
    and one boosted model of all series. Those that search a model for every series at every
    cutoff, AutoETS and AutoTheta, are left out when there are many.

    Raises:
        TooShort: No series is long enough.
    """
    step = step_size or horizon
    back = horizon + step * (windows - 1)
    natural = calendar.season_lengths if seasons is None else tuple(seasons)
    typical = float(np.quantile(panel.lengths, 0.75)) - back
    season = next((s for s in natural if typical >= 2 * s), 1)
    needed = back + max(season + 1, 3)
    rows = np.flatnonzero(panel.lengths >= needed)
    if not len(rows):
        best = int(panel.lengths.argmax())
        raise TooShort(
            f"no series is long enough to be scored: {windows} windows of {horizon} steps, "
            f"{step} apart, and {needed - back} steps before them need {needed} steps",
            where=f"the longest, series {panel.ids[best]!r}: {int(panel.lengths[best])} steps",
            help="ask for fewer --windows, a shorter --h, or give longer histories",
        )
    usual = _usual(kind, few=len(rows) * windows <= MAX_SLOW)
    return Plan(
        horizon=horizon, windows=windows, step_size=step, rows=tuple(int(row) for row in rows),
        baselines=usual if chosen is None else tuple(chosen), season_length=season,
    )  # fmt: skip


def _usual(kind: str, *, few: bool) -> tuple[str, ...]:
    searching = ("AutoETS",) if kind == "count" else ("AutoETS", "AutoTheta")
    return (
        "SeasonalNaive",
        *(searching if few else ()),
        *(baselines.INTERMITTENT if kind == "count" else ()),
        baselines.BOOSTED,
    )


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Forecasts and scores of every model on the plan's cutoffs and series."""

    cv: pd.DataFrame
    """unique_id, ds, cutoff, y, then a column (and its intervals) a model."""
    scores: pd.DataFrame
    """metric, model, value."""
    by_horizon: pd.DataFrame
    by_series: pd.DataFrame
    incomparable: str = ""
    """Why the champion could not be scored; empty when it was, or there is none."""

    def value(self, metric: str, model: str = MODEL) -> float:
        """One score; NaN when there is none."""
        rows = self.scores[(self.scores["metric"] == metric) & (self.scores["model"] == model)]
        return float(rows["value"].iloc[0]) if len(rows) else float("nan")

    def flat(self) -> dict[str, float]:
        """Finite scores by name: `mase`, `mase_SeasonalNaive`, `coverage_80`, ..."""
        return {
            str(metric) if model == MODEL else f"{metric}_{model}": float(value)
            for metric, model, value in zip(
                self.scores["metric"], self.scores["model"], self.scores["value"], strict=True
            )
            if np.isfinite(value)
        }


def evaluate(
    bundle: Bundle,
    series: validation.SeriesFrame,
    panel: Panel,
    plan: Plan,
    *,
    rivals: pd.DataFrame | None = None,
    champion: Bundle | None = None,
) -> Evaluation:
    """
    Forecast from every cutoff with every model, and score them by the same code.

    Args:
        bundle: The challenger, trained on nothing after the first cutoff.
        series: The checked data.
        panel: The same, laid out.
        plan: Cutoffs and series.
        rivals: Forecasts of the baselines at the same cutoffs, as `Rivals` makes them.
        champion: The model in service, if any; it is scored again, not believed.
    """
    part = plan.part(panel)
    cv = _backtest(bundle, part, plan)
    frame = _only(series.frame, part)
    if rivals is not None:
        cv = _beside(cv, rivals)
    incomparable = ""
    if champion is not None:
        incomparable = unlike(champion, series, plan.horizon)
        if not incomparable:
            cv = _beside(cv, _champion_forecasts(champion, series, plan))
    return _scored(cv, frame, plan, incomparable)


def at_last_cutoffs(
    found: Evaluation, series: validation.SeriesFrame, panel: Panel, plan: Plan, count: int
) -> Evaluation:
    """The same forecasts, scored at the last `count` cutoffs of each series alone."""
    back = found.cv.groupby("unique_id")["cutoff"].rank(method="dense", ascending=False)
    cv = found.cv[back <= count].reset_index(drop=True)
    return _scored(cv, _only(series.frame, plan.part(panel)), plan, found.incomparable)


def _scored(cv: pd.DataFrame, frame: pd.DataFrame, plan: Plan, incomparable: str) -> Evaluation:
    score: dict[str, Any] = {"season_length": plan.season_length, "levels": LEVELS}
    return Evaluation(
        cv=cv,
        scores=metrics.evaluate(cv, frame, **score),
        by_horizon=metrics.by_horizon(cv, frame, **score),
        by_series=metrics.by_series(cv, frame, **score),
        incomparable=incomparable,
    )


class Rivals:
    """
    The baselines; the slow ones forecast in a process of their own while the model is trained.

    Leaving the block stops it. What it has made stays in `folder`, for a resumed run.
    """

    def __init__(
        self, series: validation.SeriesFrame, panel: Panel, plan: Plan, folder: Path
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
            self._process = get_context("spawn").Process(target=_alone, args=self._job)

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


def _alone(folder: Path, made: Path, freq: str | int, known: tuple[str, ...], plan: Plan) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches us too; our parent decides
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _forecast_rivals(folder, made, freq, known, plan)


def _end_with_parent() -> None:
    """However it ends: killed, it could not terminate us."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _forecast_rivals(
    folder: Path, made: Path, freq: str | int, known: tuple[str, ...], plan: Plan
) -> None:
    table = baselines.cross_validate(
        io.read_table(folder / "series.parquet"), Calendar(freq), horizon=plan.horizon,
        n_windows=plan.windows, step_size=plan.step_size, season_length=plan.season_length,
        models=plan.baselines, levels=LEVELS, known_future=known,
    )  # fmt: skip
    table.to_parquet(folder / "backtest.parquet.new", index=False)
    (folder / "backtest.parquet.new").replace(made)


def _backtest(bundle: Bundle, part: Panel, plan: Plan) -> pd.DataFrame:
    return backtest(
        bundle, part, horizon=plan.horizon, n_windows=plan.windows, step_size=plan.step_size,
        levels=LEVELS,
    )  # fmt: skip


def unlike(champion: Bundle, series: validation.SeriesFrame, horizon: int) -> str:
    """Why a champion cannot forecast these data; empty when it can."""
    theirs, ours = champion.config.data, series.data
    if theirs.freq != ours.freq:
        return f"it forecasts freq={theirs.freq!r}, and the data have {ours.freq!r}"
    if champion.horizon < horizon:
        return f"it forecasts {champion.horizon} steps, and {horizon} are asked"
    lacking = {*theirs.known_future, *theirs.past_only} - set(series.frame.columns)
    lacking |= set(theirs.static) - set(ours.static)
    if lacking:
        return f"it needs {', '.join(sorted(lacking))}, which the data do not have"
    if forbidden(series.frame["y"].to_numpy(np.float64), theirs.kind).any():
        least = "above 0" if theirs.kind in ABOVE_ZERO else "never negative"
        return f"it forecasts values that are {least}, and some in the data are not"
    return ""


def _champion_forecasts(
    champion: Bundle, series: validation.SeriesFrame, plan: Plan
) -> pd.DataFrame:
    """The champion's own columns and covariates, on our series and cutoffs."""
    theirs = champion.config.data
    data = replace(series.data, known_future=theirs.known_future, past_only=theirs.past_only)
    panel = Panel.from_frame(replace(series, data=data))
    made = _backtest(champion, plan.part(panel), plan)
    return made.rename(columns=lambda name: name.replace(MODEL, CHAMPION, 1))


def _only(frame: pd.DataFrame, part: Panel, covariates: Sequence[str] = ()) -> pd.DataFrame:
    """`unique_id`, `ds`, `y` and covariates of the series that take part."""
    kept = frame["unique_id"].isin(part.ids)
    return frame.loc[kept, ["unique_id", "ds", "y", *covariates]].reset_index(drop=True)


def _beside(cv: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    """Two backtest tables of the same windows, side by side."""
    merged = cv.merge(other.drop(columns="y"), on=["unique_id", "ds", "cutoff"], how="left")
    assert len(merged) == len(cv)
    return merged

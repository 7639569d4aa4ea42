"""Scores the challenger, the champion and the baselines on the same cutoffs and series."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from forecast.bundle import Bundle
from forecast.data import validation
from forecast.data.checks import ABOVE_ZERO, is_forbidden
from forecast.data.panel import Panel
from forecast.evaluation import metrics
from forecast.evaluation.backtest import backtest
from forecast.inference.output import MODEL
from pipelines.promotion.plan import LEVELS, Plan

CHAMPION = "champion"


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Forecasts and scores of every model on the plan's cutoffs and series."""

    cv: pd.DataFrame
    """unique_id, ds, cutoff, y, then a column (and its intervals) a model."""
    scores: pd.DataFrame
    """metric, model, value."""
    by_horizon: pd.DataFrame
    """metric, model, horizon step, value."""
    by_series: pd.DataFrame
    """metric, model, unique_id, value."""
    incomparable: str = ""
    """Why the champion could not be scored; empty if it was, or if there is none."""

    def value(self, metric: str, model: str = MODEL) -> float:
        """Return one score; NaN if the model has none."""
        rows = self.scores[(self.scores["metric"] == metric) & (self.scores["model"] == model)]
        return float(rows["value"].iloc[0]) if len(rows) else float("nan")

    def flat(self) -> dict[str, float]:
        """Return the finite scores by name: `mase`, `mase_SeasonalNaive`, `coverage_80`, ..."""
        return {
            str(metric) if model == MODEL else f"{metric}_{model}": float(value)
            for metric, model, value in zip(
                self.scores["metric"], self.scores["model"], self.scores["value"], strict=True
            )
            if np.isfinite(value)
        }


def evaluate(
    bundle: Bundle,
    series: validation.CheckedSeries,
    panel: Panel,
    plan: Plan,
    *,
    baselines: pd.DataFrame | None = None,
    champion: Bundle | None = None,
) -> Evaluation:
    """
    Forecast from every cutoff with every model and score all of them by the same code.

    Args:
        bundle: The challenger, trained on nothing after the first cutoff.
        series: The checked data.
        panel: The same data as arrays.
        plan: Cutoffs and series.
        baselines: Forecasts at the same cutoffs, as `BaselineProcess.wait` returns them.
        champion: The model in service, if any. Its recorded scores are not used; it is scored anew.
    """
    part = plan.part(panel)
    cv = _backtest(bundle, part, plan)
    frame = select_columns(series.frame, part)
    if baselines is not None:
        cv = _join(cv, baselines)
    incomparable = ""
    if champion is not None:
        incomparable = incompatibility(champion, series, plan.horizon)
        if not incomparable:
            cv = _join(cv, _champion_forecasts(champion, series, plan))
    return _score(cv, frame, plan, incomparable)


def at_last_cutoffs(
    evaluation: Evaluation, series: validation.CheckedSeries, panel: Panel, plan: Plan, count: int
) -> Evaluation:
    """Score the same forecasts again at the last `count` cutoffs of each series only."""
    rank = evaluation.cv.groupby("unique_id")["cutoff"].rank(method="dense", ascending=False)
    cv = evaluation.cv[rank <= count].reset_index(drop=True)
    return _score(cv, select_columns(series.frame, plan.part(panel)), plan, evaluation.incomparable)


def _score(cv: pd.DataFrame, frame: pd.DataFrame, plan: Plan, incomparable: str) -> Evaluation:
    options: dict[str, Any] = {"season_length": plan.season_length, "levels": LEVELS}
    return Evaluation(
        cv=cv,
        scores=metrics.evaluate(cv, frame, **options),
        by_horizon=metrics.by_horizon(cv, frame, **options),
        by_series=metrics.by_series(cv, frame, **options),
        incomparable=incomparable,
    )


def _backtest(bundle: Bundle, part: Panel, plan: Plan) -> pd.DataFrame:
    return backtest(
        bundle,
        part,
        horizon=plan.horizon,
        n_windows=plan.windows,
        step_size=plan.step_size,
        levels=LEVELS,
    )


def incompatibility(champion: Bundle, series: validation.CheckedSeries, horizon: int) -> str:
    """Explain why a champion cannot forecast these data; empty if it can."""
    theirs, ours = champion.config.data, series.data
    if theirs.freq != ours.freq:
        return f"it forecasts freq={theirs.freq!r}, and the data have {ours.freq!r}"
    if champion.horizon < horizon:
        return f"it forecasts {champion.horizon} steps, and {horizon} are needed"
    missing = {*theirs.known_future, *theirs.past_only} - set(series.frame.columns)
    missing |= set(theirs.static) - set(ours.static)
    if missing:
        return f"it needs {', '.join(sorted(missing))}, which the data do not have"
    if is_forbidden(series.frame["y"].to_numpy(np.float64), theirs.kind).any():
        least = "above 0" if theirs.kind in ABOVE_ZERO else "never negative"
        return f"it forecasts values that are {least}, and some in the data are not"
    return ""


def _champion_forecasts(
    champion: Bundle, series: validation.CheckedSeries, plan: Plan
) -> pd.DataFrame:
    """Backtest the champion with its own covariates on our series and cutoffs."""
    theirs = champion.config.data
    data = replace(series.data, known_future=theirs.known_future, past_only=theirs.past_only)
    panel = Panel.from_frame(replace(series, data=data))
    forecasts = _backtest(champion, plan.part(panel), plan)
    return forecasts.rename(columns=lambda name: name.replace(MODEL, CHAMPION, 1))


def select_columns(
    frame: pd.DataFrame, part: Panel, covariates: Sequence[str] = ()
) -> pd.DataFrame:
    """Select `unique_id`, `ds`, `y` and covariates of the series of a panel."""
    chosen = frame["unique_id"].isin(part.ids)
    return frame.loc[chosen, ["unique_id", "ds", "y", *covariates]].reset_index(drop=True)


def _join(cv: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    """Join two backtest tables of the same windows by column."""
    merged = cv.merge(other.drop(columns="y"), on=["unique_id", "ds", "cutoff"], how="left")
    assert len(merged) == len(cv)
    return merged

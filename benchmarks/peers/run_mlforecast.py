"""LightGBM through mlforecast, in a process of its own."""

import sys
import time
from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np
import pandas as pd
from exchange import LEVELS, Clock, Given, Task, from_levels, hand_back, receive
from lightgbm.callback import CallbackEnv, EarlyStopException
from mlforecast import MLForecast
from mlforecast.lag_transforms import ExpandingMean, RollingMean
from mlforecast.target_transforms import Differences, GlobalSklearnTransformer, LocalStandardScaler
from mlforecast.utils import PredictionIntervals
from sklearn.preprocessing import FunctionTransformer

DATES = {
    "h": ["hour", "dayofweek"],
    "D": ["dayofweek", "day", "month"],
    "W": ["week", "month"],
    "M": ["month"],
    "Q": ["quarter"],
    "Y": [],
}
LARGE = 5_000_000
"""Rows from which on there are no intervals, which cost several trainings, but larger trees."""
FEW = 0.05
"""Share of series that may be too short for the intervals; they are made longer."""


class Deadline:
    """Ends a training at its budget; counts the trees."""

    order, before_iteration = 100, False

    def __init__(self, seconds: float | None) -> None:
        self.until = time.process_time() + (seconds or float("inf"))
        self.trees, self.stopped = 0, False

    def __call__(self, env: CallbackEnv) -> None:
        """Be called by LightGBM after each tree."""
        self.trees = env.iteration + 1
        if time.process_time() > self.until:
            self.stopped = True
            raise EarlyStopException(env.iteration, [("train", "l2", 0.0, False)])


def run(given: Given) -> None:
    """Train one model on all series and roll it out over the horizon."""
    task, large = given.task, len(given.train) > LARGE
    static = [*task.static_categories, *task.static_real]
    short = float(np.quantile(given.lengths, FEW))
    windows = 0 if large else next((n for n in (5, 2) if short > task.horizon * (n + 1)), 0)
    table = given.train[["unique_id", "ds", "y", *task.known_future]]
    if windows:
        table = longer(table, task, task.horizon * (windows + 1) + 1)
    if static:
        kinds: dict[str, Any] = dict.fromkeys(task.static_categories, "category")
        table = table.merge(given.static.astype(kinds), on="unique_id", validate="m:1")

    clock, deadline = Clock(), Deadline(task.budget_s)
    left = short - task.horizon * windows  # what the first conformal window trains on
    dropna = left > 3 * max(task.seasons, default=1)
    fit: dict[str, Any] = {"static_features": static, "dropna": dropna}
    choices = [1] if task.counts or large else sorted({1, task.season})
    errors = [tried(table, task, lag, fit) for lag in choices] if len(choices) > 1 else [0.0]
    forecaster, settings = forecaster_of(table, task, choices[int(np.argmin(errors))], large=large)
    intervals = PredictionIntervals(n_windows=windows, h=task.horizon) if windows else None
    called = {"m": {"callbacks": [deadline]}}
    forecaster.fit(table, prediction_intervals=intervals, models_fit_kwargs=called, **fit)
    clock.lap("fit")
    future = given.future if task.known_future else None
    forecasts = forecaster.predict(
        task.horizon, X_df=future, level=list(LEVELS) if windows else None
    )
    clock.lap("predict")

    # The point forecast of this objective is a mean, and there is no median beside it.
    forecasts = from_levels(forecasts, "m", median="no median" if task.counts else None)
    forecasts = forecasts.rename(columns={"m": "mean"})
    settings = f"{settings}, {windows} conformal windows"
    hand_back(
        given, forecasts, clock, settings=settings, steps=deadline.trees, stopped=deadline.stopped
    )


def forecaster_of(
    table: pd.DataFrame, task: Task, difference: int, *, large: bool
) -> tuple[MLForecast, str]:
    """The model with its features, and what was set in words."""
    season = task.season
    rolled: list[Any] = [RollingMean(season if season > 1 else 3)]
    trees: dict[str, Any] = {"n_estimators": 1000, "num_leaves": 128} if large else {}
    objective: dict[str, Any] = {"objective": "tweedie"} if task.counts else {}
    model = lgb.LGBMRegressor(random_state=task.seed, n_jobs=1, verbosity=-1, **trees, **objective)
    transforms, settings = target_transforms(table, task, difference)
    forecaster = MLForecast(
        models={"m": model},
        freq=task.freq,
        lags=sorted({1, 2, 3, *task.seasons, *(2 * s for s in task.seasons)}),
        lag_transforms={1: [*rolled, ExpandingMean()]} | ({season: rolled} if season > 1 else {}),
        date_features=[] if task.freq == 1 else DATES[task.period.split("-")[0]],
        target_transforms=transforms,
        num_threads=1,
    )
    return forecaster, ", ".join([settings, *(f"{k}={v}" for k, v in (objective | trees).items())])


def target_transforms(table: pd.DataFrame, task: Task, lag: int) -> tuple[list[Any] | None, str]:
    """What the target goes through, and its name."""
    if task.counts:
        return None, "target as it is"
    if table["y"].min() > 0:
        log = GlobalSklearnTransformer(FunctionTransformer(np.log1p, np.expm1))
        return [log, Differences([lag])], f"log1p, Differences([{lag}])"
    scaled = [Differences([lag]), LocalStandardScaler()]
    return scaled, f"Differences([{lag}]), LocalStandardScaler"


def tried(table: pd.DataFrame, task: Task, difference: int, fit: dict[str, Any]) -> float:
    """Scaled error on the last horizon of the training part, held out, with this differencing."""
    size = table.groupby("unique_id", sort=False)["y"].transform("size")
    table = table[size > task.horizon + difference + 1]
    forecaster, _ = forecaster_of(table, task, difference, large=False)
    held = forecaster.cross_validation(table, n_windows=1, h=task.horizon, **fit)
    scale = table.groupby("unique_id")["y"].agg(lambda y: y.diff().abs().mean())
    errors = (held["y"] - held["m"]).abs().groupby(held["unique_id"]).mean() / scale
    return float(errors.replace(np.inf, np.nan).mean())


def longer(table: pd.DataFrame, task: Task, least: int) -> pd.DataFrame:
    """Series shorter than `least` steps begin earlier, with their first row repeated."""
    first = table.groupby("unique_id", sort=False).head(1)
    missing = least - table.groupby("unique_id", sort=False).size().to_numpy()
    short = first[missing > 0]
    if short.empty:
        return table
    parts = [table]
    step = 1 if task.freq == 1 else pd.tseries.frequencies.to_offset(task.freq)
    for back in range(1, int(missing.max()) + 1):
        rows = short[missing[missing > 0] >= back]
        parts.append(rows.assign(ds=rows["ds"] - back * step))
    return pd.concat(parts).sort_values(["unique_id", "ds"], ignore_index=True)


if __name__ == "__main__":
    run(receive(Path(sys.argv[1])))

"""LightGBM through mlforecast, in a process of its own."""

import sys
import time
from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np
import pandas as pd
from exchange import LEVELS, Clock, PeerInput, Task, read_input, rename_levels, write_output
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
"""Rows above which there are larger trees and no intervals, which cost several trainings."""
FEW = 0.05
"""Share of series that may be too short for the intervals; these are extended."""


class Deadline:
    """LightGBM callback that counts the trees and stops the training at its budget."""

    order, before_iteration = 100, False

    def __init__(self, seconds: float | None) -> None:
        self.until = time.process_time() + (seconds or float("inf"))
        self.trees, self.stopped = 0, False

    def __call__(self, env: CallbackEnv) -> None:
        """Count a tree, and stop the training if the budget is used up."""
        self.trees = env.iteration + 1
        if time.process_time() > self.until:
            self.stopped = True
            raise EarlyStopException(env.iteration, [("train", "l2", 0.0, False)])


def run(data: PeerInput) -> None:
    """Train one model on all series and roll it out over the horizon."""
    task, large = data.task, len(data.train) > LARGE
    static = [*task.static_categories, *task.static_real]
    short = float(np.quantile(data.lengths, FEW))
    windows = 0 if large else next((n for n in (5, 2) if short > task.horizon * (n + 1)), 0)
    table = data.train[["unique_id", "ds", "y", *task.known_future]]
    if windows:
        table = pad(table, task, task.horizon * (windows + 1) + 1)
    if static:
        kinds: dict[str, Any] = dict.fromkeys(task.static_categories, "category")
        table = table.merge(data.static.astype(kinds), on="unique_id", validate="m:1")

    clock, deadline = Clock(), Deadline(task.budget_s)
    first_window_steps = short - task.horizon * windows
    dropna = first_window_steps > 3 * max(task.seasons, default=1)
    fit: dict[str, Any] = {"static_features": static, "dropna": dropna}
    lags = [1] if task.counts or large else sorted({1, task.season})
    errors = [validation_error(table, task, lag, fit) for lag in lags] if len(lags) > 1 else [0.0]
    forecaster, settings = make_forecaster(table, task, lags[int(np.argmin(errors))], large=large)
    intervals = PredictionIntervals(n_windows=windows, h=task.horizon) if windows else None
    fit_kwargs = {"m": {"callbacks": [deadline]}}
    forecaster.fit(table, prediction_intervals=intervals, models_fit_kwargs=fit_kwargs, **fit)
    clock.lap("fit")
    future = data.future if task.known_future else None
    forecasts = forecaster.predict(
        task.horizon, X_df=future, level=list(LEVELS) if windows else None
    )
    clock.lap("predict")

    # The Tweedie objective forecasts a mean; the model then has no median.
    forecasts = rename_levels(forecasts, "m", median="no median" if task.counts else None)
    forecasts = forecasts.rename(columns={"m": "mean"})
    settings = f"{settings}, {windows} conformal windows"
    write_output(
        data, forecasts, clock, settings=settings, steps=deadline.trees, stopped=deadline.stopped
    )


def make_forecaster(
    table: pd.DataFrame, task: Task, difference: int, *, large: bool
) -> tuple[MLForecast, str]:
    """Return the model with its features, and its settings as text."""
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
    """Return the transforms of the target, and their names as text."""
    if task.counts:
        return None, "target as it is"
    if table["y"].min() > 0:
        log = GlobalSklearnTransformer(FunctionTransformer(np.log1p, np.expm1))
        return [log, Differences([lag])], f"log1p, Differences([{lag}])"
    scaled = [Differences([lag]), LocalStandardScaler()]
    return scaled, f"Differences([{lag}]), LocalStandardScaler"


def validation_error(
    table: pd.DataFrame, task: Task, difference: int, fit: dict[str, Any]
) -> float:
    """Return the scaled error on the last training horizon with this differencing."""
    size = table.groupby("unique_id", sort=False)["y"].transform("size")
    table = table[size > task.horizon + difference + 1]
    forecaster, _ = make_forecaster(table, task, difference, large=False)
    forecasts = forecaster.cross_validation(table, n_windows=1, h=task.horizon, **fit)
    scale = table.groupby("unique_id")["y"].agg(lambda y: y.diff().abs().mean())
    errors = (forecasts["y"] - forecasts["m"]).abs().groupby(forecasts["unique_id"]).mean() / scale
    return float(errors.replace(np.inf, np.nan).mean())


def pad(table: pd.DataFrame, task: Task, least: int) -> pd.DataFrame:
    """Extend series shorter than `least` steps, by repeating their first row."""
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
    run(read_input(Path(sys.argv[1])))

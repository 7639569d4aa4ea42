"""
Scores of any model of a benchmark, by the same rules for Statecast and for peers.

A table of forecasts has `unique_id`, `ds`, a column for each model (its point forecast, the mean),
`MODEL-lo-80` and `MODEL-hi-80` for an interval, and `MODEL_ql0.5` for a quantile. The median
minimises absolute errors and the mean squared errors. MASE, WAPE and sMAPE therefore use the median
if a model has one, else its point forecast; RMSSE uses the point forecast.

| metric | definition |
| --- | --- |
| `mase`, `smape` | means over series, as in `forecast.evaluation.metrics` |
| `wape` | pooled: sum of absolute errors over the sum of all values; defined for series of zeros |
| `rmsse` | mean over series; scaled by the squared seasonal differences of the training part |
| `crps` | scaled: twice the mean pinball loss of the quantiles, over the sum of all values |
| `coverage_80`, `coverage_95` | mean over series of the share of steps inside the interval |
| `msis` | mean over series, level 95 |

`crps` is the weighted quantile loss of GluonTS, pooled over the set. It uses those of `QUANTILES`
that the model has; the point forecast replaces a missing median.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import utilsforecast.losses as uf

from benchmarks.accuracy.cases import Case
from forecast.evaluation.metrics import by_series

LEVELS = (50, 80, 90, 95)
"""Central intervals to request, in percent; with the median they give `QUANTILES`."""
QUANTILES = (0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.975)
METRICS = ("mase", "wape", "smape", "rmsse", "crps", "coverage_80", "coverage_95", "msis")


def score(table: pd.DataFrame, case: Case, models: Sequence[str]) -> dict[str, dict[str, float]]:
    """
    Return the scores of each model: those of `METRICS` for which it has the columns.

    Args:
        table: Forecasts for every step of `case.test`; a column `y` is ignored.
        case: Its test is scored; its training part gives the scales.
        models: Names of the columns of point forecasts.

    Raises:
        MissingColumns: A model has no column of point forecasts.
        MissingValues: A step has no forecast, or it is NaN.

    >>> days = pd.DataFrame({"unique_id": "a", "ds": [1, 2, 3, 4], "y": [1.0, 2.0, 3.0, 5.0]})
    >>> case = Case(name="toy", train=days[:3], test=days[3:], freq=1, horizon=1, season_length=1)
    >>> score(days[3:].assign(naive=3.0), case, ["naive"])
    {'naive': {'mase': 2.0, 'wape': 0.4, 'smape': 50.0, 'rmsse': 2.0, 'crps': 0.4}}
    """
    keys = ["unique_id", "ds"]
    forecasts = table.drop(columns="y", errors="ignore")
    table = case.test[[*keys, "y"]].merge(forecasts, how="left", on=keys, validate="1:1")
    median = {m: f"{m}_ql0.5" if f"{m}_ql0.5" in table.columns else m for m in models}
    columns = list(dict.fromkeys([*models, *median.values()]))
    scores_by_series = by_series(
        table,
        case.train[[*keys, "y"]],
        season_length=case.season_length,
        models=columns,
        levels=LEVELS,
    )
    mean = scores_by_series.groupby(["model", "metric"])["value"].mean()
    pooled = table[table["y"].notna()].assign(unique_id="all")
    wape = uf.wape(pooled, models=columns)
    rmsse = _rmsse(table, case, list(models))
    scores = {}
    for model in models:
        column = median[model]
        values = {
            "mase": mean[column, "mase"],
            "wape": wape[column].iloc[0],
            "smape": mean[column, "smape"],
            "rmsse": rmsse[model],
            "crps": _crps(pooled, model),
        }
        for metric in ("coverage_80", "coverage_95", "msis"):
            values[metric] = mean.get((model, metric))
        scores[model] = {name: float(values[name]) for name in METRICS if values[name] is not None}
    return scores


def quantile_columns(table: pd.DataFrame, model: str) -> dict[float, str]:
    """
    Return the columns in which a table has quantiles of a model, by those of `QUANTILES`.

    >>> table = pd.DataFrame(columns=["naive", "naive-lo-80", "naive-hi-80"])
    >>> quantile_columns(table, "naive")
    {0.1: 'naive-lo-80', 0.5: 'naive', 0.9: 'naive-hi-80'}
    """
    columns: dict[float, str] = {}
    for quantile in QUANTILES:
        side, level = "lo" if quantile < 0.5 else "hi", round(abs(200 * quantile - 100), 9)
        interval = model if quantile == 0.5 else f"{model}-{side}-{level:g}"
        for name in (f"{model}_ql{quantile:g}", interval):
            if name in table.columns:
                columns.setdefault(quantile, name)
    return columns


def _crps(pooled: pd.DataFrame, model: str) -> float:
    """Return the scaled CRPS of a table whose rows all have the same `unique_id`."""
    columns = quantile_columns(pooled, model)
    losses = uf.scaled_crps(pooled, {model: list(columns.values())}, np.array(list(columns)))
    return float(losses[model].iloc[0])


def _rmsse(table: pd.DataFrame, case: Case, models: list[str]) -> dict[str, float]:
    """Return the mean over series, without those of zero scale, as in MASE."""
    ids = pd.Index(case.train["unique_id"].unique())
    train, test = (
        frame.assign(unique_id=ids.get_indexer(pd.Index(frame["unique_id"])))
        for frame in (case.train[["unique_id", "ds", "y"]], table[table["y"].notna()])
    )
    errors = uf.rmsse(test, models=models, seasonality=case.season_length, train_df=train)
    return {model: float(errors.loc[np.isfinite(errors[model]), model].mean()) for model in models}

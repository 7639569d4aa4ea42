"""Errors of a backtest by series and by group, and the series with the largest ones."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from forecast.evaluation import metrics
from forecast.inference.output import MODEL

MAX_GROUPS = 50
"""A static column with more values than this is taken for names of series, not of groups."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorTables:
    """Errors of one model, largest first."""

    by_series: pd.DataFrame
    """
    `unique_id`, `mase`, `wape`, `bias` (mean of forecast minus value, divided by the mean absolute
    value; positive if forecasts are too high) and `share` of the scaled error of all series.
    """
    by_group: pd.DataFrame
    """`column`, `group`, `series`, the means of `mase`, `wape` and `bias`, the sum of `share`."""
    worst: tuple[str, ...]
    """Names of the series with the largest `mase`, the largest first."""


def error_tables(
    cv: pd.DataFrame,
    history: pd.DataFrame,
    *,
    season_length: int,
    model: str = MODEL,
    groups: pd.DataFrame | None = None,
    num_worst: int = 10,
) -> ErrorTables:
    """
    Compute the errors of each series over all its cutoffs, and those of groups of series.

    Args:
        cv: The backtest table.
        history: `unique_id`, `ds`, `y`: values known at the cutoffs, which scale the errors.
        season_length: Steps in one season, for the scaled errors.
        model: Column of forecasts.
        groups: Static covariates, one row a series, indexed by `unique_id`; columns with more than
            50 values are left out.
        num_worst: Number of series in `worst`.

    Raises:
        MissingColumns: A key or the column of the model is missing.

    References:
        Hyndman & Koehler, Another look at measures of forecast accuracy, IJF 22(4), 2006 (MASE).
        Davydenko & Fildes, Measuring forecasting accuracy, IJF 29(3), 2013 (bias apart from
        accuracy, and by item).

    >>> days = pd.date_range("2024-01-01", periods=4)
    >>> history = pd.DataFrame({"unique_id": "a", "ds": days, "y": [1.0, 2.0, 1.0, 2.0]})
    >>> cv = history.tail(1).assign(cutoff=days[2], statecast=2.5)
    >>> error_tables(cv, history, season_length=1).by_series.round(2).to_dict("records")
    [{'unique_id': 'a', 'mase': 0.5, 'wape': 0.25, 'bias': 0.25, 'share': 1.0}]
    """
    scores = metrics.by_series(cv, history, season_length=season_length, models=[model])
    table = scores.pivot(index="unique_id", columns="metric", values="value")[["mase", "wape"]]
    rows = cv[cv["y"].notna()]
    names = rows["unique_id"].astype(object)
    excess = (rows[model] - rows["y"]).groupby(names).mean()
    size = rows["y"].abs().groupby(names).mean()
    table["bias"] = (excess / size.where(size > 0)).reindex(table.index)
    table["share"] = table["mase"] / table["mase"].sum()
    table = table.rename_axis(columns=None).sort_values("mase", ascending=False)
    by_series = table.reset_index()
    return ErrorTables(
        by_series=by_series,
        by_group=_by_group(table, groups),
        worst=tuple(str(name) for name in by_series["unique_id"].head(num_worst)),
    )


def _by_group(table: pd.DataFrame, groups: pd.DataFrame | None) -> pd.DataFrame:
    parts = []
    groups = pd.DataFrame(index=table.index) if groups is None else groups
    for column in groups.columns:
        values = groups[column].reindex(table.index).astype(object)
        if values.nunique() > MAX_GROUPS:
            continue
        means = table.groupby(values.fillna("(none)").astype(str)).agg(
            series=("mase", "size"),
            mase=("mase", "mean"),
            wape=("wape", "mean"),
            bias=("bias", "mean"),
            share=("share", "sum"),
        )
        means = means.rename_axis("group").sort_values("mase", ascending=False).reset_index()
        means.insert(0, "column", str(column))
        parts.append(means)
    names = ["column", "group", "series", "mase", "wape", "bias", "share"]
    if not parts:
        return pd.DataFrame({name: np.empty(0) for name in names})
    return pd.concat(parts, ignore_index=True)[names]

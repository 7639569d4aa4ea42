"""
Batch forecasts from a table of histories: warm up every series, then forecast it.

A logged model carries the package `forecast` alone, so this module imports nothing else.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from forecast.bundle import Bundle
from forecast.config import DataConfig
from forecast.data import future_covariates, io, validation
from forecast.data.future_covariates import split_future
from forecast.data.panel import Panel
from forecast.errors import UnknownSeries, nearest
from forecast.inference.forecasting import check_horizon, forecast
from forecast.inference.observing import warm_up
from forecast.inference.output import forecast_frame, level_quantiles


def forecast_table(
    bundle: Bundle,
    table: Any,
    *,
    horizon: int | None = None,
    level: Sequence[float | int] = (),
    futr_df: Any = None,
    data: DataConfig | None = None,
) -> pd.DataFrame:
    """
    Forecast every series of a long table.

    Future covariates may be given in `futr_df`, or in the table itself: in rows with an empty `y`
    after the last known value of a series.

    Args:
        bundle: The model.
        table: The whole history of each series, as for training.
        horizon: Steps ahead; None takes the trained horizon.
        level: Central intervals in percent, each giving two columns.
        futr_df: Known-future covariates of the horizon, if the model has any.
        data: Names and roles of the table's columns; None takes those of the training data.

    Returns:
        `unique_id`, `ds`, `statecast`, then `statecast-lo-80` and `statecast-hi-80` for each level.

    Raises:
        DataError: The table cannot be used, or future covariates are missing.
        UnseenHorizon, UnknownQuantile: Outside what the model learned.
    """
    check_horizon(bundle, horizon := bundle.horizon if horizon is None else horizon)
    data = data or bundle.config.data
    past, future = split_future(io.read_table(table, data=data), data)
    panel = Panel.from_frame(validation.validate(past, data, to_learn=False))
    known_future = None
    if data.known_future:
        known_future = future_covariates.check_future(
            future if futr_df is None and len(future) else futr_df,
            ids=panel.ids,
            last_ds=panel.last_ds,
            horizon=horizon,
            calendar=bundle.calendar,
            columns=data.known_future,
            data=data,
        ).astype(np.float32)
    values = forecast(
        bundle,
        warm_up(bundle, panel),
        horizon=horizon,
        known_future=known_future,
        quantiles=level_quantiles(level),
    )
    stamps = bundle.calendar.after(panel.last_ds, horizon)
    return forecast_frame(panel.ids, stamps, values, level, bundle.calendar)


def select_series(table: pd.DataFrame, data: DataConfig, ids: Sequence[str]) -> pd.DataFrame:
    """
    Return the rows of the named series.

    Raises:
        UnknownSeries: One of them is not in the table.
    """
    if data.id_col not in table.columns:
        return table
    names = table[data.id_col].astype(str)
    missing = sorted(set(ids) - set(names))
    if missing:
        near = nearest(missing[0], sorted(names.unique()), cutoff=0.4)
        raise UnknownSeries(
            f"no series {missing[0]!r} in the table",
            where=str(table.attrs.get("source", "")),
            help=f"did you mean {near!r}?" if near else "",
        )
    rows = table[names.isin(ids)]
    rows.attrs = dict(table.attrs)
    return rows

"""
Forecasts out of a whole history: warm every series up from nothing, then forecast it.

It stands on `forecast` alone: a logged model carries it along (see `scoring.py`).
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

    Rows after the last known `y` of a series hold its future covariates: they may stand in the
    table itself, with `y` empty, or in `futr_df`.

    Args:
        bundle: The model.
        table: The whole history of each series, as for training.
        horizon: Steps ahead; None takes all that the model learned.
        level: Central intervals in percent, each giving two columns.
        futr_df: Known-future covariates of the horizon, if the model has any.
        data: Columns and roles that the model learned, by the names of the table; None takes those
            of training.

    Returns:
        `unique_id`, `ds`, `statecast`, then `statecast-lo-80` and `statecast-hi-80` a level.

    Raises:
        DataError: The table cannot be used, or future covariates are missing.
        UnseenHorizon, UnknownQuantile: The model did not learn what was asked.
    """
    check_horizon(bundle, horizon := bundle.horizon if horizon is None else horizon)
    data = data or bundle.config.data
    past, ahead = split_future(io.read_table(table, data=data), data)
    checked = validation.validate(past, data, to_learn=False)
    panel = Panel.from_frame(checked)
    known = None
    if data.known_future:
        given = ahead if futr_df is None and len(ahead) else futr_df
        known = future_covariates.check_future(
            given,
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
        known_future=known,
        quantiles=level_quantiles(level),
    )
    stamps = bundle.calendar.after(panel.last_ds, horizon)
    return forecast_frame(panel.ids, stamps, values, level, bundle.calendar)


def select_series(table: pd.DataFrame, data: DataConfig, ids: Sequence[str]) -> pd.DataFrame:
    """
    The rows of some series.

    Raises:
        UnknownSeries: One of them is not in the table.
    """
    names = table[data.id_col].astype(str) if data.id_col in table.columns else None
    if names is None:
        return table
    lost = sorted(set(ids) - set(names))
    if lost:
        near = nearest(lost[0], sorted(names.unique()), cutoff=0.4)
        raise UnknownSeries(
            f"no series {lost[0]!r} in the table",
            where=str(table.attrs.get("source", "")),
            help=f"did you mean {near!r}?" if near else "",
        )
    kept = table[names.isin(ids)]
    kept.attrs = dict(table.attrs)
    return kept

"""
Scores of forecasts: the losses of utilsforecast with the conventions of the M4 competition.

Every function takes a backtest table, here `cv`: one row a forecast step, with `unique_id`, `ds`,
`y`, one column a model, `MODEL-lo-80` and `MODEL-hi-80` for its intervals, and `cutoff` if there
is more than one. A *window* is one series at one cutoff. Scaled scores also take `history`
(`unique_id`, `ds`, `y`, one row a step), of which they read only what precedes each window. Each
score returns one row a window and one column a model.

Rows whose `y` is NaN (not observed) are left out. A forecast that is NaN is an error: leaving it
out would flatter the model that failed.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd
import utilsforecast.losses as uf

from forecast.evaluation.backtest_table import (
    Level,
    check_columns,
    interval_columns,
    name_windows,
    number_windows,
    observed_rows,
    scale_table,
    seasonal_scales,
)

_KEYS = ("unique_id", "ds", "cutoff", "y")
_NO_CUTOFF = "no cutoff"  # numbered windows have no cutoffs for utilsforecast to group by


def smape(cv: pd.DataFrame, models: Sequence[str]) -> pd.DataFrame:
    """
    Return the symmetric mean absolute percentage error of M4, from 0 (exact) to 200.

    The mean over the steps of a window of `200 |y - f| / (|y| + |f|)`, in percent; 0 where both
    are 0. The function of utilsforecast runs from 0 to 1.

    References:
        Makridakis, Spiliotis & Assimakopoulos, The M4 Competition, IJF 36(1), 2020.

    >>> cv = pd.DataFrame({"unique_id": "a", "ds": [4, 5], "y": [3.0, 5.0], "flat": [1.0, 5.0]})
    >>> float(smape(cv, ["flat"])["flat"].iloc[0])
    50.0
    """
    return _percent(uf.smape(observed_rows(cv, models), models=list(models)), models)


def wape(cv: pd.DataFrame, models: Sequence[str]) -> pd.DataFrame:
    """
    Return the weighted absolute percentage error, `sum |y - f| / sum |y|`: 0.07 is 7 %.

    Unlike a mean of percentages it allows zeros; it is NaN where all `y` of a window are 0.

    References:
        Kolassa & Schuetz, Advantages of the MAD/Mean ratio over the MAPE, Foresight 6, 2007.

    >>> cv = pd.DataFrame({"unique_id": "a", "ds": [4, 5], "y": [3.0, 5.0], "flat": [4.0, 4.0]})
    >>> float(wape(cv, ["flat"])["flat"].iloc[0])
    0.25
    """
    return pd.DataFrame(uf.wape(observed_rows(cv, models), models=list(models)))


def rmse(cv: pd.DataFrame, models: Sequence[str]) -> pd.DataFrame:
    """
    Return the root mean squared error, in the unit of `y`, in [0, inf).

    >>> cv = pd.DataFrame({"unique_id": "a", "ds": [4, 5], "y": [3.0, 5.0], "flat": [4.0, 4.0]})
    >>> float(rmse(cv, ["flat"])["flat"].iloc[0])
    1.0
    """
    return pd.DataFrame(uf.rmse(observed_rows(cv, models), models=list(models)))


def mase(
    cv: pd.DataFrame, models: Sequence[str], history: pd.DataFrame, *, season_length: int
) -> pd.DataFrame:
    """
    Return the mean absolute scaled error: below 1 is better than the seasonal naive on `history`.

    The error is divided by the mean absolute seasonal difference of the history, which is the
    error of the seasonal naive forecast one step ahead. It has no unit, so that it can be averaged
    over series.

    Args:
        cv: The backtest table.
        models: Columns of forecasts.
        history: Values known at the cutoffs; rows after a window's cutoff are not read.
        season_length: Steps in one season: 12 for monthly data, 1 for none. M4 takes 24 for
            Hourly, 12 for Monthly, 4 for Quarterly and 1 for Yearly, Weekly and Daily.

    Returns:
        One row a window, one column a model, in [0, inf); NaN where the history has no scale: it
        repeats itself exactly, or is not longer than a season.

    References:
        Hyndman & Koehler, Another look at measures of forecast accuracy, IJF 22(4), 2006.

    >>> history = pd.DataFrame({"unique_id": "a", "ds": [1, 2, 3], "y": [1.0, 2.0, 3.0]})
    >>> cv = pd.DataFrame({"unique_id": "a", "ds": [4, 5], "y": [3.0, 5.0], "flat": [4.0, 4.0]})
    >>> float(mase(cv, ["flat"], history, season_length=1)["flat"].iloc[0])
    1.0
    """
    table, windows = number_windows(cv, models)
    scale = seasonal_scales(windows, history, season_length)
    return name_windows(uf.mae(scale_table(table, scale), models=list(models)), windows)


def msis(
    cv: pd.DataFrame,
    models: Sequence[str],
    history: pd.DataFrame,
    *,
    season_length: int,
    level: Level = 95,
) -> pd.DataFrame:
    """
    Return the mean scaled interval score of M4: low for narrow intervals that hold the value.

    The mean over the window of Winkler's score,
    `(hi - lo) + 2/a (lo - y) [y < lo] + 2/a (y - hi) [y > hi]` with `a = 1 - level/100`, divided
    by the scale of `mase`. It has no unit and lies in [0, inf).

    References:
        Gneiting & Raftery, Strictly proper scoring rules, JASA 102(477), 2007, section 6.2.
        Makridakis, Spiliotis & Assimakopoulos, The M4 Competition, IJF 36(1), 2020.

    >>> history = pd.DataFrame({"unique_id": "a", "ds": [1, 2, 3], "y": [1.0, 2.0, 3.0]})
    >>> cv = pd.DataFrame({"unique_id": "a", "ds": [4, 5], "y": [3.0, 5.0], "flat": 4.0,
    ...                    "flat-lo-80": 2.0, "flat-hi-80": 4.0})
    >>> round(float(msis(cv, ["flat"], history, season_length=1, level=80)["flat"].iloc[0]), 6)
    7.0
    """
    check_columns(cv, [name for model in models for name in interval_columns(model, level)])
    table, windows = number_windows(cv, models, (level,))
    scale = seasonal_scales(windows, history, season_length)
    scored = uf.winkler_score(
        scale_table(table, scale), models=list(models), level=_as_integer(level)
    )
    return name_windows(scored, windows)


def coverage(cv: pd.DataFrame, models: Sequence[str], *, level: Level) -> pd.DataFrame:
    """
    Return the share of steps whose value lies within the interval or on its ends, from 0 to 1.

    The best coverage of a level of 80 is 0.80; a higher one means that intervals are too wide.

    >>> cv = pd.DataFrame({"unique_id": "a", "ds": [4, 5], "y": [3.0, 5.0], "flat": 4.0,
    ...                    "flat-lo-80": 2.0, "flat-hi-80": 4.0})
    >>> float(coverage(cv, ["flat"], level=80)["flat"].iloc[0])
    0.5
    """
    check_columns(cv, [name for model in models for name in interval_columns(model, level)])
    table = observed_rows(cv, models, (level,))
    return pd.DataFrame(uf.coverage(table, models=list(models), level=_as_integer(level)))


def owa(smape: float, mase: float, naive2_smape: float, naive2_mase: float) -> float:
    """
    Return the overall weighted average of M4: the mean of sMAPE and MASE relative to Naive2's.

    All four arguments are means over series. The value has no unit and lies in [0, inf); lower is
    better, and Naive2 itself has 1.

    References:
        Makridakis, Spiliotis & Assimakopoulos, The M4 Competition, IJF 36(1), 2020.

    >>> owa(8.0, 1.0, 16.0, 4.0)
    0.375
    """
    return 0.5 * (smape / naive2_smape + mase / naive2_mase)


def evaluate(
    cv: pd.DataFrame,
    history: pd.DataFrame,
    *,
    season_length: int,
    models: Sequence[str] | None = None,
    levels: Sequence[Level] = (),
    reference: str = "Naive2",
) -> pd.DataFrame:
    """
    Compute every score of every model: averages over cutoffs, then over series.

    Args:
        cv: The backtest table.
        history: Values known at the cutoffs; rows after a window's cutoff are not read.
        season_length: Steps in one season, for the scaled scores.
        models: Columns of forecasts; None takes every column that is not a key or an interval.
        levels: Intervals to score; models without columns for a level get no rows for it.
        reference: The model that `owa` is relative to; without its column there is no `owa`.

    Returns:
        Columns `metric`, `model`, `value`, `series` (number of series in the mean) and `excluded`
        (number of series without a score, such as constant histories in `mase`). The metrics are
        mase, smape, wape, rmse, coverage_LEVEL, msis (level 95 only) and owa.

    Raises:
        MissingColumns: A key or the column of a model is missing.
        MissingValues: A forecast is NaN or infinite.
    """
    models = _model_columns(cv) if models is None else list(models)
    scores = by_series(cv, history, season_length=season_length, models=models, levels=levels)
    scores["excluded"] = scores["value"].isna()
    total = scores.groupby(["metric", "model"], sort=False, as_index=False).agg(
        value=("value", "mean"), series=("value", "count"), excluded=("excluded", "sum")
    )
    if reference not in models:
        return total
    value = total.set_index(["metric", "model"])["value"]
    base = (float(value["smape", reference]), float(value["mase", reference]))
    mase_rows = total[total["metric"] == "mase"]
    relative = [owa(value["smape", m], value["mase", m], *base) for m in mase_rows["model"]]
    return pd.concat([total, mase_rows.assign(metric="owa", value=relative)], ignore_index=True)


def by_series(
    cv: pd.DataFrame,
    history: pd.DataFrame,
    *,
    season_length: int,
    models: Sequence[str] | None = None,
    levels: Sequence[Level] = (),
) -> pd.DataFrame:
    """
    Compute the scores of each series, averaged over its cutoffs.

    Arguments and metrics are those of `evaluate`, without `owa`, which is defined for averages.

    Returns:
        Columns `unique_id`, `metric`, `model`, `value`.
    """
    models = _model_columns(cv) if models is None else list(models)
    table, windows = number_windows(cv, models, levels)
    scaled = scale_table(table, seasonal_scales(windows, history, season_length))
    codes, names = pd.factorize(windows["unique_id"])
    parts = []
    for metric, scores in _scores(table, scaled, models, levels, key="unique_id"):
        # A window without an observed value has no row: its NaN counts as excluded.
        means = scores.set_index("unique_id").reindex(windows.index).groupby(codes).mean()
        wide = means.set_axis(pd.Index(names, name="unique_id")).reset_index()
        parts.append(wide.melt("unique_id", var_name="model").assign(metric=metric))
    return pd.concat(parts, ignore_index=True)[["unique_id", "metric", "model", "value"]]


def by_horizon(
    cv: pd.DataFrame,
    history: pd.DataFrame,
    *,
    season_length: int,
    models: Sequence[str] | None = None,
    levels: Sequence[Level] = (),
) -> pd.DataFrame:
    """
    Compute the scores of each step ahead over all windows.

    Arguments and metrics are those of `by_series`. At one step a window has a single value, so
    `wape` and `rmse` are pooled over windows here, not averaged.

    Returns:
        Columns `horizon` (from 1), `metric`, `model`, `value`.
    """
    models = _model_columns(cv) if models is None else list(models)
    table, windows = number_windows(cv, models, levels)
    scaled = scale_table(table, seasonal_scales(windows, history, season_length))
    parts = [
        scores.melt("horizon", var_name="model").assign(metric=metric)
        for metric, scores in _scores(table, scaled, models, levels, key="horizon")
    ]
    return pd.concat(parts, ignore_index=True)[["horizon", "metric", "model", "value"]]


def _scores(
    table: pd.DataFrame,
    scaled: pd.DataFrame,
    models: list[str],
    levels: Sequence[Level],
    *,
    key: str,
) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield the name and the table of every metric: `key` and one column a model."""
    columns = {"id_col": key, "cutoff_col": _NO_CUTOFF}
    yield "mase", uf.mae(scaled, models=models, **columns)
    yield "smape", _percent(uf.smape(table, models=models, **columns), models)
    yield "wape", uf.wape(table, models=models, **columns)
    yield "rmse", uf.rmse(table, models=models, **columns)
    for level in levels:
        scored = [m for m in models if set(interval_columns(m, level)) <= set(table.columns)]
        if not scored:
            continue
        options = {"models": scored, "level": _as_integer(level), **columns}
        yield f"coverage_{level:g}", uf.coverage(table, **options)
        if level == 95:
            yield "msis", uf.winkler_score(scaled, **options)


def _percent(scores: pd.DataFrame, models: Sequence[str]) -> pd.DataFrame:
    """Rescale the range of utilsforecast, 0 to 1, to that of M4, 0 to 200 %."""
    return scores.assign(**{model: scores[model] * 200 for model in models})


def _model_columns(cv: pd.DataFrame) -> list[str]:
    interval = re.compile(r"-(lo|hi)-[\d.]+$")
    return [str(c) for c in cv.columns if c not in _KEYS and not interval.search(str(c))]


def _as_integer(level: Level) -> Any:
    """Return a whole level as an integer: utilsforecast writes it into names of columns."""
    return int(level) if level == int(level) else level

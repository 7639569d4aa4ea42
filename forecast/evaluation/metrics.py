"""
Scores of forecasts: thin adapters over utilsforecast, and the conventions of the M4 competition.

Every function takes a backtest table, here `cv`: one row a forecast step, with `unique_id`, `ds`,
`y`, one column a model, `MODEL-lo-80` and `MODEL-hi-80` for its intervals, and `cutoff` when there
is more than one. One series at one cutoff is a *window*. Scaled scores also take `history`
(`unique_id`, `ds`, `y`, one row a step), of which only what precedes each window's cutoff is read.
They return a row a window and a column a model.

Rows whose `y` is NaN (not observed) count for nothing. A forecast that is NaN is refused: leaving
it out would flatter the model that failed.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
import utilsforecast.losses as uf
from jaxtyping import Float

from forecast.errors import MissingColumns, MissingValues

Level = int | float
"""A central interval in percent: 80 is from quantile 0.1 to 0.9."""
_KEYS = ("unique_id", "ds", "cutoff", "y")
_NO_CUTOFF = "no cutoff"  # windows are numbered, so utilsforecast has no cutoffs to group by


def smape(cv: pd.DataFrame, models: Sequence[str]) -> pd.DataFrame:
    """
    Symmetric mean absolute percentage error of M4: 0 is exact, 200 as wrong as can be.

    Per step `200 |y - f| / (|y| + |f|)`, in percent, 0 where both are 0; the mean over the steps
    of a window. utilsforecast's own runs from 0 to 1.

    References:
        Makridakis, Spiliotis & Assimakopoulos, The M4 Competition, IJF 36(1), 2020.

    >>> cv = pd.DataFrame({"unique_id": "a", "ds": [4, 5], "y": [3.0, 5.0], "flat": [1.0, 5.0]})
    >>> float(smape(cv, ["flat"])["flat"].iloc[0])
    50.0
    """
    return _percent(uf.smape(_check(cv, models), models=list(models)), models)


def wape(cv: pd.DataFrame, models: Sequence[str]) -> pd.DataFrame:
    """
    Weighted absolute percentage error, `sum |y - f| / sum |y|`: a share, 0.07 is 7 %.

    Unlike a mean of percentages it stands zeros; NaN where all `y` of a window are 0.

    References:
        Kolassa & Schuetz, Advantages of the MAD/Mean ratio over the MAPE, Foresight 6, 2007.

    >>> cv = pd.DataFrame({"unique_id": "a", "ds": [4, 5], "y": [3.0, 5.0], "flat": [4.0, 4.0]})
    >>> float(wape(cv, ["flat"])["flat"].iloc[0])
    0.25
    """
    return pd.DataFrame(uf.wape(_check(cv, models), models=list(models)))


def rmse(cv: pd.DataFrame, models: Sequence[str]) -> pd.DataFrame:
    """
    Root mean squared error of each window, in the unit of `y`, from 0 (exact) upwards.

    >>> cv = pd.DataFrame({"unique_id": "a", "ds": [4, 5], "y": [3.0, 5.0], "flat": [4.0, 4.0]})
    >>> float(rmse(cv, ["flat"])["flat"].iloc[0])
    1.0
    """
    return pd.DataFrame(uf.rmse(_check(cv, models), models=list(models)))


def mase(
    cv: pd.DataFrame, models: Sequence[str], history: pd.DataFrame, *, season_length: int
) -> pd.DataFrame:
    """
    Mean absolute scaled error: below 1, smaller errors than the seasonal naive's on `history`.

    The error is divided by the mean absolute seasonal difference of the history, the error the
    seasonal naive made on it one step ahead: no unit, so it can be averaged over series.

    Args:
        cv: The backtest table.
        models: Columns of forecasts.
        history: What was known; rows after a window's cutoff are not read.
        season_length: Steps in one season: 12 for monthly data, 1 for none. M4 takes 24 for
            Hourly, 12 for Monthly, 4 for Quarterly and 1 for Yearly, Weekly and Daily.

    Returns:
        A row a window, a column a model, in [0, inf); NaN where the history repeats itself
        exactly or is no longer than a season, for then the scale says nothing.

    References:
        Hyndman & Koehler, Another look at measures of forecast accuracy, IJF 22(4), 2006.

    >>> history = pd.DataFrame({"unique_id": "a", "ds": [1, 2, 3], "y": [1.0, 2.0, 3.0]})
    >>> cv = pd.DataFrame({"unique_id": "a", "ds": [4, 5], "y": [3.0, 5.0], "flat": [4.0, 4.0]})
    >>> float(mase(cv, ["flat"], history, season_length=1)["flat"].iloc[0])
    1.0
    """
    table, windows = _number_windows(cv, models)
    scale = _scales(windows, history, season_length)
    return _per_window(uf.mae(_scaled(table, scale), models=list(models)), windows)


def msis(
    cv: pd.DataFrame,
    models: Sequence[str],
    history: pd.DataFrame,
    *,
    season_length: int,
    level: Level = 95,
) -> pd.DataFrame:
    """
    Mean scaled interval score of M4: narrow intervals that hold the value score low.

    Per step `(hi - lo) + 2/a (lo - y) [y < lo] + 2/a (y - hi) [y > hi]`, `a = 1 - level/100`
    (Winkler's score); the mean over the window, over the scale of `mase`: no unit, [0, inf).

    References:
        Gneiting & Raftery, Strictly proper scoring rules, JASA 102(477), 2007, section 6.2.
        Makridakis, Spiliotis & Assimakopoulos, The M4 Competition, IJF 36(1), 2020.

    >>> history = pd.DataFrame({"unique_id": "a", "ds": [1, 2, 3], "y": [1.0, 2.0, 3.0]})
    >>> cv = pd.DataFrame({"unique_id": "a", "ds": [4, 5], "y": [3.0, 5.0], "flat": 4.0,
    ...                    "flat-lo-80": 2.0, "flat-hi-80": 4.0})
    >>> round(float(msis(cv, ["flat"], history, season_length=1, level=80)["flat"].iloc[0]), 6)
    7.0
    """
    _check_columns(cv, [name for model in models for name in _interval(model, level)])
    table, windows = _number_windows(cv, models, (level,))
    scale = _scales(windows, history, season_length)
    scored = uf.winkler_score(_scaled(table, scale), models=list(models), level=_spelled(level))
    return _per_window(scored, windows)


def coverage(cv: pd.DataFrame, models: Sequence[str], *, level: Level) -> pd.DataFrame:
    """
    Share of steps whose value lies within the interval, its ends included: 0 to 1.

    A level of 80 is met when this is 0.80: above, the intervals are too wide.

    >>> cv = pd.DataFrame({"unique_id": "a", "ds": [4, 5], "y": [3.0, 5.0], "flat": 4.0,
    ...                    "flat-lo-80": 2.0, "flat-hi-80": 4.0})
    >>> float(coverage(cv, ["flat"], level=80)["flat"].iloc[0])
    0.5
    """
    _check_columns(cv, [name for model in models for name in _interval(model, level)])
    table = _check(cv, models, (level,))
    return pd.DataFrame(uf.coverage(table, models=list(models), level=_spelled(level)))


def owa(smape: float, mase: float, naive2_smape: float, naive2_mase: float) -> float:
    """
    Overall weighted average of M4: the mean of sMAPE and MASE, each over Naive2's. 1 is Naive2.

    All four are means over series, taken before the division; no unit, [0, inf), lower is better.

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
    Every score of every model: the mean over series of each series' mean over its cutoffs.

    Args:
        cv: The backtest table.
        history: What was known; rows after a window's cutoff are not read.
        season_length: Steps in one season, for the scaled scores.
        models: Columns of forecasts; None takes every column that is not a key or an interval.
        levels: Intervals to score; a model without their columns has no such rows.
        reference: The model that `owa` is relative to; without its column there is no `owa`.

    Returns:
        `metric`, `model`, `value`, `series` (how many entered the mean), `excluded` (how many
        could not, such as constant histories in `mase`). Metrics: mase, smape, wape, rmse,
        coverage_LEVEL, msis (level 95 only) and owa.

    Raises:
        MissingColumns: A key, model or interval column is not there.
        MissingValues: A forecast is NaN or infinite.
    """
    models = _models(cv) if models is None else list(models)
    each = by_series(cv, history, season_length=season_length, models=models, levels=levels)
    each["excluded"] = each["value"].isna()
    total = each.groupby(["metric", "model"], sort=False, as_index=False).agg(
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
    The scores of each series, averaged over its cutoffs: `unique_id`, `metric`, `model`, `value`.

    Arguments and metrics are those of `evaluate`, without `owa`, which is defined on averages.
    """
    models = _models(cv) if models is None else list(models)
    table, windows = _number_windows(cv, models, levels)
    scaled = _scaled(table, _scales(windows, history, season_length))
    codes, names = pd.factorize(windows["unique_id"])
    parts = []
    for metric, scores in _scores(table, scaled, models, levels, key="unique_id"):
        # Windows in which nothing was observed have no row: they stay NaN and are counted.
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
    The scores of each step ahead over all windows: `horizon` (from 1), `metric`, `model`, `value`.

    Arguments and metrics are those of `by_series`. At one step every window has one value, so
    `wape` and `rmse` are pooled over windows here, not averaged.
    """
    models = _models(cv) if models is None else list(models)
    table, windows = _number_windows(cv, models, levels)
    scaled = _scaled(table, _scales(windows, history, season_length))
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
    """Name and table (`key`, one column a model) of every metric."""
    named = {"id_col": key, "cutoff_col": _NO_CUTOFF}
    yield "mase", uf.mae(scaled, models=models, **named)
    yield "smape", _percent(uf.smape(table, models=models, **named), models)
    yield "wape", uf.wape(table, models=models, **named)
    yield "rmse", uf.rmse(table, models=models, **named)
    for level in levels:
        having = [m for m in models if set(_interval(m, level)) <= set(table.columns)]
        if having:
            yield (
                f"coverage_{level:g}",
                uf.coverage(table, models=having, level=_spelled(level), **named),
            )
        if having and level == 95:
            yield "msis", uf.winkler_score(scaled, models=having, level=_spelled(level), **named)


def _number_windows(
    cv: pd.DataFrame, models: Sequence[str], levels: Sequence[Level] = ()
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """
    Give each window a number, which stands in `unique_id`, and each row its step ahead.

    Returns:
        The observed rows, with `horizon` and without `cutoff`; and a row a window, in the order
        of first appearance, with `unique_id`, `cutoff` if there is one, and `start`, the stamp
        of its first step.
    """
    _check(cv, models, levels)
    keys = ["unique_id", "cutoff"] if "cutoff" in cv.columns else ["unique_id"]
    groups = cv.groupby(keys, sort=False, observed=True)
    windows = groups["ds"].min().rename("start").reset_index()
    number = groups.ngroup()
    table = cv.drop(columns="cutoff", errors="ignore").assign(unique_id=number)
    table = table.iloc[np.lexsort((cv["ds"], number))]
    table = table.assign(horizon=table.groupby("unique_id").cumcount() + 1)
    return table[table["y"].notna()], windows


def _scales(
    windows: pd.DataFrame, history: pd.DataFrame, season_length: int
) -> Float[np.ndarray, " window"]:
    """
    Mean absolute seasonal difference of each window's history, in the unit of `y`.

    Only stamps up to the cutoff are read (before the window's first step, without a cutoff), and
    steps without a value left out. NaN where it is 0 or there is no difference to take.
    """
    _check_columns(history, ("unique_id", "ds", "y"))
    codes, names = pd.factorize(history["unique_id"].astype(str))
    stamps, y = history["ds"].to_numpy(), history["y"].to_numpy(dtype=np.float64)
    order = np.lexsort((stamps, codes))
    stamps, y = stamps[order], y[order]
    begins = np.searchsorted(codes[order], np.arange(len(names) + 1))
    change = np.full(len(y), np.nan)
    change[season_length:] = np.abs(y[season_length:] - y[: max(len(y) - season_length, 0)])

    bounds = windows["cutoff" if "cutoff" in windows else "start"].to_numpy()
    side: Literal["left", "right"] = "right" if "cutoff" in windows else "left"
    series = pd.Index(names).get_indexer(windows["unique_id"].astype(str))
    scale = np.full(len(windows), np.nan)
    for window in np.flatnonzero(series >= 0):
        begin, end = begins[series[window]], begins[series[window] + 1]
        stop = begin + np.searchsorted(stamps[begin:end], bounds[window], side=side)
        steps = change[begin + season_length : stop]
        steps = steps[~np.isnan(steps)]
        if steps.any():
            scale[window] = steps.mean()
    return scale


def _scaled(table: pd.DataFrame, scale: Float[np.ndarray, " window"]) -> pd.DataFrame:
    """The table with values, forecasts and interval ends in units of each window's scale."""
    keys = ["unique_id", "ds", "horizon"]
    numbers = table.select_dtypes("number").columns.difference(keys)
    divisor = scale[table["unique_id"].to_numpy()]
    return table.assign(**{name: table[name].to_numpy() / divisor for name in numbers})


def _per_window(scores: pd.DataFrame, windows: pd.DataFrame) -> pd.DataFrame:
    """Put the names of series and cutoffs back in place of the numbers of the windows."""
    scores = scores.set_index("unique_id").reindex(windows.index)
    return pd.concat([windows.drop(columns="start"), scores], axis=1)


def _percent(scores: pd.DataFrame, models: Sequence[str]) -> pd.DataFrame:
    """From utilsforecast's 0 to 1 to M4's 0 to 200 %."""
    return scores.assign(**{model: scores[model] * 200 for model in models})


def _models(cv: pd.DataFrame) -> list[str]:
    interval = re.compile(r"-(lo|hi)-[\d.]+$")
    return [str(c) for c in cv.columns if c not in _KEYS and not interval.search(str(c))]


def _interval(model: str, level: Level) -> tuple[str, str]:
    return f"{model}-lo-{level:g}", f"{model}-hi-{level:g}"


def _spelled(level: Level) -> Any:
    """As utilsforecast writes it into the names of columns: 80.0 must say 80."""
    return int(level) if level == int(level) else level


def _check_columns(frame: pd.DataFrame, names: Sequence[str]) -> None:
    gone = [name for name in names if name not in frame.columns]
    if gone:
        raise MissingColumns(
            f"column {gone[0]!r} is not in the table to score; it has "
            + ", ".join(repr(str(c)) for c in frame.columns),
            help="name the models and levels that were forecast, or forecast these too",
        )


def _check(cv: pd.DataFrame, models: Sequence[str], levels: Sequence[Level] = ()) -> pd.DataFrame:
    """The observed rows; refuses missing keys and models, and forecasts that are no number."""
    _check_columns(cv, ("unique_id", "ds", "y", *models))
    ends = [name for m in models for level in levels for name in _interval(m, level)]
    for name in [*models, *(end for end in ends if end in cv.columns)]:
        bad = ~np.isfinite(cv[name].to_numpy(dtype=np.float64))
        if bad.any():
            row = cv.iloc[int(np.argmax(bad))]
            raise MissingValues(
                f"{int(bad.sum())} of {len(cv)} forecasts of {name!r} are NaN or infinite",
                where=f"series {row['unique_id']!r}, {row['ds']}",
                help="leaving them out would flatter the model; repair it or leave it out",
            )
    return cv[cv["y"].notna()]

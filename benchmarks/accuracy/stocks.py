"""
Volatility and prices of 315 stocks and funds: every day of 2015 to 2017 is an origin.

    python -m benchmarks.accuracy.stocks --data PATH

PATH holds the folder `stocks_huge` with `ohlcv.parquet` (unique_id, ds, open, high, low, volume and
the close as y) and, if it is to be scored too, `stocks_sp500_2022` with `close.parquet`. All
models learn up to the end of 2013 and are not changed after it: the state rolls on, day by day.

Volatility (`forecast.volatility`): the target is the mean daily variance of the next 1, 5 and 22
days. Metrics `qlike_H`, `log_mse_H` (squared error of the logarithm) and `dm_p_H`, the one-sided p
value of Diebold and Mariano against the linear HAR that does best at H, on the same rows.

Prices (kind `price`): `coverage_80`, `coverage_95` and `pinball` of the return of the next day,
and `level_mae_ratio`: the mean absolute error of the point forecast of the next 22 closes over
that of the random walk, both relative to the last close, so that no share counts by its price.

`--val` scores 2014 and reads nothing later: for choices.
"""

import argparse
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmarks.accuracy.scoring import QUANTILES
from benchmarks.records import Progress, add_set_option, emit, find, note, with_settings
from forecast.bundle import Bundle
from forecast.data.ohlc import COVARIATES, from_ohlc
from forecast.data.panel import Panel
from forecast.data.splits import cutoff_lengths
from forecast.data.validation import validate
from forecast.evaluation.volatility import HORIZONS, diebold_mariano, ewma, log_har, qlike, targets
from forecast.forecaster import Forecaster
from forecast.inference import forecasting, observing

TRAIN_END = pd.Timestamp("2013-12-31")
VAL_END = pd.Timestamp("2014-12-31")
H = max(HORIZONS)
EXCHANGE = "XNYS"
NEW_HISTORY = 120
"""Days that a series of the later set is read before it is forecast."""


@dataclass(frozen=True, slots=True)
class Rolled:
    """Forecasts from every origin of a period."""

    ids: tuple[str, ...]
    origin: np.ndarray
    """Stamp of the last known day: (window, series), in nanoseconds."""
    last: np.ndarray
    """Last value observed by then: (window, series)."""
    y: np.ndarray
    """What came: (window, series, H), NaN where not observed."""
    point: np.ndarray
    """(window, series, H)."""
    next_day: np.ndarray
    """Quantiles of the first step: (window, series, quantile)."""


def main() -> None:
    """Score volatility, then prices, and print the lines."""
    args = arguments()
    torch.set_num_threads(args.threads)
    prices = read(find(args.data, "stocks_huge") / "ohlcv.parquet", val=args.val)
    case = "test_val" if args.val else "test"
    begin = TRAIN_END if args.val else VAL_END
    if "volatility" in args.parts:
        volatility(prices, begin, case, args)
    if "prices" in args.parts and not args.no_statecast:
        closes(prices, begin, case, args)


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accuracy.stocks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, required=True, help="folder that holds stocks_huge/")
    parser.add_argument("--val", action="store_true", help="score 2014 instead, for choices")
    parser.add_argument(
        "--parts", nargs="+", choices=("volatility", "prices"), default=("volatility", "prices")
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-statecast", action="store_true", help="only the linear models")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    add_set_option(parser, "any setting of both models, such as train.max_steps=600")
    return parser.parse_args()


def read(path: Path, *, val: bool) -> pd.DataFrame:
    """Prices by series and day; with `val`, nothing after 2014."""
    frame = pd.read_parquet(path).sort_values(["unique_id", "ds"], ignore_index=True)
    frame = frame.astype({"ds": "datetime64[ns]"})
    return frame[frame["ds"] <= VAL_END].reset_index(drop=True) if val else frame


def volatility(
    prices: pd.DataFrame, begin: pd.Timestamp, case: str, args: argparse.Namespace
) -> None:
    """Score the linear models and statecast on every day after `begin`."""
    start = time.perf_counter()
    frame = from_ohlc(prices)
    y = targets(frame)
    tables = {"EWMA": pd.DataFrame({f"y_{h}": ewma(frame) for h in HORIZONS})}
    tables["LogHAR"] = log_har(frame, until=TRAIN_END)
    tables["LogHARMarket"] = log_har(frame, until=TRAIN_END, lags=(1, 5, 22, 66), market=True)
    seconds = dict.fromkeys(tables, time.perf_counter() - start)
    if not args.no_statecast:
        start = time.perf_counter()
        tables["statecast"] = variances(frame, begin, args)
        seconds["statecast"] = time.perf_counter() - start

    scored = (frame["ds"] > begin) & frame["y"].notna() & y.notna().all(axis=1)
    for table in tables.values():
        scored &= table.notna().all(axis=1)
    days = frame.loc[scored, "ds"].to_numpy()
    note(
        f"{case}: {int(scored.sum()):,} origins of {frame['unique_id'].nunique()} series on "
        f"{len(np.unique(days))} days"
    )
    results: dict[str, dict[str, float]] = {model: {} for model in tables}
    for h in HORIZONS:
        actual = y.loc[scored, f"y_{h}"].to_numpy()
        losses = {}
        for model, table in tables.items():
            f = table.loc[scored, f"y_{h}"].to_numpy()
            losses[model] = qlike(actual, f)
            results[model][f"qlike_{h}"] = float(losses[model].mean())
            results[model][f"log_mse_{h}"] = float(np.mean(np.log(actual / f) ** 2))
        best = min(("LogHAR", "LogHARMarket"), key=lambda model: float(losses[model].mean()))
        for model in tables:
            if model != best:
                test = diebold_mariano(losses[model], losses[best], days, horizon=h)
                results[model][f"dm_p_{h}"] = test[1]
    for model, scores in results.items():
        report(case, model, scores, seconds[model])


def variances(frame: pd.DataFrame, begin: pd.Timestamp, args: argparse.Namespace) -> pd.DataFrame:
    """Forecasts of statecast at each row of the frame; NaN before the period that is scored."""
    data = {"kind": "volatility", "past_only": list(COVARIATES)}
    bundle = learn(frame, data, args)
    rolled = roll(bundle, lay_out(frame, bundle), begin)
    means = {f"y_{h}": rolled.point[..., :h].mean(axis=2).ravel() for h in HORIZONS}
    table = pd.DataFrame(
        {
            "unique_id": np.tile(np.array(rolled.ids, object), len(rolled.origin)),
            "ds": rolled.origin.ravel().astype("datetime64[ns]"),
        }
    ).assign(**means)
    keys = ["unique_id", "ds"]
    return frame[keys].merge(table, how="left", on=keys, validate="1:1")[list(means)]


def closes(prices: pd.DataFrame, begin: pd.Timestamp, case: str, args: argparse.Namespace) -> None:
    """Score forecasts of prices on every day after `begin`, and on a later set of its own."""
    start = time.perf_counter()
    frame = prices[["unique_id", "ds", "y"]].astype({"y": np.float64})
    bundle = learn(frame, {"kind": "price"}, args)
    rolled = roll(bundle, lay_out(frame, bundle), begin, QUANTILES)
    report(case, "statecast", price_scores(rolled), time.perf_counter() - start)
    later = args.data / "stocks_sp500_2022" / "close.parquet"
    if args.val or not later.is_file():
        return
    start = time.perf_counter()
    new = read(later, val=False).astype({"y": np.float64})
    first = np.sort(new["ds"].unique())[NEW_HISTORY - 1]
    rolled = roll(bundle, lay_out(new, bundle), pd.Timestamp(first), QUANTILES)
    report("test_2022", "statecast", price_scores(rolled), time.perf_counter() - start)


def learn(frame: pd.DataFrame, data: Mapping[str, object], args: argparse.Namespace) -> Bundle:
    """Train on what ends by 2013; series that are younger are left to the state."""
    known = frame[frame["ds"] <= TRAIN_END]
    known = known[known.groupby("unique_id")["y"].transform("size") > 10 * H]
    config = with_settings({"data": {**data, "fill": "mask"}}, args.set)
    config = replace(config, train=replace(config.train, seed=args.seed))
    forecaster = Forecaster(h=H, freq=EXCHANGE, config=config)
    return forecaster.fit(known.reset_index(drop=True), on_event=Progress()).bundle_


def lay_out(frame: pd.DataFrame, bundle: Bundle) -> Panel:
    """All days as arrays."""
    return Panel.from_frame(validate(frame, bundle.config.data))


def roll(
    bundle: Bundle, panel: Panel, begin: pd.Timestamp, quantiles: tuple[float, ...] = ()
) -> Rolled:
    """
    Forecast from every day after `begin` that has a whole horizon after it, in one pass.

    All series must end on one day and have begun before `begin`, so that their windows agree.
    """
    after = (panel.ds > begin.value).astype(np.int64)
    windows = int(np.add.reduceat(after, panel.indptr[:-1]).min()) - H
    known = cutoff_lengths(panel, horizon=H, n_windows=windows, step_size=1)
    values = pd.Series(np.where(panel.observed, panel.values, np.nan))
    series = np.repeat(np.arange(panel.num_series), panel.lengths)
    last = values.groupby(series).ffill().to_numpy()
    states = observing.warm_up(bundle, panel.head(known[0]))
    at = panel.indptr[:-1] + known - 1
    point = np.empty((*at.shape, H))
    next_day = np.empty((*at.shape, len(quantiles)))
    period = panel.tail(known[0])
    for window in range(windows):
        if window:
            steps = np.full(panel.num_series, window)
            states = observing.observe(bundle, states, period.head(steps).tail(steps - 1))
        forecasts = forecasting.forecast(bundle, states, horizon=H, quantiles=quantiles)
        point[window], next_day[window] = forecasts[..., 0], forecasts[:, 0, 1:]
    ahead = at[..., None] + np.arange(1, H + 1)
    return Rolled(panel.ids, panel.ds[at], last[at], values.to_numpy()[ahead], point, next_day)


def price_scores(rolled: Rolled) -> dict[str, float]:
    """Coverage and pinball loss of the next day's return, and the error over the random walk's."""
    y, quantiles = rolled.y[..., 0] / rolled.last - 1, rolled.next_day / rolled.last[..., None] - 1
    known = np.isfinite(y)
    y, quantiles = y[known], quantiles[known]
    scores = {}
    for level in (80, 95):
        side = round(0.5 - level / 200, 9)
        lo, hi = QUANTILES.index(side), QUANTILES.index(round(1 - side, 9))
        scores[f"coverage_{level}"] = float(
            np.mean((quantiles[:, lo] <= y) & (y <= quantiles[:, hi]))
        )
    above = y[:, None] - quantiles
    q = np.array(QUANTILES)
    scores["pinball"] = float(np.maximum(q * above, (q - 1) * above).mean())
    last = rolled.last[..., None]
    ours, walk = np.abs(rolled.y - rolled.point) / last, np.abs(rolled.y - last) / last
    scores["level_mae_ratio"] = float(np.nanmean(ours) / np.nanmean(walk))
    return scores


def report(case: str, model: str, scores: dict[str, float], seconds: float) -> None:
    """Print the lines of one model."""
    note(f"{model} ({seconds:.0f} s): " + "  ".join(f"{k} {v:.4f}" for k, v in scores.items()))
    for metric, value in scores.items():
        emit("stocks", case, model, metric, value, seconds)


if __name__ == "__main__":
    main()

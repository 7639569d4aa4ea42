"""
Accuracy of volatility and price forecasts of 315 stocks and funds, daily from 2015 to 2017.

    python -m benchmarks.accuracy.stocks --data PATH

PATH holds the folder `stocks_huge` with `ohlcv.parquet` (unique_id, ds, open, high, low, volume and
the close as y) and optionally `stocks_sp500_2022` with `close.parquet`, which is then scored too.
All models are trained on data up to the end of 2013 and not changed after that; only the state is
carried on, day by day. Every day of the period is a forecast origin.

Volatility (`forecast.evaluation.volatility`): the target is the mean daily variance of the next 1,
5 and 22 days. Metrics are `qlike_H`, `log_mse_H` (squared error of the logarithm) and `dm_p_H`, the
one-sided p value of the Diebold-Mariano test against the better linear HAR model at horizon H, on
the same rows.

Prices (kind `price`): `coverage_80`, `coverage_95` and `pinball` of the next day's return, and
`level_mae_ratio`, the mean absolute error of the point forecast of the next 22 closes over that of
the random walk. Both errors are relative to the last close, so that a share's price is no weight.

`--val` scores 2014 and reads nothing later. Use it to make choices.
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
from benchmarks.records import Progress, add_set_option, emit, find_folder, note, with_settings
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
"""Largest horizon, in trading days."""
EXCHANGE = "XNYS"
NEW_HISTORY = 120
"""Days of a series of the later set that are observed before its first forecast."""


@dataclass(frozen=True, slots=True)
class Rolled:
    """Forecasts from every origin of a period, and the values that followed."""

    ids: tuple[str, ...]
    origin: np.ndarray
    """Stamp of the last known day, in nanoseconds: (window, series)."""
    last: np.ndarray
    """Last value observed up to the origin: (window, series)."""
    y: np.ndarray
    """Values after the origin, NaN where not observed: (window, series, H)."""
    point: np.ndarray
    """Point forecasts: (window, series, H)."""
    next_day: np.ndarray
    """Quantiles of the first step: (window, series, quantile)."""


def main() -> None:
    """Score volatility, then prices, and print the results."""
    args = parse_arguments()
    torch.set_num_threads(args.threads)
    prices = read(find_folder(args.data, "stocks_huge") / "ohlcv.parquet", val=args.val)
    case = "test_val" if args.val else "test"
    begin = TRAIN_END if args.val else VAL_END
    if "volatility" in args.parts:
        volatility(prices, begin, case, args)
    if "prices" in args.parts and not args.no_statecast:
        closes(prices, begin, case, args)


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accuracy.stocks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, required=True, help="folder that holds stocks_huge/")
    parser.add_argument("--val", action="store_true", help="score 2014 instead, to make choices")
    parser.add_argument(
        "--parts", nargs="+", choices=("volatility", "prices"), default=("volatility", "prices")
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-statecast", action="store_true", help="only the linear models")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    add_set_option(parser, "any setting of both models, such as train.max_steps=600")
    return parser.parse_args()


def read(path: Path, *, val: bool) -> pd.DataFrame:
    """Read prices sorted by series and day; with `val`, only those up to the end of 2014."""
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

    is_scored = (frame["ds"] > begin) & frame["y"].notna() & y.notna().all(axis=1)
    for table in tables.values():
        is_scored &= table.notna().all(axis=1)
    days = frame.loc[is_scored, "ds"].to_numpy()
    note(
        f"{case}: {int(is_scored.sum()):,} origins of {frame['unique_id'].nunique()} series on "
        f"{len(np.unique(days))} days"
    )
    results: dict[str, dict[str, float]] = {model: {} for model in tables}
    for h in HORIZONS:
        actual = y.loc[is_scored, f"y_{h}"].to_numpy()
        losses = {}
        for model, table in tables.items():
            f = table.loc[is_scored, f"y_{h}"].to_numpy()
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
    """Return forecasts of statecast for each row of `frame`, NaN up to `begin`."""
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
    """Score price forecasts on every day after `begin`, and on the later set if it is there."""
    start = time.perf_counter()
    frame = prices[["unique_id", "ds", "y"]].astype({"y": np.float64})
    bundle = learn(frame, {"kind": "price"}, args)
    rolled = roll(bundle, lay_out(frame, bundle), begin, QUANTILES)
    report(case, "statecast", price_scores(rolled), time.perf_counter() - start)
    later = args.data / "stocks_sp500_2022" / "close.parquet"
    if args.val or not later.is_file():
        return
    start = time.perf_counter()
    later_prices = read(later, val=False).astype({"y": np.float64})
    first_origin = np.sort(later_prices["ds"].unique())[NEW_HISTORY - 1]
    rolled = roll(bundle, lay_out(later_prices, bundle), pd.Timestamp(first_origin), QUANTILES)
    report("test_2022", "statecast", price_scores(rolled), time.perf_counter() - start)


def learn(frame: pd.DataFrame, data: Mapping[str, object], args: argparse.Namespace) -> Bundle:
    """Train up to the end of 2013 on series that are long enough; the state covers the others."""
    known = frame[frame["ds"] <= TRAIN_END]
    known = known[known.groupby("unique_id")["y"].transform("size") > 10 * H]
    config = with_settings({"data": {**data, "fill": "mask"}}, args.set)
    config = replace(config, train=replace(config.train, seed=args.seed))
    forecaster = Forecaster(h=H, freq=EXCHANGE, config=config)
    return forecaster.fit(known.reset_index(drop=True), on_event=Progress()).bundle_


def lay_out(frame: pd.DataFrame, bundle: Bundle) -> Panel:
    """Validate a table and return it as a panel."""
    return Panel.from_frame(validate(frame, bundle.config.data))


def roll(
    bundle: Bundle, panel: Panel, begin: pd.Timestamp, quantiles: tuple[float, ...] = ()
) -> Rolled:
    """
    Forecast in one pass from every day after `begin` that has a whole horizon after it.

    All series must end on the same day and start before `begin`, so that their windows agree.
    """
    is_after = (panel.ds > begin.value).astype(np.int64)
    windows = int(np.add.reduceat(is_after, panel.indptr[:-1]).min()) - H
    known = cutoff_lengths(panel, horizon=H, n_windows=windows, step_size=1)
    values = pd.Series(np.where(panel.observed, panel.values, np.nan))
    series = np.repeat(np.arange(panel.num_series), panel.lengths)
    last = values.groupby(series).ffill().to_numpy()
    states = observing.warm_up(bundle, panel.head(known[0]))
    origin = panel.indptr[:-1] + known - 1
    point = np.empty((*origin.shape, H))
    next_day = np.empty((*origin.shape, len(quantiles)))
    period = panel.tail(known[0])
    for window in range(windows):
        if window:
            steps = np.full(panel.num_series, window)
            states = observing.observe(bundle, states, period.head(steps).tail(steps - 1))
        forecasts = forecasting.forecast(bundle, states, horizon=H, quantiles=quantiles)
        point[window], next_day[window] = forecasts[..., 0], forecasts[:, 0, 1:]
    ahead = origin[..., None] + np.arange(1, H + 1)
    return Rolled(
        panel.ids, panel.ds[origin], last[origin], values.to_numpy()[ahead], point, next_day
    )


def price_scores(rolled: Rolled) -> dict[str, float]:
    """Return coverage and pinball loss of the next day's return, and the error ratio of levels."""
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
    errors = y[:, None] - quantiles
    q = np.array(QUANTILES)
    scores["pinball"] = float(np.maximum(q * errors, (q - 1) * errors).mean())
    last = rolled.last[..., None]
    forecast_errors = np.abs(rolled.y - rolled.point) / last
    walk_errors = np.abs(rolled.y - last) / last
    scores["level_mae_ratio"] = float(np.nanmean(forecast_errors) / np.nanmean(walk_errors))
    return scores


def report(case: str, model: str, scores: dict[str, float], seconds: float) -> None:
    """Print the results of one model."""
    note(f"{model} ({seconds:.0f} s): " + "  ".join(f"{k} {v:.4f}" for k, v in scores.items()))
    for metric, value in scores.items():
        emit("stocks", case, model, metric, value, seconds)


if __name__ == "__main__":
    main()

"""
Accuracy on the M5 competition: 30,490 series, 28 days, twelve levels of aggregation.

    python -m benchmarks.accuracy.m5 --data PATH

PATH holds the folder `m5` that `benchmarks.accuracy.m5_set` reads, with the official weights
(`weights_levels.parquet`, `static.parquet`) and the official scales of levels 1 to 9
(`rmsse_scale_levels.parquet`). The forecast of a group is the sum of the forecasts of its series.

Metrics: `wrmsse_l1` to `wrmsse_l12`, one for each level; `wrmsse_l1_9`, the mean of the levels
whose weights and scales are official; `wrmsse_l1_12`, the mean of all levels, which is nearly
official: the scales of levels 10 to 12 are computed from the last 447 days, the only history in the
files. `bias` is the sum of all forecasts over the sum of all sales, minus 1. `pinball` is the
weighted scaled pinball loss of the bottom level over the quantiles of
`benchmarks.accuracy.scoring`. Every run on the test first checks that the two naive forecasts have
the published scores.

`--val` holds out the 28 days before the test and keeps the official weights and scales.
`--limit-state TX` takes the stores of one state and the levels whose groups lie inside a state,
with weights rescaled to sum to 1; `wrmsse_inside` is the mean of those levels that have official
scales.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmarks.accuracy.cases import Case
from benchmarks.accuracy.retail import forecast_case, settings
from benchmarks.accuracy.scoring import quantile_columns
from benchmarks.accuracy.sets import load
from benchmarks.records import add_set_option, emit, find_folder, note
from forecast.evaluation.hierarchy import (
    Level,
    absolute_scales,
    change_scales,
    group_sums,
    weighted_pinball,
    wrmsse,
)
from forecast.evaluation.metrics import coverage

KEYS: dict[int, tuple[str, ...]] = {
    1: (), 2: ("state_id",), 3: ("store_id",), 4: ("cat_id",), 5: ("dept_id",),
    6: ("state_id", "cat_id"), 7: ("state_id", "dept_id"), 8: ("store_id", "cat_id"),
    9: ("store_id", "dept_id"), 10: ("item_id",), 11: ("state_id", "item_id"), 12: ("unique_id",),
}  # fmt: skip
"""Columns that define the groups of each level."""
OFFICIAL = range(1, 10)
"""Levels with official scales."""
INSIDE = (2, 3, 7, 8, 9, 11, 12)
"""Levels whose groups lie within one state."""
PUBLISHED = {"SeasonalNaive": {1: 0.560, 9: 0.888}, "Naive": {1: 1.967, 9: 1.764}}
"""WRMSSE of the naive forecasts in the competition, by level."""
BASELINES = ("Naive", "SeasonalNaive", "Mean28", "WeekdayMean")


def main() -> None:
    """Forecast with every model and print the results."""
    args = parse_arguments()
    torch.set_num_threads(args.threads)
    begin = time.perf_counter()
    case, static = load("m5", args.data, val=args.val), read_static(args.data)
    if args.limit_state:
        case, static = limit(case, static, args.limit_state)
    history, y = dense(case.train), dense(case.test)
    levels = read_levels(find_folder(args.data, "m5"), static, history)
    if args.limit_state:
        levels = {number: levels[number] for number in INSIDE}
    name = "_".join(["m5", *([args.limit_state] if args.limit_state else []), *["val"] * args.val])
    note(
        f"{name}: {len(y):,} series, {len(case.train):,} observations, read in "
        f"{time.perf_counter() - begin:.0f} s"
    )
    if not args.val and not args.limit_state:
        check_published(history, y, levels)

    for model in args.baselines:
        begin = time.perf_counter()
        y_hat = baseline(model, history, case.horizon)
        report(name, model, score(y, y_hat, levels), time.perf_counter() - begin)
    if args.no_statecast:
        return
    config = settings(case, args.set)
    for seed in range(args.seed, args.seed + args.seeds):
        begin = time.perf_counter()
        table = forecast_case(case, replace(config, train=replace(config.train, seed=seed)))
        spent = time.perf_counter() - begin
        keys = ["unique_id", "ds"]
        table = case.test[[*keys, "y"]].merge(table, how="left", on=keys, validate="1:1")
        scores = score(y, dense(table, "statecast"), levels)
        scores |= interval_scores(table, y, history, levels[12], "statecast")
        report(name if args.seeds == 1 else f"{name}/seed{seed}", "statecast", scores, spent)


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accuracy.m5",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, required=True, help="folder that holds m5/")
    parser.add_argument(
        "--val", action="store_true", help="cut one horizon earlier, to make choices"
    )
    parser.add_argument(
        "--limit-state", choices=("CA", "TX", "WI"), help="only the stores of this state"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=1, help="number of seeds, from --seed on")
    parser.add_argument(
        "--baselines",
        nargs="*",
        choices=BASELINES,
        default=BASELINES,
        help="baselines to run as well",
    )
    parser.add_argument("--no-statecast", action="store_true", help="only the baselines")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    add_set_option(parser, "any setting, such as train.max_steps=600")
    return parser.parse_args()


def read_static(data: Path) -> pd.DataFrame:
    """Return the hierarchy, in the order of the series in the frames."""
    static = pd.read_parquet(find_folder(data, "m5") / "static.parquet")
    return static.sort_values("unique_id", ignore_index=True)


def limit(case: Case, static: pd.DataFrame, state: str) -> tuple[Case, pd.DataFrame]:
    """Return the case and the hierarchy with the series of one state only."""
    static = static[static["state_id"] == state].reset_index(drop=True)
    ids = pd.Index(static["unique_id"])
    train, test, covariates = (
        frame[frame["unique_id"].isin(ids)].reset_index(drop=True)
        for frame in (case.train, case.test, case.static)
        if frame is not None
    )
    return replace(case, train=train, test=test, static=covariates), static


def dense(frame: pd.DataFrame, column: str = "y") -> np.ndarray:
    """
    Return a column as an array (series, day), aligned at the last day, with 0 before the first.

    >>> dense(pd.DataFrame({"unique_id": ["a", "b", "b"], "y": [1.0, 2.0, 3.0]})).tolist()
    [[0.0, 1.0], [2.0, 3.0]]
    """
    starts = np.flatnonzero(~frame["unique_id"].duplicated().to_numpy())
    lengths = np.diff(np.r_[starts, len(frame)])
    array = np.zeros((len(starts), lengths.max()))
    array[np.arange(array.shape[1]) >= array.shape[1] - lengths[:, None]] = frame[column].to_numpy()
    return array


def read_levels(folder: Path, static: pd.DataFrame, history: np.ndarray) -> dict[int, Level]:
    """Return the twelve levels, with official scales of the first nine and computed ones after."""
    weights = _by_group(pd.read_parquet(folder / "weights_levels.parquet"), "weight")
    scales = _by_group(pd.read_parquet(folder / "rmsse_scale_levels.parquet"), "rmsse_scale")
    levels = {}
    for number, keys in KEYS.items():
        names = [static[key].to_numpy(object) for key in keys] or [np.full(len(static), "Total")]
        label = pd.Series(names[0] if len(names) == 1 else names[0] + "|" + names[1])
        codes, groups = pd.factorize(label)
        keys_of_groups = f"Level{number}|" + pd.Index(groups)
        weight = (static["weight_l12"] if number == 12 else weights[keys_of_groups]).to_numpy()
        levels[number] = Level(
            codes=codes,
            weights=weight.astype(np.float64) / weight.sum(dtype=np.float64),
            scales=scales[keys_of_groups].to_numpy(np.float64)
            if number in OFFICIAL
            else change_scales(group_sums(history, codes, len(groups))),
        )
    return levels


def _by_group(table: pd.DataFrame, column: str) -> "pd.Series[float]":
    """Return a column indexed by names such as `Level6|CA|FOODS`."""
    second = table["agg_level_2"].where(table["agg_level_2"] != "X", "")
    names = (
        table["level_id"] + "|" + table["agg_level_1"] + np.where(second != "", "|", "") + second
    )
    return pd.Series(table[column].to_numpy(), index=pd.Index(names))


def baseline(model: str, history: np.ndarray, horizon: int) -> np.ndarray:
    """Forecast with one of `BASELINES`, from the last 28 days; `horizon` must be whole weeks."""
    if model == "Naive":
        return np.repeat(history[:, -1:], horizon, axis=1)
    if model == "Mean28":
        return np.repeat(history[:, -28:].mean(axis=1, keepdims=True), horizon, axis=1)
    weeks = history[:, -28:].reshape(len(history), 4, 7)
    week = weeks[:, -1] if model == "SeasonalNaive" else weeks.mean(axis=1)
    return np.tile(week, (1, horizon // 7))


def check_published(history: np.ndarray, y: np.ndarray, levels: dict[int, Level]) -> None:
    """
    Check that the naive forecasts have the scores that the competition published.

    Raises:
        SystemExit: A score differs by more than rounding.
    """
    for model, published in PUBLISHED.items():
        y_hat = baseline(model, history, y.shape[1])
        for number, expected in published.items():
            value = wrmsse(y, y_hat, [levels[number]])[0]
            if abs(value - expected) > 0.0006:
                raise SystemExit(
                    f"{model} scores {value:.4f} at level {number} here but {expected} as published"
                )
    note("the naive forecasts score as published")


def score(y: np.ndarray, y_hat: np.ndarray, levels: dict[int, Level]) -> dict[str, float]:
    """Return the WRMSSE of every level, their means, and the bias."""
    by_level = dict(zip(levels, wrmsse(y, y_hat, list(levels.values())).tolist(), strict=True))
    scores = {f"wrmsse_l{number}": value for number, value in by_level.items()}
    official = [value for number, value in by_level.items() if number in OFFICIAL]
    scores["wrmsse_l1_9" if len(by_level) == 12 else "wrmsse_inside"] = float(np.mean(official))
    if len(by_level) == 12:
        scores["wrmsse_l1_12"] = float(np.mean(list(by_level.values())))
    return scores | {"bias": float(y_hat.sum() / y.sum() - 1)}


def interval_scores(
    table: pd.DataFrame, y: np.ndarray, history: np.ndarray, bottom: Level, model: str
) -> dict[str, float]:
    """Return the pinball loss at the bottom level and the coverage of the intervals."""
    columns = quantile_columns(table, model)
    quantiles = np.stack([dense(table, column) for column in columns.values()], axis=2)
    pinball = weighted_pinball(
        y, quantiles, list(columns), weights=bottom.weights, scales=absolute_scales(history)
    )
    coverages = {
        f"coverage_{level}": float(coverage(table, [model], level=level)[model].mean())
        for level in (80, 95)
    }
    return {"pinball": pinball} | coverages


def report(case: str, model: str, scores: dict[str, float], seconds: float) -> None:
    """Print the results of one model."""
    note(f"{model} ({seconds:.0f} s): " + "  ".join(f"{k} {v:.4f}" for k, v in scores.items()))
    for metric, value in scores.items():
        emit("m5", case, model, metric, value, seconds)


if __name__ == "__main__":
    main()

"""
Accuracy on Australian retail turnover, beside the statistical baselines on the same cutoff.

    python -m benchmarks.retail --data PATH

PATH holds the folder `aus_retail` with `aus_retail.parquet` (columns unique_id, ds, y). The last 18
months of every series are held out. Prints MASE (season 12), its ratio to the seasonal naive's and
the coverage of the 80 % and 95 % intervals, for statecast with its default settings and for each
baseline, scored by the same code.

`--val` leaves the last 18 months out altogether and holds out the 18 before: for choices.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmarks.records import Progress, emit, find, note, with_settings
from forecast.baselines import MODELS, cross_validate
from forecast.calendars import Calendar
from forecast.forecaster import Forecaster
from forecast.metrics import evaluate

HORIZON, SEASON = 18, 12
LEVELS = (80, 95)
METRICS = ("mase", "coverage_80", "coverage_95", "smape", "msis")


def main() -> None:
    """Forecast with every model and print the lines."""
    args = arguments()
    torch.set_num_threads(args.threads)
    case = "aus_retail_val" if args.val else "aus_retail"
    frame = load(find(args.data, "aus_retail") / "aus_retail.parquet", val=args.val)
    note(f"{case}: {frame['unique_id'].nunique()} series, {len(frame):,} observations")

    naive = None
    for model in args.baselines:
        begin = time.perf_counter()
        table = cross_validate(
            frame, Calendar("MS"), horizon=HORIZON, season_length=SEASON, models=(model,),
            levels=LEVELS,
        )  # fmt: skip
        scores = score(table, frame, model)
        naive = scores["mase"] if model == "SeasonalNaive" else naive
        report(case, model, scores, naive, time.perf_counter() - begin)

    config = with_settings({"data": {"kind": "positive"}}, args.set)
    for seed in range(args.seed, args.seed + args.seeds):
        begin = time.perf_counter()
        settings = replace(config, train=replace(config.train, seed=seed))
        table = Forecaster(h=HORIZON, freq="MS", config=settings).cross_validation(
            frame, level=LEVELS, on_event=Progress()
        )
        took = time.perf_counter() - begin
        name = case if args.seeds == 1 else f"{case}/seed{seed}"
        report(name, "statecast", score(table, frame, "statecast"), naive, took)


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.retail", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--data", type=Path, required=True, help="folder that holds aus_retail/")
    parser.add_argument("--val", action="store_true", help="an earlier cutoff, for choices")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=1, help="how many, from --seed on")
    parser.add_argument("--baselines", nargs="*", choices=MODELS, default=MODELS,
                        help="which to run beside statecast")  # fmt: skip
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--set", action="append", default=[], metavar="TABLE.KEY=VALUE",
                        help="any setting, such as train.max_steps=600")  # fmt: skip
    return parser.parse_args()


def load(path: Path, *, val: bool) -> pd.DataFrame:
    """The series long enough to have a season before their cutoff."""
    frame = pd.read_parquet(path).sort_values(["unique_id", "ds"], ignore_index=True)
    frame = frame.astype({"y": np.float64, "ds": "datetime64[ns]"})
    if val:
        frame = frame[frame.groupby("unique_id").cumcount(ascending=False) >= HORIZON]
    size = frame.groupby("unique_id")["y"].transform("size")
    return frame[size > HORIZON + SEASON].reset_index(drop=True)


def score(table: pd.DataFrame, frame: pd.DataFrame, model: str) -> dict[str, float]:
    """The scores of one model, by metric."""
    scores = evaluate(
        table, frame[["unique_id", "ds", "y"]], season_length=SEASON, models=[model], levels=LEVELS
    )
    values = dict(zip(scores["metric"], scores["value"], strict=True))
    return {metric: float(values[metric]) for metric in METRICS}


def report(
    case: str, model: str, scores: dict[str, float], naive: float | None, seconds: float
) -> None:
    """Print the lines of one model."""
    note(f"{model} ({seconds:.0f} s): " + "  ".join(f"{k} {v:.4f}" for k, v in scores.items()))
    for metric, value in scores.items():
        emit("retail", case, model, metric, value, seconds)
        if metric == "mase" and naive is not None:
            emit("retail", case, model, "mase_ratio_snaive", value / naive, seconds)


if __name__ == "__main__":
    main()

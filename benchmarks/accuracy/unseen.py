"""
Accuracy of the default settings on sets that were never used to make a choice.

    python -m benchmarks.accuracy.unseen --data PATH

PATH holds a folder for each source: `m1` (the M1 competition, with its official tests), `nn5` (cash
withdrawals, with its official test), `cheese` (weekly sales), `commodities` (monthly prices) and
`exchange_rate`; `--sets` selects some. The rest is as in `benchmarks.accuracy.retail`.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmarks.accuracy import retail
from benchmarks.accuracy.cases import Case, cut, insert_missing_steps, make_case, read
from benchmarks.records import find_folder

COLUMNS = ["unique_id", "ds", "y"]


def main() -> None:
    """Forecast every set with every model and print the results."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accuracy.unseen",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    retail.add_arguments(parser, SETS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    for name in args.sets or SETS:
        case = load(name, args.data, val=args.val)
        retail.run(case, f"{name}_val" if args.val else name, args, benchmark="unseen")


def load(name: str, data: Path, *, val: bool = False) -> Case:
    """Read one of `SETS` and cut it at its last horizon, or with `val` at the one before."""
    return cut(SETS[name](data), val=val)


def _m1(period: str, horizon: int, season_length: int, data: Path) -> Case:
    """Read a frequency of M1, whose steps have no dates; the official test is its last horizon."""
    folder = find_folder(data, "m1")
    parts = [read(folder / f"{period}_{part}.parquet", COLUMNS) for part in ("train", "test")]
    frame = pd.concat(parts).sort_values(["unique_id", "ds"], ignore_index=True)
    seasons = (season_length,) if season_length > 1 else ()
    return make_case(
        f"m1_{period}", frame, freq=1, horizon=horizon, season_length=season_length, seasons=seasons
    )


def _nn5(data: Path) -> Case:
    """Read daily withdrawals; a day without a value was not recorded."""
    parts = [
        read(find_folder(data, "nn5") / f"{part}.parquet", COLUMNS) for part in ("train", "test")
    ]
    frame = pd.concat(parts).sort_values(["unique_id", "ds"], ignore_index=True)
    return make_case("nn5", frame, freq="D", horizon=56, season_length=7, fill="mask")


def _cheese(data: Path) -> Case:
    """Read weekly sales of sliced cheese by retailer, by week number."""
    frame = read(find_folder(data, "cheese") / "cheese.parquet", COLUMNS)
    return make_case("cheese", frame, freq=1, horizon=4, season_length=52, seasons=(52,))


def _commodities(data: Path) -> Case:
    """Read monthly prices since 1960; a 0 in the source is a month without a price."""
    frame = read(find_folder(data, "commodities") / "commodities.parquet", COLUMNS)
    months = frame["ds"].to_numpy().astype("datetime64[M]").astype(np.int64)
    frame = frame[frame["y"] > 0].assign(ds=months[frame["y"] > 0])
    frame = insert_missing_steps(frame, np.int64(1))
    dates = frame["ds"].to_numpy().astype("datetime64[M]").astype("datetime64[ns]")
    return make_case(
        "commodities", frame.assign(ds=dates), freq="MS", horizon=12, season_length=12, fill="mask"
    )


def _exchange_rate(data: Path) -> Case:
    """Read eight currencies on trading days, by day number."""
    frame = read(find_folder(data, "exchange_rate") / "exchange_rate.parquet", COLUMNS)
    return make_case("exchange_rate", frame, freq=1, horizon=30, season_length=5, seasons=(5,))


SETS: dict[str, Callable[[Path], Case]] = {
    "m1_monthly": partial(_m1, "monthly", 18, 12),
    "m1_quarterly": partial(_m1, "quarterly", 8, 4),
    "m1_yearly": partial(_m1, "yearly", 6, 1),
    "nn5": _nn5,
    "cheese": _cheese,
    "commodities": _commodities,
    "exchange_rate": _exchange_rate,
}
if __name__ == "__main__":
    main()

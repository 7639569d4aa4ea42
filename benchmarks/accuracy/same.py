"""
Compare weights and forecasts with those of another version of the code, bit by bit.

    python -m benchmarks.accuracy.same --data PATH > before.jsonl     # in one checkout
    python -m benchmarks.accuracy.same --data PATH --against before.jsonl  # in the other

Each set trains a short, seeded model on one thread and prints three SHA-256 digests: `model`
(settings and weights), `forecasts` (point forecasts, intervals and sample paths at the end of the
training part) and `observed` (the forecasts after observing the first held-out step). With
`--against` the exit status is 1 if any digest differs. Digests agree only on the same machine with
the same packages.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from forecast.config import Config
from forecast.forecaster import Forecaster

EXAMPLES = Path(__file__).parents[2] / "examples" / "data"
HORIZON = 8
Settings = dict[str, dict[str, object]]


def retail(_: Path) -> tuple[pd.DataFrame, Settings]:
    """Return monthly turnover, positive amounts learned by an ensemble of two LSTMs."""
    frame = pd.read_parquet(EXAMPLES / "monthly_retail.parquet")[["unique_id", "ds", "y"]]
    return frame, {"data": {"freq": "MS"}, "model": {"members": 2}}


def juice(_: Path) -> tuple[pd.DataFrame, Settings]:
    """Return weekly unit sales with covariates of every role, learned by one GRU."""
    frame = pd.read_parquet(EXAMPLES / "weekly_sales.parquet")
    frame = frame[["unique_id", "ds", "y", "price", "deal", "feat", "brand"]]
    roles: dict[str, object] = {
        "known_future": ["price", "deal"],
        "past_only": ["feat"],
        "static": ["brand"],
    }
    return frame, {"data": roles, "model": {"members": 1, "cell": "gru"}}


def stocks(_: Path) -> tuple[pd.DataFrame, Settings]:
    """Return daily prices on an exchange calendar."""
    frame = pd.read_parquet(EXAMPLES / "daily_stocks.parquet")[["unique_id", "ds", "y"]]
    return frame, {"data": {"freq": "XNYS", "kind": "price"}, "model": {"members": 1}}


def carparts(data: Path) -> tuple[pd.DataFrame, Settings]:
    """Return monthly sales of car parts, mostly zero, as counts with unobserved steps masked."""
    frame = pd.read_parquet(data / "carparts" / "carparts.parquet")[["unique_id", "ds", "y"]]
    last = frame.groupby("unique_id")["y"].transform("last", skipna=False)
    frame = frame[last.notna()].reset_index(drop=True)
    return frame, {
        "data": {"freq": "MS", "kind": "count", "fill": "mask"},
        "model": {"members": 1},
    }


SETS: dict[str, Callable[[Path], tuple[pd.DataFrame, Settings]]] = {
    "retail": retail,
    "juice": juice,
    "stocks": stocks,
    "carparts": carparts,
}


def digests(frame: pd.DataFrame, settings: Settings) -> dict[str, str]:
    """Train on all but the last `HORIZON` steps of each series and return the three digests."""
    frame = frame.sort_values(["unique_id", "ds"], ignore_index=True)
    steps_left = frame.groupby("unique_id").cumcount(ascending=False)
    known, later = frame[steps_left >= HORIZON], frame[steps_left < HORIZON]
    first = frame[steps_left == HORIZON - 1]
    model = {"horizon": HORIZON, "hidden_size": 32, **settings["model"]}
    tables = {"data": settings["data"], "model": model, "train": {"max_steps": 80, "seed": 1}}
    forecaster = Forecaster(config=Config.from_dict(tables)).fit(known)
    covariates = settings["data"].get("known_future")
    futr = later.drop(columns=["y", *settings["data"].get("past_only", ())]) if covariates else None
    forecasts = [forecaster.predict(futr_df=futr, level=[80, 95])]
    forecasts.append(forecaster.sample(paths=5, seed=1, futr_df=futr))
    forecaster.observe(first)
    later_futr = None if futr is None else futr[~futr.index.isin(first.index)]
    observed = forecaster.predict(h=HORIZON - 1, futr_df=later_futr, level=[80])
    return {
        "model": forecaster.bundle_.digest,
        "forecasts": _digest(*forecasts),
        "observed": _digest(observed),
    }


def _digest(*frames: pd.DataFrame) -> str:
    """Return the SHA-256 of every number of the frames, of at least 1,000 finite values."""
    digest = hashlib.sha256()
    for frame in frames:
        numbers = frame.select_dtypes("number").to_numpy(np.float64)
        if not np.isfinite(numbers).all():
            raise SystemExit("a forecast is not finite")
        digest.update(str(list(frame.columns)).encode())
        digest.update(np.ascontiguousarray(numbers).tobytes())
    return digest.hexdigest()


def main() -> None:
    """Print a JSON line per set; compare with the lines of `--against` if given."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accuracy.same",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, required=True, help="folder that holds `carparts`")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--against", type=Path, help="lines printed by another version")
    args = parser.parse_args()
    torch.set_num_threads(1)
    expected: dict[str, dict[str, str]] = {}
    if args.against:
        records = map(json.loads, args.against.read_text(encoding="utf-8").splitlines())
        expected = {record.pop("set"): record for record in records}
    differing = []
    for name in args.sets:
        ours = digests(*SETS[name](args.data))
        print(json.dumps({"set": name, **ours}), flush=True)
        if args.against and ours != expected.get(name):
            differing.append(name)
    if args.against:
        same = len(args.sets) - len(differing)
        print(f"{same} of {len(args.sets)} sets are the same to the bit", file=sys.stderr)
        raise SystemExit(f"different: {', '.join(differing)}" if differing else 0)


if __name__ == "__main__":
    main()

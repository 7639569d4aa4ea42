"""
What carrying the state is worth on M4 Hourly: the same weights, and the same recipe, both ways.

    python -m benchmarks.accuracy.carry --data PATH

Cutoffs lie inside the training part; the test is not read. Case `same_weights`: one model that has
not seen the targets, its network's state carried from the first step (`carried`) or dropped at each
chunk (`reset`), at eight cutoffs one step apart. Case `same_recipe`: trained and used with carried
state, and on stateless windows one chunk long (`windowed`), at two cutoffs one horizon apart. The
causal filters go on in all. Metrics: `mase`, `wape`, and `gain`: how much less MASE `carried` has.
"""

import argparse
import time
from pathlib import Path

import torch

from benchmarks.accuracy import m4
from benchmarks.records import add_set_option, emit, find, note, with_settings
from forecast.data.panel import Panel
from forecast.data.splits import history
from forecast.data.validation import validate
from forecast.diagnostics.carry_gain import CarryGain, carry_gain, train_both_ways
from forecast.training.train import train

CUTOFFS, WINDOWS = 8, 2


def main() -> None:
    """Train three times and print the lines."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accuracy.carry",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, required=True, help="folder that holds m4/")
    add_set_option(parser, "any setting, such as model.cell=gru")
    args = parser.parse_args()
    torch.set_num_threads(1)
    case = m4.CASES["hourly"]
    tables = {
        "data": {"kind": "positive", "season_lengths": list(case.seasons), "freq": 1},
        "model": {"horizon": case.horizon, "members": 1},
    }
    config = with_settings(tables, args.set)
    observed = m4.read(find(args.data, "m4") / f"{case.files}_train.parquet")
    panel = Panel.from_frame(validate(observed, config.data))

    begin = time.perf_counter()
    horizon = config.model.horizon or case.horizon
    seen = history(panel, horizon=horizon, n_windows=CUTOFFS, step_size=1)
    bundle = train(seen, config).bundle
    report("same_weights", carry_gain(bundle, panel, n_windows=CUTOFFS), begin)
    begin = time.perf_counter()
    report("same_recipe", train_both_ways(panel, config, n_windows=WINDOWS), begin)


def report(case: str, gain: CarryGain, begin: float) -> None:
    """Print the lines of one case."""
    seconds = time.perf_counter() - begin
    for scores in gain.scores.to_dict("records"):
        note(f"{case}: " + "  ".join(f"{key} {value}" for key, value in scores.items()))
        for metric in ("mase", "wape", "gain"):
            emit("carry", f"m4_hourly/{case}", scores["way"], metric, scores[metric], seconds)


if __name__ == "__main__":
    main()

"""
Gain from carrying the state on M4 Hourly, with the same weights and with the same recipe.

    python -m benchmarks.accuracy.carry --data PATH

All cutoffs lie inside the training part; the test is not read. In case `same_weights`, one model
that has not seen the targets forecasts at eight cutoffs one step apart, with the state of its
network carried from the first step (`carried`) or dropped at each chunk (`reset`). In case
`same_recipe`, one model is trained and used with carried state and another on stateless windows of
one chunk (`windowed`), at two cutoffs one horizon apart. The causal filters keep their state in all
of them. Metrics: `mase`, `wape`, and `gain`, the share by which `carried` has a lower MASE.
"""

import argparse
import time
from pathlib import Path

import torch

from benchmarks.accuracy import m4
from benchmarks.records import add_set_option, emit, find_folder, note, with_settings
from forecast.data.panel import Panel
from forecast.data.splits import history
from forecast.data.validation import validate
from forecast.diagnostics.carry_gain import CarryGain, carry_gain, train_both_ways
from forecast.training.train import train

CUTOFFS, WINDOWS = 8, 2


def main() -> None:
    """Train three times and print the results."""
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
    frame = m4.read(find_folder(args.data, "m4") / f"{case.files}_train.parquet")
    panel = Panel.from_frame(validate(frame, config.data))

    begin = time.perf_counter()
    horizon = config.model.horizon or case.horizon
    known = history(panel, horizon=horizon, n_windows=CUTOFFS, step_size=1)
    bundle = train(known, config).bundle
    report("same_weights", carry_gain(bundle, panel, n_windows=CUTOFFS), begin)
    begin = time.perf_counter()
    report("same_recipe", train_both_ways(panel, config, n_windows=WINDOWS), begin)


def report(case: str, gain: CarryGain, begin: float) -> None:
    """Print the results of one case."""
    seconds = time.perf_counter() - begin
    for scores in gain.scores.to_dict("records"):
        note(f"{case}: " + "  ".join(f"{key} {value}" for key, value in scores.items()))
        for metric in ("mase", "wape", "gain"):
            emit("carry", f"m4_hourly/{case}", scores["way"], metric, scores[metric], seconds)


if __name__ == "__main__":
    main()

"""
Seconds until the M4 Hourly forecasts match those of a fully trained peer.

    python -m benchmarks.accuracy.race --data PATH [--target OWA]

Statecast is trained from scratch with 30, 60, 120, ... optimiser steps, each run with its own
schedule, until the mean OWA of `--seeds` runs on the official test meets the target. Only the
seconds of those last runs count, from the data in memory to the forecasts: validation, encoding,
training and forecasting, on one thread as for the peers.

The target is the OWA of neuralforecast's LSTM after its default 1,000 steps, read with its
processor seconds from `benchmarks/results/peers.jsonl`; `--target` sets another. Metrics:
`seconds_to_target`, `steps_to_target` and, for a peer, `times_sooner`: its processor seconds over
our wall seconds. The two clocks agree on an idle machine, and otherwise the ratio is too low.

`--val` holds out the last horizon of the training part instead and needs `--target`.
"""

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import pandas as pd
import torch

from benchmarks.accuracy import m4
from benchmarks.records import add_set_option, emit, find_folder, note, with_settings
from forecast.forecaster import Forecaster

CASE = "m4_hourly"
STEPS = (30, 60, 120, 250, 500, 1000, 2000)
RESULTS = Path(__file__).parents[1] / "results" / "peers.jsonl"


@dataclass(frozen=True, slots=True)
class Target:
    """An OWA to meet, and the processor seconds that the peer needed, if known."""

    owa: float
    seconds: float | None = None


def main() -> None:
    """Train with more and more steps until the target is met, and print the results."""
    args = parse_arguments()
    torch.set_num_threads(1)
    if args.val and args.target is None:
        raise SystemExit("peers are scored on the test: give --target OWA with --val")
    target = read_target(args.results, args.peer) if args.target is None else Target(args.target)
    peer_seconds = f", {target.seconds:.0f} s" if target.seconds else ""
    note(f"target: OWA {target.owa:.4f}{peer_seconds}")
    train, test = m4.load(find_folder(args.data, "m4"), m4.CASES["hourly"], val=args.val)
    for steps in args.steps:
        owas, spans = zip(
            *(run(train, test, steps, seed, args.set) for seed in range(args.seeds)), strict=True
        )
        owa, seconds = mean(owas), mean(spans)
        note(f"{steps} steps: OWA {owa:.4f} in {seconds:.1f} s")
        if owa <= target.owa:
            break
    else:
        raise SystemExit(f"OWA {target.owa:.4f} was not reached with {args.steps[-1]} steps")
    values = {"seconds_to_target": seconds, "steps_to_target": steps}
    if target.seconds is not None:
        values["times_sooner"] = target.seconds / seconds
    for metric, value in values.items():
        emit("race", f"{CASE}_val" if args.val else CASE, "statecast", metric, value, seconds)


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accuracy.race",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, required=True, help="folder that holds m4/")
    parser.add_argument(
        "--target", type=float, metavar="OWA", help="OWA to meet instead of that of the peer"
    )
    parser.add_argument(
        "--peer", default="neuralforecast-lstm", help="model whose OWA is the target"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="result lines of the peers")
    parser.add_argument(
        "--steps", type=int, nargs="+", default=STEPS, help="numbers of steps to try in turn"
    )
    parser.add_argument(
        "--seeds", type=int, default=3, help="runs whose mean OWA must meet the target"
    )
    parser.add_argument(
        "--val", action="store_true", help="hold out the end of the training part instead"
    )
    add_set_option(parser, "any other setting, such as model.cell=gru")
    return parser.parse_args()


def read_target(results: Path, peer: str) -> Target:
    """
    Read the OWA and processor seconds of a peer; complete runs take precedence over stopped ones.

    Raises:
        SystemExit: The results have no OWA of this peer.
    """
    lines = results.read_text(encoding="utf-8").splitlines() if results.exists() else []
    records = [json.loads(line) for line in lines]
    of_peer = [r for r in records if (r["case"], r["model"]) == (CASE, peer)]
    owas = [r for r in of_peer if r["metric"] == "owa"]
    if not owas:
        raise SystemExit(
            f"no OWA of {peer!r} on {CASE} in {results}; run the peers first, or give --target OWA"
        )
    last = max(reversed(owas), key=lambda record: not record["stopped"])
    if last["stopped"]:
        note(f"{peer} was stopped after {last['budget_s']} s, before its last step")
    values = {r["metric"]: r["value"] for r in of_peer if r["stopped"] == last["stopped"]}
    return Target(last["value"], values["fit_cpu_seconds"] + values["predict_cpu_seconds"])


def run(
    train: pd.DataFrame, test: pd.DataFrame, steps: int, seed: int, assignments: list[str]
) -> tuple[float, float]:
    """Train with `steps` optimiser steps, forecast, and return the OWA and the seconds."""
    case = m4.CASES["hourly"]
    tables = {
        "data": {"kind": "positive", "season_lengths": list(case.seasons)},
        "train": {"seed": seed, "max_steps": steps},
    }
    config = with_settings(tables, assignments)
    begin = time.perf_counter()
    forecasts = Forecaster(h=case.horizon, freq=1, config=config).fit(train).predict()
    seconds = time.perf_counter() - begin
    scored = test.merge(forecasts, on=["unique_id", "ds"], validate="1:1")
    return m4.score(scored, train, case, ("Naive2", "statecast"))["statecast"]["owa"], seconds


if __name__ == "__main__":
    main()

"""
Accuracy of peers on the same sets, cutoffs and scores, on one thread each.

    make bench-peers
    python -m benchmarks.peers --data PATH --case aus_retail --model neuralforecast-lstm

Each peer runs in a process of its own, in the environment that `make bench-peers` sets up, with the
settings with which a user of the library would start. Training stops at the budget (`--budget`, in
processor seconds), and the model as it is then makes the forecasts. Results are JSON lines on
stdout, or added to `--out`; a peer with results there is not run again.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.accuracy import sets, unseen
from benchmarks.accuracy.cases import Case
from benchmarks.peers import handover
from benchmarks.peers.catalogue import BUDGET_S, LIMIT_S, SCRIPTS, UNLIMITED_S, budget_of, models_of
from benchmarks.peers.scores import score
from benchmarks.records import note

NAMES = (*sets.NAMES, *unseen.SETS)
TIMES = ("fit_seconds", "predict_seconds", "fit_cpu_seconds", "predict_cpu_seconds")


def main() -> None:
    """Run the selected peers on the selected cases, one at a time."""
    args = parse_arguments()
    start = time.monotonic()
    done = {
        (line["case"], line["model"])
        for line in read_lines(args.out)
        if not (args.again and (line.get("stopped") or line["metric"] == "failed"))
    }
    for name in args.case:
        label = f"{name}_val" if args.val else name
        models = [m for m in args.model or models_of(name) if (label, m) not in done]
        if not models:
            continue
        load = unseen.load if name in unseen.SETS else sets.load
        case = load(name, args.data, val=args.val)
        for model in models:
            if time.monotonic() - start > args.stop_after:
                raise SystemExit(f"stopped before {model} on {name}: --stop-after is over")
            budget_s = budget_of(name, model, args.budget)
            note(f"{model} on {name}, budget {budget_s or 'none'}")
            for line in run_peer(label, case, model, budget_s, args):
                write_line(line, args.out)


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, required=True, help="folder that holds the sets")
    parser.add_argument("--case", nargs="+", choices=NAMES, default=list(NAMES), metavar="CASE")
    parser.add_argument(
        "--model",
        nargs="+",
        choices=SCRIPTS,
        metavar="MODEL",
        help=f"default: those that suit the case; one or more of {', '.join(SCRIPTS)}",
    )
    parser.add_argument(
        "--val", action="store_true", help="cut one horizon earlier, to compare dates"
    )
    parser.add_argument(
        "--budget", type=float, default=BUDGET_S, help="processor seconds of training"
    )
    parser.add_argument("--out", type=Path, help="add the results to this file")
    parser.add_argument(
        "--again", action="store_true", help="also run peers that failed or stopped at their budget"
    )
    parser.add_argument(
        "--keep", type=Path, help="keep forecasts in this folder, and score those already there"
    )
    parser.add_argument(
        "--stop-after",
        type=float,
        default=float("inf"),
        metavar="SECONDS",
        help="start no run later than this",
    )
    parser.add_argument("--python", type=Path, default=Path(".venv-peers/bin/python"))
    return parser.parse_args()


def run_peer(
    name: str, case: Case, model: str, budget_s: float | None, args: argparse.Namespace
) -> list[dict[str, Any]]:
    """Return the result lines of a peer on a case: scores and seconds, or the failure."""
    common = {"benchmark": "peers", "case": name, "model": model}
    try:
        forecasts, run = forecast(name, case, model, budget_s, args)
        table = handover.read(case, model, forecasts)
        values = score(case, table, model, args.data, val=args.val)
    except handover.PeerFailed as error:
        note(f"  {error}")
        return [
            {
                **common,
                "metric": "failed",
                "value": None,
                "seconds": None,
                "budget_s": budget_s,
                "note": str(error),
            }
        ]
    values |= {name: run[name] for name in TIMES}
    if run["steps"] is not None:
        values["steps"] = run["steps"]
    note("  " + "  ".join(f"{name} {value:.4g}" for name, value in values.items()))
    run_fields = {
        "seconds": round(run["fit_seconds"] + run["predict_seconds"], 3),
        "budget_s": budget_s,
        "stopped": run["stopped"],
        "settings": run["settings"],
    }
    return [
        {**common, "metric": m, "value": round(float(v), 6), **run_fields}
        for m, v in values.items()
    ]


def forecast(
    name: str, case: Case, model: str, budget_s: float | None, args: argparse.Namespace
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return the forecasts of a peer and its report of the run, from `--keep` if they are there."""
    folder_to_keep = args.keep / name / model if args.keep else None
    if folder_to_keep is None or not (folder_to_keep / "run.json").exists():
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            handover.write(case, model, folder, budget_s=budget_s)
            try:
                limit_s = UNLIMITED_S if budget_s is None else budget_s + LIMIT_S
                run = handover.call(args.python, model, folder, limit_s=limit_s)
            finally:
                if folder_to_keep is not None:
                    folder_to_keep.mkdir(parents=True, exist_ok=True)
                    for part in ("forecasts.parquet", "log.txt", "run.json"):
                        if (folder / part).exists():
                            shutil.copy(folder / part, folder_to_keep / part)
            return pd.read_parquet(folder / "forecasts.parquet"), run
    forecasts = pd.read_parquet(folder_to_keep / "forecasts.parquet")
    return forecasts, json.loads((folder_to_keep / "run.json").read_text())


def read_lines(path: Path | None) -> list[dict[str, Any]]:
    """Return the results that are already in the file."""
    if path is None or not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]


def write_line(line: dict[str, Any], path: Path | None) -> None:
    """Print a result, or append it to the file."""
    if path is None:
        json.dump(line, sys.stdout)
        print(flush=True)
        return
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()

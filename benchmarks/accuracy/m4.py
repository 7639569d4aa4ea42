"""
Accuracy on one frequency of the M4 competition, with its official test, scores and Naive2.

    python -m benchmarks.accuracy.m4 --freq hourly --data PATH

PATH holds the folder `m4` with `hourly_train.parquet`, `hourly_test.parquet` and
`hourly_naive2.parquet` (columns unique_id, ds, y; y_hat for Naive2). The benchmark prints sMAPE (0
to 200), MASE, OWA, MSIS and coverage of statecast with its default settings, of Naive2 and of the
seasonal naive. The steps of M4 have no dates, so the seasons are declared.

`--val` holds out the last horizon of the training part instead and computes Naive2 itself. Use it
to make choices, and the test only for the final number. `--seeds` repeats with the next seeds.
"""

import argparse
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmarks.records import Progress, add_set_option, emit, find_folder, note, with_settings
from forecast.calendars.calendar import Calendar
from forecast.evaluation.baselines import forecast as forecast_baselines
from forecast.evaluation.baselines import naive2
from forecast.evaluation.metrics import evaluate
from forecast.forecaster import Forecaster

LEVELS = (80, 95)
METRICS = ("owa", "smape", "mase", "coverage_80", "coverage_95", "msis")


@dataclass(frozen=True, slots=True)
class Case:
    """A frequency of M4."""

    files: str
    horizon: int
    season_length: int
    """The official season length, used by MASE, MSIS and Naive2."""
    seasons: tuple[int, ...]
    """Season lengths to give to the model."""
    published: tuple[float, float] | None = None
    """sMAPE and MASE of Naive2 in the competition; None if the files hold only some series."""


CASES = {
    "hourly": Case("hourly", 48, 24, (24, 168), (18.383, 2.395)),
    "daily": Case("daily_tail", 14, 1, (7,)),
    "weekly": Case("weekly", 13, 1, (52,), (9.161, 2.777)),
    "monthly": Case("monthly_subset", 18, 12, (12,)),
    "quarterly": Case("quarterly_subset", 8, 4, (4,)),
    "yearly": Case("yearly", 6, 1, (), (16.342, 3.974)),
}


def main() -> None:
    """Run one frequency and print its results."""
    args = parse_arguments()
    torch.set_num_threads(args.threads)
    case = CASES[args.freq]
    name = f"{args.freq}_val" if args.val else args.freq
    train, test = load(find_folder(args.data, "m4"), case, val=args.val)
    note(f"M4 {name}: {train['unique_id'].nunique():,} series, {len(train):,} observations")

    begin = time.perf_counter()
    naive = forecast_baselines(
        train,
        Calendar(1),
        horizon=case.horizon,
        season_length=case.season_length,
        models=("SeasonalNaive",),
        levels=LEVELS,
    )
    seconds = {"SeasonalNaive": time.perf_counter() - begin, "Naive2": 0.0}
    table = test.merge(naive, on=["unique_id", "ds"], validate="1:1")
    scores = score(table, train, case, ("Naive2", "SeasonalNaive"))
    check_published(scores, case, val=args.val)
    for model in seconds:
        for metric, value in scores[model].items():
            emit("m4", name, model, metric, value, seconds[model])

    values: list[dict[str, float]] = []
    tables = {
        "data": {"kind": "positive", "season_lengths": list(case.seasons)},
        "train": {} if args.max_steps is None else {"max_steps": args.max_steps},
    }
    config = with_settings(tables, args.set)
    for seed in range(args.seed, args.seed + args.seeds):
        begin = time.perf_counter()
        settings = replace(config, train=replace(config.train, seed=seed))
        forecaster = Forecaster(h=case.horizon, freq=1, config=settings)
        forecaster.fit(train, on_event=Progress())
        forecasts = forecaster.predict(level=LEVELS)
        spent = time.perf_counter() - begin
        scored = test.merge(forecasts, on=["unique_id", "ds"], validate="1:1")
        values.append(score(scored, train, case, ("Naive2", "statecast"))["statecast"])
        note(
            f"seed {seed}, trust {forecaster.bundle_.facts['trust']}: "
            + "  ".join(f"{k} {v:.4f}" for k, v in values[-1].items())
        )
        for metric, value in values[-1].items():
            emit(
                "m4",
                name if args.seeds == 1 else f"{name}/seed{seed}",
                "statecast",
                metric,
                value,
                spent,
            )
    if args.seeds > 1:
        for metric in values[0]:
            emit(
                "m4", name, "statecast", metric, float(np.mean([v[metric] for v in values])), spent
            )


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accuracy.m4",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--freq", choices=CASES, required=True)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds m4/")
    parser.add_argument(
        "--val", action="store_true", help="hold out the end of the training part instead"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=1, help="number of seeds, from --seed on")
    parser.add_argument("--max-steps", type=int, help="optimiser steps, instead of the default")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    add_set_option(parser, "any other setting, such as model.cell=gru")
    return parser.parse_args()


def load(folder: Path, case: Case, *, val: bool) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the training part, and the part to score with a column Naive2."""
    train = read(folder / f"{case.files}_train.parquet")
    if not val:
        test = read(folder / f"{case.files}_test.parquet")
        official = pd.read_parquet(folder / f"{case.files}_naive2.parquet")
        official = official.rename(columns={"y_hat": "Naive2"})
        return train, test.merge(official, on=["unique_id", "ds"], validate="1:1")
    steps_left = train.groupby("unique_id").cumcount(ascending=False)
    known, test = train[steps_left >= case.horizon], train[steps_left < case.horizon]
    known = known[known.groupby("unique_id")["y"].transform("size") >= case.horizon]
    test = test[test["unique_id"].isin(known["unique_id"].unique())]
    paths = [
        naive2(y.to_numpy(), horizon=case.horizon, season_length=case.season_length)
        for _, y in known.groupby("unique_id", sort=False)["y"]
    ]
    return known.reset_index(drop=True), test.assign(Naive2=np.concatenate(paths))


def read(path: Path) -> pd.DataFrame:
    """Return a file of M4 sorted, with `y` in float64."""
    frame = pd.read_parquet(path).sort_values(["unique_id", "ds"], ignore_index=True)
    return frame.astype({"y": np.float64, "ds": np.int64})


def score(
    table: pd.DataFrame, train: pd.DataFrame, case: Case, models: tuple[str, ...]
) -> dict[str, dict[str, float]]:
    """Return the scores of each model by metric."""
    scores = evaluate(table, train, season_length=case.season_length, models=models, levels=LEVELS)
    values = scores.set_index(["model", "metric"])["value"].to_dict()
    return {
        model: {m: float(values[model, m]) for m in METRICS if (model, m) in values}
        for model in models
    }


def check_published(scores: dict[str, dict[str, float]], case: Case, *, val: bool) -> None:
    """
    Check that Naive2 has the published scores, if the files hold the whole official test.

    Raises:
        SystemExit: A score differs by more than rounding.
    """
    if val or case.published is None:
        return
    scored = (scores["Naive2"]["smape"], scores["Naive2"]["mase"])
    if any(abs(a - b) > 0.0006 for a, b in zip(scored, case.published, strict=True)):
        raise SystemExit(f"Naive2 scores {scored} here but {case.published} in the competition")
    note(f"Naive2 scores sMAPE {scored[0]:.3f} and MASE {scored[1]:.3f}, as published")


if __name__ == "__main__":
    main()

"""
Accuracy on sets of sales and demand, compared with statistical baselines at the same cutoff.

    python -m benchmarks.accuracy.retail --data PATH --sets aus_retail carparts

PATH holds a folder for each set of `benchmarks.accuracy.retail_sets`; without `--sets`, every set
found there is run. The last horizon of every series is held out. Statecast runs with its default
settings and is given nothing but the roles of the columns. `benchmarks.accuracy.scoring` defines
the metrics; `mase_ratio_snaive` is the MASE divided by that of the seasonal naive.

Baselines run on the whole set or not at all. Without `--baselines` all of them run, with two
exceptions, because they would take hours: only the seasonal naive above 3,000 series, and no
automatic model above 500,000 observations.

`--val` leaves out the last horizon and holds out the one before it. Use it to make choices.
"""

import argparse
import time
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmarks.accuracy.cases import Case
from benchmarks.accuracy.retail_sets import SETS
from benchmarks.accuracy.scoring import LEVELS, QUANTILES, quantile_columns, score
from benchmarks.accuracy.sets import load
from benchmarks.records import Progress, add_set_option, emit, note, with_settings
from forecast.calendars.calendar import Calendar
from forecast.config import Config
from forecast.evaluation.baselines import MODELS
from forecast.evaluation.baselines import forecast as forecast_baselines
from forecast.forecaster import Forecaster

MANY_SERIES, MANY_OBSERVATIONS = 3_000, 500_000


def main() -> None:
    """Forecast every set with every model and print the results."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accuracy.retail",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(parser, SETS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    sets = args.sets or [name for name in SETS if (args.data / name).is_dir()]
    if not sets:
        raise SystemExit(f"no set in {args.data}; it should hold one of: {', '.join(SETS)}")
    for name in sets:
        run(load(name, args.data, val=args.val), f"{name}_val" if args.val else name, args)


def run(case: Case, name: str, args: argparse.Namespace, *, benchmark: str = "retail") -> None:
    """Forecast one set with every model and print the results."""
    report_scores = partial(report, benchmark)
    series = case.train["unique_id"].nunique()
    note(f"{name}: {series:,} series, {len(case.train):,} observations, horizon {case.horizon}")
    naive = None
    for model in affordable(series, len(case.train)) if args.baselines is None else args.baselines:
        begin = time.perf_counter()
        table = forecast_baselines(
            case.train,
            Calendar(case.freq),
            horizon=case.horizon,
            season_length=case.season_length,
            models=(model,),
            levels=LEVELS,
            known_future=case.known_future,
            future=future_covariates(case),
        )
        scores = score(table, case, [model])[model]
        naive = scores["mase"] if model == "SeasonalNaive" else naive
        report_scores(name, model, scores, naive, time.perf_counter() - begin)
    if args.no_statecast:
        return

    config = settings(case, args.set)
    values = []
    spent = 0.0
    for seed in range(args.seed, args.seed + args.seeds):
        begin = time.perf_counter()
        table = forecast_case(case, replace(config, train=replace(config.train, seed=seed)))
        spent = time.perf_counter() - begin
        values.append(score(table, case, ["statecast"])["statecast"])
        label = name if args.seeds == 1 else f"{name}/seed{seed}"
        report_scores(label, "statecast", values[-1], naive, spent)
        missing = set(QUANTILES) - set(quantile_columns(table, "statecast"))
        if missing:
            note(f"crps without the quantiles {sorted(missing)}")
    if args.seeds > 1:
        means = {m: float(np.mean([v[m] for v in values])) for m in values[0]}
        report_scores(name, "statecast", means, naive, spent)


def affordable(series: int, observations: int) -> tuple[str, ...]:
    """
    Return the baselines that take minutes, not hours.

    >>> affordable(100, 40_000) == MODELS, affordable(30_000, 3_000_000)
    (True, ('SeasonalNaive',))
    """
    if series > MANY_SERIES:
        return ("SeasonalNaive",)
    is_large = observations > MANY_OBSERVATIONS
    return tuple(model for model in MODELS if not (is_large and model.startswith("Auto")))


def settings(case: Case, assignments: list[str]) -> Config:
    """Return the default configuration with the roles of the columns and the `--set` values."""
    static = () if case.static is None else tuple(case.static.columns.drop("unique_id"))
    data = {
        "known_future": case.known_future,
        "past_only": case.past_only,
        "static": static,
        "fill": case.fill,
        "season_lengths": case.seasons,
    }
    return with_settings({"data": data}, assignments)


def forecast_case(case: Case, config: Config) -> pd.DataFrame:
    """Train on the training part and forecast the test: mean, median and intervals."""
    forecaster = Forecaster(h=case.horizon, freq=case.freq, config=config)
    forecaster.fit(case.train, case.static, on_event=Progress())
    forecasts: pd.DataFrame = forecaster.predict(
        level=LEVELS, quantiles=(0.5,), futr_df=future_covariates(case)
    )
    return forecasts


def future_covariates(case: Case) -> pd.DataFrame | None:
    """Return the known-future covariates of the test without its `y`, or None if there are none."""
    return case.test[["unique_id", "ds", *case.known_future]] if case.known_future else None


def add_arguments(parser: argparse.ArgumentParser, sets: Iterable[str]) -> None:
    """Add the options of a benchmark of several sets."""
    parser.add_argument("--data", type=Path, required=True, help="folder that holds the sets")
    parser.add_argument("--sets", nargs="+", choices=sets, help="default: every set found")
    parser.add_argument(
        "--val", action="store_true", help="cut one horizon earlier, to make choices"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=1, help="number of seeds, from --seed on")
    parser.add_argument("--baselines", nargs="*", choices=MODELS, help="baselines to run as well")
    parser.add_argument("--no-statecast", action="store_true", help="only the baselines")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    add_set_option(parser, "any setting, such as train.max_steps=600")


def report(
    benchmark: str,
    case: str,
    model: str,
    scores: dict[str, float],
    naive: float | None,
    seconds: float,
) -> None:
    """Print the results of one model."""
    note(f"{model} ({seconds:.0f} s): " + "  ".join(f"{k} {v:.4f}" for k, v in scores.items()))
    for metric, value in scores.items():
        emit(benchmark, case, model, metric, value, seconds)
        if metric == "mase" and naive is not None:
            emit(benchmark, case, model, "mase_ratio_snaive", value / naive, seconds)


if __name__ == "__main__":
    main()

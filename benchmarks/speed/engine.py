"""
Throughput of the live engine without HTTP: steps, durable observations, forecasts.

    python -m benchmarks.speed.engine [--set model.hidden_size=32]

The data are daily counts with a weekly season, the horizon is 28, the network the default one. One
compute thread shares blocks of 2,048 series with a thread for each core. Metrics, in case
`engine/N series` for a batch of N and in case `engine` for the largest batch: `observations_per_s`
(one step of N series from their live states), `durable_observations_per_s` (the same as requests of
at most 100,000 observations, each with plan, step and a committed SQLite transaction) and
`forecasts_per_s` (series per second, 28 steps with five quantiles).

Physical bounds, as the time of the call over the time of the bound: `observe_bound` and
`forecast_bound`, with the matrix products alone at the float32 rate of the cores that have a block;
`copy_bound`, a step over one copy of the states that it moves; `durable_bound`, a request over one
`fsync` of a page in the folder of the log, which takes `fsync_ms`. `history_ratio` is the larger
ratio, of a step and of a forecast, between 10,000 and 100 steps of history; `log_ratio` is the
ratio for a durable step of 20,000 series between logs of 400 and of 16 steps each. For both, 1
means that history costs nothing.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import pandas as pd
import torch

from benchmarks.records import add_set_option, emit, note, with_settings
from benchmarks.speed.logs import BEGIN, DAY, fill, names, started
from benchmarks.speed.step import flop_counter, gemm_rate
from forecast.bundle import Bundle
from forecast.data.panel import Panel
from forecast.forecaster import Forecaster
from forecast.inference import forecasting, observing
from forecast.inference.observing import MAX_SERIES
from service.engine.executor import usual_threads
from service.engine.snapshots import Snapshots
from service.ingest.batch import ObservationBatch
from service.ingest.write_queue import WriteQueue
from service.ingest.writer import Writer
from service.replay.backlog import replay_waiting
from service.replay.recovery import recover
from service.storage.observation_table import BUCKET_STEPS
from service.storage.records import Observations

BATCHES = (1, 100, 1_000, 10_000, 100_000)
QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
HORIZON = 28
MAX_SENT = 100_000
"""Largest number of observations in one request."""


def main() -> None:
    """Measure and print the results."""
    args = parse_arguments()
    torch.set_num_threads(1)
    bundle = train_model(args.set)
    rate = 1e9 * gemm_rate(512, 512, 512)
    with tempfile.TemporaryDirectory() as folder:
        emit("engine", "engine", "statecast", "history_ratio", history_ratio(bundle), args.rounds)
        ratio = log_ratio(bundle, Path(folder))
        emit("engine", "engine", "statecast", "log_ratio", ratio, args.rounds)
        note(f"log_ratio {ratio:.2f}")
        for batch in args.batches:
            case = f"engine/{batch} series"
            results = measure(bundle, batch, Path(folder) / f"{batch}.db", args.rounds, rate)
            for metric, value in results.items():
                emit("engine", case, "statecast", metric, value, args.rounds)
                if batch == args.batches[-1]:
                    emit("engine", "engine", "statecast", metric, value, args.rounds)
            summary = "  ".join(f"{name} {value:,.1f}" for name, value in results.items())
            note(f"{case}: {summary}")


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speed.engine",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES, metavar="SERIES")
    parser.add_argument("--rounds", type=float, default=3.0, help="seconds of each measurement")
    add_set_option(parser, "any setting, such as model.cell=gru")
    return parser.parse_args()


def train_model(assignments: list[str]) -> Bundle:
    """Train a model of the default size for a few steps; its accuracy does not matter here."""
    days = pd.date_range("2020-01-01", periods=200, freq="D")
    rng = np.random.default_rng(0)
    table = pd.concat(
        pd.DataFrame({"unique_id": f"s{i}", "ds": days, "y": rng.poisson(3.0, len(days)) + 0.0})
        for i in range(8)
    )
    tables = {"train": {"max_steps": 5}, "data": {"kind": "count"}}
    config = with_settings(tables, assignments)
    return Forecaster(h=HORIZON, freq="D", config=config).fit(table).bundle_


def measure(
    bundle: Bundle, batch: int, path: Path, seconds: float, rate: float
) -> dict[str, float]:
    """Return the metrics of one batch size, with a new log at `path`."""
    with started(bundle, f"sqlite:///{path}") as writer:
        results = measure_engine(writer, batch, seconds, rate)
    flushes_per_s = rate_of(lambda: flush(path.with_suffix(".page")), 1, seconds)
    results["fsync_ms"] = 1e3 / flushes_per_s
    results["durable_bound"] = batch * flushes_per_s / results["durable_observations_per_s"]
    return results


def measure_engine(writer: Writer, batch: int, seconds: float, rate: float) -> dict[str, float]:
    """Return the rates of the engine with `batch` series, and their bounds."""
    send = make_sender(writer, batch, BEGIN)
    for _ in range(8):  # a history of a week
        send()
    engine = writer.engine
    rows = engine.find(names(0, batch))
    series = np.arange(batch)
    observations = Observations(
        series,
        np.full(batch, BEGIN + 8 * DAY),
        np.full(batch, 3.0),
        np.empty((batch, 0)),
        np.zeros(batch, bool),
    )
    states, _ = engine.snapshot(rows)

    def step(size: int = batch) -> None:
        engine.observed(rows[:size], observations.take(series[:size]))

    def forecast(size: int = batch) -> None:
        engine.forecast(states.between(0, size), HORIZON, None, QUANTILES)

    results: dict[str, float] = {}
    rate *= min(usual_threads(), -(-batch // MAX_SERIES))
    for name, call in (("observe", step), ("forecast", forecast)):
        per_s = rate_of(call, batch, seconds)
        block = min(batch, MAX_SERIES)
        with flop_counter() as counter:  # it counts in this thread only, so at most one block
            call(block)
        results["observations_per_s" if name == "observe" else "forecasts_per_s"] = per_s
        results[f"{name}_bound"] = rate * block / counter.get_total_flops() / per_s
    results["durable_observations_per_s"] = rate_of(send, batch, seconds)
    copies_per_s = rate_of(lambda: states.take(series), batch, seconds)
    results["copy_bound"] = copies_per_s / results["observations_per_s"]
    return results


def make_sender(writer: Writer, series: int, day: int) -> Callable[[], None]:
    """Return a function that writes the next day of every series at each call."""

    def send() -> None:
        nonlocal day
        for begin in range(0, series, MAX_SENT):
            part = names(begin, min(begin + MAX_SENT, series))
            y = np.random.default_rng(day % 1000).poisson(3.0, len(part)).astype(np.float64)
            stamps, covariates = np.full(len(part), day), np.empty((len(part), 0))
            writer.write(ObservationBatch(part, stamps, y, covariates, (), str))
        day += DAY

    return send


def log_ratio(
    bundle: Bundle, folder: Path, *, series: int = 20_000, longest: int = 400, shortest: int = 16
) -> float:
    """
    Return the time of a durable step of many series over a long log relative to a short one.

    Both histories end at the same position in a bucket of the log. The two logs take turns through
    a whole bucket.
    """
    with ExitStack() as stack:
        sends = []
        for steps in (longest, shortest):
            url = f"sqlite:///{folder / f'{steps} steps.db'}"
            fill(url, bundle, series, steps)
            writer = stack.enter_context(started(bundle, url))
            recover(writer, Snapshots(folder / str(steps), writer.log, bundle.digest))
            write_queue = WriteQueue(writer, 600.0)
            replay_waiting(
                write_queue.writer,
                write_queue.put_in_place,
                stopped=lambda: False,
                on_progress=lambda: None,
            )
            write_queue.close()
            sends.append(make_sender(writer, series, BEGIN + steps * DAY))
        return ratio_of(*sends, turns=BUCKET_STEPS)


def flush(path: Path) -> None:
    """Write one page and flush it to the disk."""
    with path.open("r+b" if path.exists() else "wb") as file:
        file.write(bytes(4096))
        file.flush()
        os.fsync(file.fileno())


def history_ratio(bundle: Bundle, longest: int = 10_000, shortest: int = 100) -> float:
    """
    Return the time after a long history relative to a short one, the larger of step and forecast.

    The two histories take turns, so that other load on the machine affects both alike.
    """
    size, calls = 64, []
    for length in (longest, shortest):
        rng = np.random.default_rng(0)
        days = DAY * np.arange(length + 1)
        panel = Panel(
            ids=tuple(str(i) for i in range(size)),
            indptr=np.arange(size + 1, dtype=np.int64) * (length + 1),
            ds=np.tile(days, size),
            values=rng.poisson(3.0, size * (length + 1)).astype(np.float64),
            observed=np.ones(size * (length + 1), bool),
            known_future=np.empty((size * (length + 1), 0), np.float32),
            past_only=np.empty((size * (length + 1), 0), np.float32),
        )
        lengths = np.full(size, length)
        states = observing.warm_up(bundle, panel.head(lengths))
        calls.append(
            (
                partial(observing.observe, bundle, states, panel.tail(lengths)),
                partial(forecasting.forecast, bundle, states, quantiles=QUANTILES),
            )
        )
    return max(ratio_of(long, short) for long, short in zip(*calls, strict=True))


def ratio_of(first: Callable[[], object], second: Callable[[], object], turns: int = 1000) -> float:
    """Return the median time of the first call over that of the second, called in turns."""
    spans = [(seconds_of(first), seconds_of(second)) for _ in range(turns)]
    first_s, second_s = (median(column) for column in zip(*spans, strict=True))
    return first_s / second_s


def seconds_of(call: Callable[[], object]) -> float:
    """Return the seconds of one call."""
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def rate_of(call: Callable[[], object], size: int, seconds: float) -> float:
    """Return `size` per second by the median call, measured for `seconds`."""
    spans, start = [], time.perf_counter()
    while not spans or time.perf_counter() - start < seconds:
        spans.append(seconds_of(call))
    return size / median(spans)


if __name__ == "__main__":
    main()

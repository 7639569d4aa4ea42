"""
How fast the live engine goes, without HTTP: steps, durable observations, forecasts, by batch.

    python -m benchmarks.speed.engine [--set model.hidden_size=32]

Daily counts with a weekly season, horizon 28, the default network, one compute thread, which shares
blocks of 2,048 series with a thread for each core. Metrics, of
case `engine` at the largest batch and of `engine/N series` at each: `observations_per_s` (one step
of N series from their live states), `durable_observations_per_s` (the same as requests of at most
100,000 through plan, step and a committed transaction of SQLite), `forecasts_per_s` (series a
second, 28 steps with five quantiles).

Physical bounds, each as how many times its time the call takes: `observe_bound` and
`forecast_bound`, of the matrix products alone at the rate of float32 products of the cores that
have a block;
`copy_bound`, of a step over copying the states it moves once; `durable_bound`, of a request over
one `fsync` of a page beside the log, which takes `fsync_ms`. `history_ratio` is the dearest of a
step and a forecast after 10,000 steps of history over the same after 100: 1 is flat; `log_ratio`
that of a durable step of 20,000 series over a log of 400 steps each and over one of 16.
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
MOST_SENT = 100_000


def main() -> None:
    """Measure and print the lines."""
    args = arguments()
    torch.set_num_threads(1)
    bundle = trained(args.set)
    rate = 1e9 * gemm_rate(512, 512, 512)
    with tempfile.TemporaryDirectory() as folder:
        emit("engine", "engine", "statecast", "history_ratio", history_ratio(bundle), args.rounds)
        long = log_ratio(bundle, Path(folder))
        emit("engine", "engine", "statecast", "log_ratio", long, args.rounds)
        note(f"log_ratio {long:.2f}")
        for batch in args.batches:
            place = f"engine/{batch} series"
            measured = measure(bundle, batch, Path(folder) / f"{batch}.db", args.rounds, rate)
            for metric, value in measured.items():
                emit("engine", place, "statecast", metric, value, args.rounds)
                if batch == args.batches[-1]:
                    emit("engine", "engine", "statecast", metric, value, args.rounds)
            summary = "  ".join(f"{name} {value:,.1f}" for name, value in measured.items())
            note(f"{place}: {summary}")


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speed.engine",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES, metavar="SERIES")
    parser.add_argument("--rounds", type=float, default=3.0, help="seconds of each measurement")
    add_set_option(parser, "any setting, such as model.cell=gru")
    return parser.parse_args()


def trained(assignments: list[str]) -> Bundle:
    """A model of the usual shape; how well it forecasts does not matter here."""
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
    """Rates of one batch size, over a log of its own."""
    with started(bundle, f"sqlite:///{path}") as writer:
        found = measure_engine(writer, batch, seconds, rate)
    flushing = rate_of(lambda: flush(path.with_suffix(".page")), 1, seconds)
    found["fsync_ms"] = 1e3 / flushing
    found["durable_bound"] = batch * flushing / found["durable_observations_per_s"]
    return found


def measure_engine(writer: Writer, batch: int, seconds: float, rate: float) -> dict[str, float]:
    """What the engine does with so many series, and its bounds."""
    send = sender(writer, batch, BEGIN)
    for _ in range(8):  # a history of a week
        send()
    engine = writer.engine
    rows = engine.find(names(0, batch))
    series = np.arange(batch)
    fresh = Observations(
        series,
        np.full(batch, BEGIN + 8 * DAY),
        np.full(batch, 3.0),
        np.empty((batch, 0)),
        np.zeros(batch, bool),
    )
    states, _ = engine.snapshot(rows)

    def step(most: int = batch) -> None:
        engine.observed(rows[:most], fresh.take(series[:most]))

    def forecast(most: int = batch) -> None:
        engine.forecast(states.between(0, most), HORIZON, None, QUANTILES)

    results: dict[str, float] = {}
    rate *= min(usual_threads(), -(-batch // MAX_SERIES))
    for name, call in (("observe", step), ("forecast", forecast)):
        reached = rate_of(call, batch, seconds)
        block = min(batch, MAX_SERIES)
        with flop_counter() as counter:  # sees this thread only, and so no more than a block
            call(block)
        results["observations_per_s" if name == "observe" else "forecasts_per_s"] = reached
        results[f"{name}_bound"] = rate * block / counter.get_total_flops() / reached
    results["durable_observations_per_s"] = rate_of(send, batch, seconds)
    copying = rate_of(lambda: states.take(series), batch, seconds)
    results["copy_bound"] = copying / results["observations_per_s"]
    return results


def sender(writer: Writer, series: int, day: int) -> Callable[[], None]:
    """Each call makes the next step of every series durable."""

    def send() -> None:
        nonlocal day
        for begin in range(0, series, MOST_SENT):
            part = names(begin, min(begin + MOST_SENT, series))
            y = np.random.default_rng(day % 1000).poisson(3.0, len(part)).astype(np.float64)
            stamps, none = np.full(len(part), day), np.empty((len(part), 0))
            writer.write(ObservationBatch(part, stamps, y, none, (), str))
        day += DAY

    return send


def log_ratio(
    bundle: Bundle, folder: Path, *, series: int = 20_000, longest: int = 400, shortest: int = 16
) -> float:
    """
    How many times as long a durable step of many series takes over a log of the longest history.

    Both histories end at the same place of a bucket, and take turns through a whole one.
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
                told=lambda: None,
            )
            write_queue.close()
            sends.append(sender(writer, series, BEGIN + steps * DAY))
        return ratio_of(*sends, turns=BUCKET_STEPS)


def flush(path: Path) -> None:
    """Put one page on the disk."""
    with path.open("r+b" if path.exists() else "wb") as file:
        file.write(bytes(4096))
        file.flush()
        os.fsync(file.fileno())


def history_ratio(bundle: Bundle, longest: int = 10_000, shortest: int = 100) -> float:
    """
    How many times as much a step, or a forecast, costs after the longest history.

    The two histories take turns, so that a busy moment of the machine hits both alike.
    """
    size, calls = 64, []
    for length in (longest, shortest):
        rng = np.random.default_rng(0)
        days = DAY * np.arange(length + 1)
        whole = Panel(
            ids=tuple(str(i) for i in range(size)),
            indptr=np.arange(size + 1, dtype=np.int64) * (length + 1),
            ds=np.tile(days, size),
            values=rng.poisson(3.0, size * (length + 1)).astype(np.float64),
            observed=np.ones(size * (length + 1), bool),
            known_future=np.empty((size * (length + 1), 0), np.float32),
            past_only=np.empty((size * (length + 1), 0), np.float32),
        )
        lengths = np.full(size, length)
        states = observing.warm_up(bundle, whole.head(lengths))
        calls.append(
            (
                partial(observing.observe, bundle, states, whole.tail(lengths)),
                partial(forecasting.forecast, bundle, states, quantiles=QUANTILES),
            )
        )
    return max(ratio_of(long, short) for long, short in zip(*calls, strict=True))


def ratio_of(one: Callable[[], object], other: Callable[[], object], turns: int = 1000) -> float:
    """Median time of one call over that of the other."""
    spans = [(seconds_of(one), seconds_of(other)) for _ in range(turns)]
    first, second = (median(column) for column in zip(*spans, strict=True))
    return first / second


def seconds_of(call: Callable[[], object]) -> float:
    """What one call takes."""
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def rate_of(call: Callable[[], object], size: int, seconds: float) -> float:
    """How many a second, by the median call."""
    spans, begun = [], time.perf_counter()
    while not spans or time.perf_counter() - begun < seconds:
        spans.append(seconds_of(call))
    return size / median(spans)


if __name__ == "__main__":
    main()

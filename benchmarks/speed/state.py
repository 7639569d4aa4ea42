"""
Cost of one new observation after short and long histories, compared with re-reading them.

    python -m benchmarks.speed.state

A state is warmed up on 100, 1,000 and 10,000 steps; then one more step is observed, for one series
and for 1,000 at once. Metrics, as medians in microseconds per call: `observe_us` (one step from the
state), `forecast_us` (a whole horizon from the state) and `reread_us` (a cold warm-up on the whole
history, as a forecaster without state does it at each request). `reread_over_observe` is the ratio
of the last to the first. `observe_growth` is the cost of a step after the longest history over that
after the shortest: 1 means that history costs nothing.

The data are hourly with daily and weekly seasons, the horizon is 48, the network the default one.
Values do not matter here and are synthetic. The rounds alternate between histories, so that other
load on the machine affects all of them alike.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import median

import numpy as np
import pandas as pd
import torch

from benchmarks.records import add_set_option, emit, note, with_settings
from forecast.bundle import Bundle
from forecast.data.panel import Panel
from forecast.forecaster import Forecaster
from forecast.inference import forecasting, observing
from forecast.inference.states import States, initial_states

HISTORIES = (100, 1_000, 10_000)
BATCHES = (1, 1_000)
HOUR = 3_600_000_000_000
BLOCK = 1_000_000
"""Largest number of steps re-read in one call, which bounds the memory."""


@dataclass(frozen=True, slots=True)
class Bench:
    """The states and timings of one batch size after one history."""

    batch: int
    history: int
    states: States
    observe: list[float]
    forecast: list[float]

    @property
    def case(self) -> str:
        """The case in the results."""
        return f"{self.batch} series, {self.history} steps"


def main() -> None:
    """Measure and print the results."""
    args = parse_arguments()
    torch.set_num_threads(args.threads)
    begin = time.perf_counter()
    bundle = train_model(args.set)
    benches = [prepare(bundle, batch, h) for batch in args.batches for h in args.histories]
    note(f"trained and warmed up in {time.perf_counter() - begin:.0f} s")
    for round_ in range(args.rounds):
        for bench in benches:
            calls = args.calls if bench.batch == 1 else max(1, args.calls // 10)
            step = panel(bench.batch, 1, first=bench.history)
            observe = partial(observing.observe, bundle, bench.states, step)
            bench.observe.extend(times(observe, calls))
            bench.forecast.extend(times(partial(forecasting.forecast, bundle, bench.states), calls))
        note(f"round {round_ + 1} of {args.rounds}")
    for bench in benches:
        reread = reread_times(bundle, bench, args.rounds)
        values = {
            "observe_us": median(bench.observe),
            "forecast_us": median(bench.forecast),
            "reread_us": median(reread),
            "reread_over_observe": median(reread) / median(bench.observe),
        }
        seconds = (sum(bench.observe) + sum(bench.forecast) + sum(reread)) / 1e6
        for metric, value in values.items():
            emit("state", bench.case, "statecast", metric, value, seconds)
    for batch in args.batches:
        costs = [median(bench.observe) for bench in benches if bench.batch == batch]
        emit("state", f"{batch} series", "statecast", "observe_growth", costs[-1] / costs[0], 0.0)


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speed.state",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--histories", type=int, nargs="+", default=HISTORIES, metavar="STEPS")
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES, metavar="SERIES")
    parser.add_argument("--calls", type=int, default=100, help="timed calls per round and case")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    add_set_option(parser, "any setting, such as model.cell=gru")
    return parser.parse_args()


def train_model(assignments: list[str]) -> Bundle:
    """Train a model of the default size for a few steps; its accuracy does not matter here."""
    length, batch = 600, 8
    data = panel(batch, length)
    table = pd.DataFrame(
        {
            "unique_id": np.repeat(data.ids, length),
            "ds": data.ds.astype("datetime64[ns]"),
            "y": data.values,
        }
    )
    config = with_settings({"train": {"max_steps": 5}}, assignments)
    return Forecaster(h=48, freq="h", config=config).fit(table).bundle_


def panel(batch: int, steps: int, *, first: int = 0) -> Panel:
    """Return `steps` hours of `batch` series from step `first` on, with a daily season."""
    step = np.arange(first, first + steps)
    value = 50.0 + 10.0 * np.sin(2 * np.pi * step / 24) + np.sqrt(1.0 + step % 168)
    return Panel(
        ids=tuple(f"series {i}" for i in range(batch)),
        indptr=np.arange(batch + 1, dtype=np.int64) * steps,
        ds=np.tile(step * HOUR, batch),
        values=np.tile(value, batch),
        observed=np.ones(batch * steps, dtype=bool),
        known_future=np.zeros((batch * steps, 0), dtype=np.float32),
        past_only=np.zeros((batch * steps, 0), dtype=np.float32),
    )


def prepare(bundle: Bundle, batch: int, history: int) -> Bench:
    """Warm up one series on the history and use its state for the whole batch."""
    state = observing.warm_up(bundle, panel(1, history))
    return Bench(batch, history, state.take(np.zeros(batch, dtype=np.int64)), [], [])


def reread_times(bundle: Bundle, bench: Bench, rounds: int) -> list[float]:
    """Return the microseconds of cold warm-ups on the whole history, in blocks of `BLOCK` steps."""
    steps = max(1, min(bench.history, BLOCK // bench.batch))
    firsts = range(0, bench.history, steps)
    parts = [panel(bench.batch, min(steps, bench.history - first), first=first) for first in firsts]

    def reread() -> None:
        states = initial_states(bundle, bench.batch)
        for part in parts:
            states = observing.observe(bundle, states, part)

    return times(reread, rounds if len(parts) == 1 else 1)


def times(call: Callable[[], object], number: int) -> list[float]:
    """Return the microseconds of each of `number` calls."""
    spans = []
    for _ in range(number):
        begin = time.perf_counter_ns()
        call()
        spans.append((time.perf_counter_ns() - begin) / 1e3)
    return spans


if __name__ == "__main__":
    main()

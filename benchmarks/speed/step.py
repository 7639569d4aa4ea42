"""
Time of one training step relative to that of its matrix products alone on this machine.

    python -m benchmarks.speed.step [--hidden 64] [--lanes 256] [--profile]

Whole optimiser steps of the training are timed: gathering, forward, both losses, backward, clipping
and the optimiser. The floating-point operations of every matrix product of the same steps are
counted as torch dispatches them, those inside the fused LSTM by its formula. The bound is that
count over the rate of float32 matrix products measured in the same process, the best of several
shapes. One thread is used, and the series are synthetic.

Metrics: `bound_ratio`, the time of a step over its bound (at least 1; the excess is element-wise
work and memory access), `step_ms`, `gflop` (of one step) and `observations_per_s`, as medians over
the steps, and `gemm_gflops`, the rate of matrix products.

Cases: `step` (hourly: 256 lanes, chunks of 12, horizon 48, seasons 24 and 168, LSTM), `step_gru`
(the same with a GRU) and `retail` (daily counts: 1,024 lanes, chunks of 14, horizon 28, ten
known-future covariates). `--hidden`, `--lanes`, `--chunk` and `--horizon` apply to all of them.

References:
    Williams, Waterman & Patterson, Roofline: an insightful visual performance model for multicore
    architectures, Communications of the ACM 52(4), 2009.
"""

import argparse
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.records import add_set_option, emit, note, with_settings
from forecast.config import Config
from forecast.data.panel import Panel
from forecast.training.progress import TrainEvent
from forecast.training.train import train

Size = tuple[int, ...]
WARM = 10
"""Steps at the start of a run that are not timed."""
MAX_STEPS = 199
"""Largest number of steps of which a run reports each; longer runs report about a hundred."""
SPAN_S = 0.02
"""Shortest duration of one measurement of the rate, in seconds."""


@dataclass(frozen=True, slots=True)
class Shape:
    """The settings that determine the size of a step."""

    freq: str
    kind: str
    cell: str
    lanes: int
    chunk: int
    horizon: int
    seasons: tuple[int, ...]
    hidden: int = 64
    known: int = 0
    """Number of known-future covariates."""


HOURLY = Shape("h", "positive", "lstm", 256, 12, 48, (24, 168))
CASES = {
    "step": HOURLY,
    "step_gru": replace(HOURLY, cell="gru"),
    "retail": Shape("D", "count", "lstm", 1024, 14, 28, (7,), known=10),
}


def main() -> None:
    """Measure each case and print its results."""
    args = parse_arguments()
    torch.set_num_threads(1)
    sizes = {name: getattr(args, name) for name in ("hidden", "lanes", "chunk", "horizon")}
    changed = {name: value for name, value in sizes.items() if value is not None}
    for case in args.cases:
        shape = replace(CASES[case], **changed)
        begin = time.perf_counter()
        run = Run(panel(shape, args.length), settings(shape, args.steps, args.set))
        flops = run.flops()
        before = gemm_rates(shape)
        spans, observations = run.times(args.rounds)
        rates = {size: max(rate, before[size]) for size, rate in gemm_rates(shape).items()}
        best = max(rates, key=lambda size: rates[size])
        note(
            f"{case}: matrix products at {rates[best]:.1f} GFLOP/s, the best of "
            + ", ".join(f"{m}x{k}x{n} {rate:.1f}" for (m, k, n), rate in rates.items())
        )
        values = {
            "bound_ratio": np.median(spans * rates[best] * 1e9 / flops),
            "step_ms": 1e3 * np.median(spans),
            "gflop": np.median(flops) / 1e9,
            "gemm_gflops": rates[best],
            "observations_per_s": np.median(observations),
        }
        for metric, value in values.items():
            emit("step", case, "statecast", metric, float(value), time.perf_counter() - begin)
        if args.profile:
            note(run.profile())


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speed.step",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--hidden", type=int, help="units of the cell")
    parser.add_argument("--lanes", type=int, help="series trained in parallel")
    parser.add_argument("--chunk", type=int, help="steps of truncated backpropagation")
    parser.add_argument("--horizon", type=int)
    parser.add_argument("--length", type=int, default=480, help="steps of each synthetic series")
    parser.add_argument(
        "--steps",
        type=int,
        default=100,
        choices=range(WARM + 1, MAX_STEPS + 1),
        metavar=f"{WARM + 1}..{MAX_STEPS}",
        help="steps in a round",
    )
    parser.add_argument(
        "--rounds", type=int, default=3, help="rounds; the fastest time of each step counts"
    )
    parser.add_argument(
        "--profile", action="store_true", help="print the slowest operators on stderr"
    )
    add_set_option(parser, "any other setting, such as model.num_layers=2")
    return parser.parse_args()


def settings(shape: Shape, steps: int, assignments: list[str]) -> Config:
    """Return a configuration that trains steps of this shape without validation in between."""
    tables: dict[str, dict[str, Any]] = {
        "data": {
            "freq": shape.freq,
            "kind": shape.kind,
            "season_lengths": list(shape.seasons),
            "known_future": [f"covariate_{i}" for i in range(shape.known)],
        },
        "model": {
            "cell": shape.cell,
            "hidden_size": shape.hidden,
            "horizon": shape.horizon,
        },
        "train": {
            "max_steps": steps,
            "batch_size": shape.lanes,
            "chunk_length": shape.chunk,
            "val_size": 0,
        },
    }
    return with_settings(tables, assignments)


def panel(shape: Shape, length: int) -> Panel:
    """Return a seasonal series for each lane, of counts or positive values, all of one length."""
    rng = np.random.default_rng(0)
    step = np.arange(length)
    level = rng.lognormal(1.0, 1.0, shape.lanes)[:, None] + 0.1
    mean = level * (1 + 0.5 * np.sin(2 * np.pi * step / shape.seasons[0]))
    values = (
        rng.poisson(mean) if shape.kind == "count" else mean * rng.lognormal(0, 0.1, mean.shape)
    )
    size = shape.lanes * length
    ds = pd.date_range("2020-01-01", periods=length, freq=shape.freq).to_numpy()
    return Panel(
        ids=tuple(f"series {i}" for i in range(shape.lanes)),
        indptr=np.arange(shape.lanes + 1, dtype=np.int64) * length,
        ds=np.tile(ds.astype("datetime64[ns]").astype(np.int64), shape.lanes),
        values=values.ravel().astype(np.float64),
        observed=np.ones(size, dtype=bool),
        known_future=rng.standard_normal((size, shape.known)).astype(np.float32),
        past_only=np.zeros((size, 0), dtype=np.float32),
    )


@dataclass(frozen=True, slots=True)
class Run:
    """A short training that is the same at each call, because its seed is fixed."""

    panel: Panel
    config: Config

    def flops(self) -> np.ndarray:
        """Return the floating-point operations of the matrix products of each timed step."""
        totals: list[int] = []
        with flop_counter() as counter:
            self._train(lambda _: totals.append(counter.get_total_flops()))
        return np.diff(totals)[WARM - 1 :]

    def times(self, rounds: int) -> tuple[np.ndarray, np.ndarray]:
        """Return seconds and observations per second of each timed step, the best of the rounds."""
        spans, rates = [], []
        for _ in range(rounds):
            events: list[TrainEvent] = []
            self._train(events.append)
            spans.append(np.diff([event.seconds for event in events])[WARM - 1 :])
            rates.append([event.observations_per_s for event in events[WARM:]])
        return np.min(spans, axis=0), np.max(rates, axis=0)

    def profile(self, rows: int = 25) -> str:
        """Return a table of the operators with the largest self time."""
        last = self.config.train.max_steps
        profiler = profile(activities=[ProfilerActivity.CPU])

        def switch(event: TrainEvent) -> None:
            if event.step == WARM:
                profiler.start()
            elif event.step == last:
                profiler.stop()

        self._train(switch)
        return str(profiler.key_averages().table(sort_by="self_cpu_time_total", row_limit=rows))

    def _train(self, on_event: Callable[[TrainEvent], None]) -> None:
        train(self.panel, self.config, on_event=on_event)


def flop_counter() -> FlopCounterMode:
    """
    Return a counter of all matrix products that torch dispatches, also those in a fused LSTM.

    >>> with flop_counter() as counter, torch.no_grad():
    ...     _ = torch.nn.LSTM(5, 3)(torch.zeros(7, 2, 5))
    >>> counter.get_total_flops() == 2 * 7 * 2 * (4 * 3) * (5 + 3)
    True
    """
    aten = torch.ops.aten
    return FlopCounterMode(
        display=False,
        custom_mapping={
            aten.mkldnn_rnn_layer: _fused_forward,
            aten.mkldnn_rnn_layer_backward: _fused_backward,
        },
    )


def _fused_forward(
    inputs: Size, input_weight: Size, state_weight: Size, *_: Any, out_shape: Any = None
) -> int:
    """Count one layer: inputs and state times the weights of all gates, at each step."""
    steps, lanes, _width = inputs
    return 2 * steps * lanes * (math.prod(input_weight) + math.prod(state_weight))


def _fused_backward(
    inputs: Size, input_weight: Size, state_weight: Size, *_: Any, out_shape: Any = None
) -> int:
    """Count the gradients of inputs and weights, each as many as the forward products."""
    return 2 * _fused_forward(inputs, input_weight, state_weight)


def gemm_rates(shape: Shape) -> dict[tuple[int, int, int], float]:
    """
    Return the GFLOP/s of float32 products (m, k) @ (k, n), by shape.

    The shapes are those of a training step (gates of a whole chunk, gates of a time step, the two
    layers of the head) and a square one, which suits matrix libraries best.
    """
    hidden, origins = shape.hidden, shape.lanes * shape.chunk // 3
    head_inputs = 2 * hidden + 2 * len(shape.seasons) * shape.horizon
    sizes = [
        (shape.lanes * shape.chunk, hidden, 4 * hidden),
        (shape.lanes, hidden, 4 * hidden),
        (origins, head_inputs, 2 * hidden),
        (origins, 2 * hidden, shape.horizon),
        (512, 512, 512),
    ]
    return {size: gemm_rate(*size) for size in sizes}


def gemm_rate(m: int, k: int, n: int, tries: int = 10) -> float:
    """Return the GFLOP/s of the product (m, k) @ (k, n), the best of `tries` measurements."""
    a, b, out = torch.randn(m, k), torch.randn(k, n), torch.empty(m, n)
    torch.mm(a, b, out=out)
    best = 0.0
    calls = 1
    while tries:
        begin = time.perf_counter()
        for _ in range(calls):
            torch.mm(a, b, out=out)
        seconds = time.perf_counter() - begin
        if seconds < SPAN_S:
            calls *= 2
            continue
        best = max(best, 2e-9 * m * k * n * calls / seconds)
        tries -= 1
    return best


if __name__ == "__main__":
    main()

"""
A million live series in one process: memory, start, replay, and forecasts during the replay.

    python -m benchmarks.speed.million [--series 1000000] [--steps 20]

The data are daily counts as in `benchmarks.speed.engine`, in a SQLite log with `--steps` days of
every series. The stages are those of a server: a replay of the whole log with a worker process for
each usable core, while a client requests forecasts of single series; then snapshots of all states;
then a start from the snapshots. Metrics of case `million`:

- `replay_per_s`, observations per second from the file to live states, including the start of the
  workers, and `replay_cores`, the cores that replay and client had on average, which is less than
  the usable ones if other processes are busy;
- two bounds: `read_per_s`, the rate at which one thread only reads the same rows, and
  `replay_bound`, the time of the replay over that of the network's matrix products on all usable
  cores;
- `forecast_ms_replaying` and `forecast_p99_ms_replaying`, median and 99th percentile of a forecast
  of 28 steps with five quantiles during the replay;
- `snapshot_s` and `snapshot_gib`, to write all states to the disk; `start_s`, from a closed log to
  all series live from the snapshots;
- `memory_gib`, the largest resident memory including the workers, and `state_kib`, of one series.
"""

import argparse
import multiprocessing.process
import os
import resource
import tempfile
import threading
import time
from dataclasses import fields
from pathlib import Path

import numpy as np
import torch

from benchmarks.records import add_set_option, emit, note
from benchmarks.speed.engine import HORIZON, QUANTILES, train_model
from benchmarks.speed.logs import PART, fill, started
from benchmarks.speed.step import flop_counter, gemm_rate
from forecast.bundle import Bundle
from forecast.inference.states import initial_states
from service.engine.snapshots import Snapshots
from service.ingest.write_queue import WriteQueue
from service.ingest.writer import Writer
from service.replay.backlog import replay_waiting
from service.replay.recovery import recover
from service.storage.log import ObservationLog

BETWEEN_S = 0.02
"""Seconds between two forecasts of the client."""


def main() -> None:
    """Fill a log, run the stages and print the results."""
    args = parse_arguments()
    torch.set_num_threads(1)
    start = time.perf_counter()
    bundle = train_model(args.set)
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        results = measure(bundle, Path(folder), args.series, args.steps)
    for metric, value in results.items():
        emit("million", "million", "statecast", metric, value, time.perf_counter() - start)
        note(f"{metric} {value:,.3f}")


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speed.million",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--series", type=int, default=1_000_000)
    parser.add_argument("--steps", type=int, default=20, help="days of history of each series")
    parser.add_argument(
        "--folder", type=Path, help="folder for the log; it needs 2 GB for each 20 days"
    )
    add_set_option(parser, "any setting, such as model.hidden_size=32")
    return parser.parse_args()


def measure(bundle: Bundle, folder: Path, series: int, steps: int) -> dict[str, float]:
    """Run the stages one after the other and return all metrics."""
    url = f"sqlite:///{folder / 'observations.db'}"
    start = time.perf_counter()
    fill(url, bundle, series, steps)
    rate = series * steps / (time.perf_counter() - start)
    note(f"{series * steps:,} observations of {series:,} series at {rate:,.0f}/s")
    results = {"read_per_s": series * steps / read_seconds(url, series)}
    with started(bundle, url) as writer:
        recover(writer, Snapshots(folder, writer.log, bundle.digest))
        seconds, cpu_seconds, waits, workers_kib = replay(writer)
        cores = len(os.sched_getaffinity(0))
        results["replay_per_s"] = series * steps / seconds
        results["replay_cores"] = cpu_seconds / seconds
        results["replay_bound"] = seconds * cores / (series * steps * product_seconds(bundle))
        results["forecast_ms_replaying"] = 1e3 * float(np.median(waits))
        results["forecast_p99_ms_replaying"] = 1e3 * float(np.quantile(waits, 0.99))
        begin = time.perf_counter()
        snapshots = Snapshots(folder, writer.log, bundle.digest)
        snapshots.save(writer.engine)
        results["snapshot_s"] = time.perf_counter() - begin
        size = sum(path.stat().st_size for path in snapshots.folder.iterdir())
        results["snapshot_gib"] = size / 2**30
    begin = time.perf_counter()
    with started(bundle, url) as writer:
        live = recover(writer, Snapshots(folder, writer.log, bundle.digest))
        results["start_s"] = time.perf_counter() - begin
        assert live == series, f"{live} of {series} series came from the snapshots"
    own_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    results["memory_gib"] = (own_kib + workers_kib) / 2**20
    states = initial_states(bundle, 1)
    arrays = [getattr(states, field.name) for field in fields(states) if field.name != "digest"]
    results["state_kib"] = sum(array.nbytes for array in arrays) / 2**10
    return results


def read_seconds(url: str, series: int) -> float:
    """Return the seconds that it takes only to read the log."""
    log = ObservationLog(url)
    start = time.perf_counter()
    with log.read() as transaction:
        for begin in range(1, series + 1, PART):
            transaction.history(range(begin, min(begin + PART, series + 1)))
    seconds = time.perf_counter() - start
    log.close()
    return seconds


def replay(writer: Writer) -> tuple[float, float, list[float], int]:
    """
    Replay the whole log while a client requests forecasts.

    Returns:
        Seconds until all series are live, processor seconds, seconds of each forecast meanwhile,
        and the largest resident memory of the workers together, in KiB.
    """
    engine, write_queue = writer.engine, WriteQueue(writer, 600.0)
    waits: list[float] = []
    finished, workers_kib = threading.Event(), 0

    def measure_workers() -> None:
        nonlocal workers_kib
        total = sum(map(resident_kib, multiprocessing.active_children()))
        workers_kib = max(workers_kib, total)

    def request_forecasts() -> None:
        rng = np.random.default_rng(0)
        while not finished.wait(BETWEEN_S):
            if len(engine):
                row = rng.integers(len(engine), size=1)
                begin = time.perf_counter()
                engine.executor.run(
                    lambda row=row: engine.forecast(  # type: ignore[misc]
                        engine.snapshot(row)[0], HORIZON, None, QUANTILES
                    )
                )
                waits.append(time.perf_counter() - begin)

    client = threading.Thread(target=request_forecasts)
    client.start()
    start, before = time.perf_counter(), os.times()
    replay_waiting(
        write_queue.writer,
        write_queue.put_in_place,
        stopped=lambda: False,
        on_progress=measure_workers,
    )
    seconds = time.perf_counter() - start
    cpu_seconds = sum(os.times()[:4]) - sum(before[:4])
    finished.set()
    client.join()
    write_queue.close()
    return seconds, cpu_seconds, waits, workers_kib


def resident_kib(process: multiprocessing.process.BaseProcess) -> int:
    """Return the resident memory of a process in KiB, 0 if it has ended."""
    try:
        pages = int(Path(f"/proc/{process.pid}/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return 0
    return pages * resource.getpagesize() // 1024


def product_seconds(bundle: Bundle) -> float:
    """Return the seconds of the matrix products of one observation on one core."""
    inputs = torch.zeros(1, 1, bundle.spec.num_features)
    static = torch.zeros(1, len(bundle.spec.static.columns))
    with flop_counter() as counter, torch.inference_mode():
        bundle.network.observe(inputs, static, bundle.network.initial_state(1))
    return float(counter.get_total_flops() / (1e9 * gemm_rate(512, 512, 512)))


if __name__ == "__main__":
    main()

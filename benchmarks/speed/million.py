"""
A million live series in one process: memory, start, replay of the log, forecasts meanwhile.

    python -m benchmarks.speed.million [--series 1000000] [--steps 20]

Daily counts as in `benchmarks.speed.engine`, a log in SQLite that begins with `--steps` days of
every
series. Three starts of the engine are what a server goes through: a replay of the whole log by as
many workers as it may use cores, while one client asks for forecasts of single series, then
snapshots, then a start from them. Metrics, of case `million`:

- `replay_per_s`, observations a second from the file to live states, the start of the processes
  included, and `replay_cores`, how many cores it and the client were given on average: fewer than
  there are where others use them;
- two bounds: `read_per_s`, the rate at which the same rows are only read, by one thread, and
  `replay_bound`, how many times as long the replay takes as the matrix products of the network
  would alone on all cores that it may use;
- `forecast_ms_replaying` and `forecast_p99_ms_replaying`, of 28 steps with five quantiles;
- `snapshot_s` and `snapshot_gib`, all states written and on the disk; `start_s`, from a closed log
  to all series live, out of the snapshots;
- `memory_gib`, the most that was resident at any time, the processes included, and `state_kib` of
  one series.
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
from benchmarks.speed.engine import HORIZON, QUANTILES, trained
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
"""Between two forecasts of the client."""


def main() -> None:
    """Fill a log, start three times, print the lines."""
    args = arguments()
    torch.set_num_threads(1)
    start = time.perf_counter()
    bundle = trained(args.set)
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        results = measure(bundle, Path(folder), args.series, args.steps)
    for metric, value in results.items():
        emit("million", "million", "statecast", metric, value, time.perf_counter() - start)
        note(f"{metric} {value:,.3f}")


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speed.million",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--series", type=int, default=1_000_000)
    parser.add_argument("--steps", type=int, default=20, help="days of history of each")
    parser.add_argument("--folder", type=Path, help="where the log is made; 2 GB for each 20 days")
    add_set_option(parser, "any setting, such as model.hidden_size=32")
    return parser.parse_args()


def measure(bundle: Bundle, folder: Path, series: int, steps: int) -> dict[str, float]:
    """All metrics, one stage after the other."""
    url = f"sqlite:///{folder / 'observations.db'}"
    start = time.perf_counter()
    fill(url, bundle, series, steps)
    rate = series * steps / (time.perf_counter() - start)
    note(f"{series * steps:,} observations of {series:,} series at {rate:,.0f}/s")
    results = {"read_per_s": series * steps / reading(url, series)}
    with started(bundle, url) as writer:
        recover(writer, Snapshots(folder, writer.log, bundle.digest))
        took, busy, waits, beside = replay(writer)
        cores = len(os.sched_getaffinity(0))
        results["replay_per_s"] = series * steps / took
        results["replay_cores"] = busy / took
        results["replay_bound"] = took * cores / (series * steps * least_s(bundle))
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
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    results["memory_gib"] = (own + beside) / 2**20
    one = initial_states(bundle, 1)
    arrays = [getattr(one, field.name) for field in fields(one) if field.name != "digest"]
    results["state_kib"] = sum(array.nbytes for array in arrays) / 2**10
    return results


def reading(url: str, series: int) -> float:
    """Seconds that only reading the log takes."""
    log = ObservationLog(url)
    start = time.perf_counter()
    with log.read() as transaction:
        for begin in range(1, series + 1, PART):
            transaction.history(range(begin, min(begin + PART, series + 1)))
    took = time.perf_counter() - start
    log.close()
    return took


def replay(writer: Writer) -> tuple[float, float, list[float], int]:
    """
    Replay all, while a client asks.

    Returns:
        Seconds until all series are live, processor seconds, seconds of each forecast meanwhile,
        and the most KiB that the processes had together.
    """
    engine, write_queue = writer.engine, WriteQueue(writer, 600.0)
    waits: list[float] = []
    over, beside = threading.Event(), 0

    def look() -> None:
        nonlocal beside
        beside = max(beside, sum(map(resident_kib, multiprocessing.active_children())))

    def ask() -> None:
        rng = np.random.default_rng(0)
        while not over.wait(BETWEEN_S):
            if len(engine):
                row = rng.integers(len(engine), size=1)
                begin = time.perf_counter()
                engine.executor.run(
                    lambda row=row: engine.forecast(  # type: ignore[misc]
                        engine.snapshot(row)[0], HORIZON, None, QUANTILES
                    )
                )
                waits.append(time.perf_counter() - begin)

    client = threading.Thread(target=ask)
    client.start()
    start, before = time.perf_counter(), os.times()
    replay_waiting(write_queue.writer, write_queue.put_in_place, stopped=lambda: False, told=look)
    took, busy = time.perf_counter() - start, sum(os.times()[:4]) - sum(before[:4])
    over.set()
    client.join()
    write_queue.close()
    return took, busy, waits, beside


def resident_kib(process: multiprocessing.process.BaseProcess) -> int:
    """What it has in memory now; 0 once it has ended."""
    try:
        pages = int(Path(f"/proc/{process.pid}/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return 0
    return pages * resource.getpagesize() // 1024


def least_s(bundle: Bundle) -> float:
    """Seconds of the matrix products of one observation, at the machine's own rate."""
    inputs = torch.zeros(1, 1, bundle.spec.num_features)
    static = torch.zeros(1, len(bundle.spec.static.columns))
    with flop_counter() as counter, torch.inference_mode():
        bundle.network.observe(inputs, static, bundle.network.initial_state(1))
    return float(counter.get_total_flops() / (1e9 * gemm_rate(512, 512, 512)))


if __name__ == "__main__":
    main()

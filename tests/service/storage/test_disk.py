"""
Tests of a real server on a full, read-only or corrupt disk, and with a clock that jumps.

The server names the fault and its place, and never serves what was not stored.
"""

import contextlib
import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
import pytest

from benchmarks.speed.clients import DAY_TEXTS, Reporter, body_of, compare_states, read_stored
from benchmarks.speed.servers import Server, ServerStopped, server, started, wait_until
from forecast.bundle import Bundle, load_bundle
from forecast.config import DataConfig
from service.errors import DamagedLog, LogError
from service.ingest.importer import import_history
from service.storage.log import ObservationLog

DISK_BYTES = 2 * 2**20
"""Size of the small disk."""


@dataclass
class Home:
    """Data folder of successive servers, and a client that records every acknowledged value."""

    folder: Path
    model: Path
    reporter: Reporter = field(default_factory=lambda: Reporter(["a", "b", "c"], random.Random(5)))

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables with the settings of a server."""
        return {
            "STATECAST_MODEL": str(self.model),
            "STATECAST_DATA_DIR": str(self.folder),
            "STATECAST_UNKNOWN_SERIES": "create",
            "STATECAST_SNAPSHOT_SECONDS": "0.02",
        }

    @property
    def log(self) -> Path:
        """SQLite file of the observation log."""
        return self.folder / "observations.db"

    @property
    def url(self) -> str:
        """Database URL of the observation log."""
        return f"sqlite:///{self.log}"

    @property
    def bundle(self) -> Bundle:
        """Model bundle that the server loads."""
        return load_bundle(self.model)

    def report(self, url: str, times: int) -> None:
        """Send as many requests as `times` says, and require that each is acknowledged."""
        with httpx.Client(base_url=url, timeout=60) as client:
            for _ in range(times):
                assert self.reporter.send(client).status_code == 200

    def check(self, running: Server) -> None:
        """Check that all acknowledged values are stored once and that the states replay them."""
        stored = read_stored(self.url)
        states = compare_states(running.url, [self.bundle], stored)
        comparison = self.reporter.compare(stored) + states
        assert (comparison.lost, comparison.doubled, comparison.torn) == (0, 0, 0)
        assert comparison.state_error <= 1e-5


@pytest.fixture
def home(daily_models, tmp_path) -> Home:
    """Return a home in the temporary folder of the test."""
    return Home(tmp_path / "data", daily_models[0])


def fail_to_start(home: Home) -> str:
    """Start a server that must stop with exit code 2, and return its output without a traceback."""
    with started(home.environment) as running:
        with pytest.raises(ServerStopped) as stopped:
            running.wait_until_ready()
        assert running.wait() == 2
    output = str(stopped.value)
    assert "Traceback" not in output
    return output


@pytest.fixture
def disk(tmp_path) -> Iterator[Path]:
    """Mount a small disk, or skip the test where mounting is not allowed."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", folder],
        check=False,
        capture_output=True,
        text=True,
    )
    if mounted.returncode:
        pytest.skip(f"a disk cannot be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def fill_disk(running: Server, home: Home) -> Callable[[], None]:
    """Fill the disk, and return a function that makes room again."""
    ballast = home.folder / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    return ballast.unlink


def limit_file_size(running: Server, home: Home) -> Callable[[], None]:
    """Forbid the server to grow any file, and return a function that lifts the limit."""
    limits = resource.prlimit(running.pid, resource.RLIMIT_FSIZE)
    size = Path(f"{home.log}-wal").stat().st_size
    resource.prlimit(running.pid, resource.RLIMIT_FSIZE, (size, limits[1]))
    return lambda: resource.prlimit(running.pid, resource.RLIMIT_FSIZE, limits) and None


@pytest.mark.parametrize("fill", [fill_disk, limit_file_size])
def test_a_full_disk_refuses_writes_until_there_is_room(fill, home, request):
    """Writes get a 503 that gives the remedy; nothing acknowledged before or after is lost."""
    if fill is fill_disk:
        home.folder = request.getfixturevalue("disk")
    with server(home.environment) as running:
        home.report(running.url, 5)
        make_room = fill(running, home)
        with httpx.Client(base_url=running.url, timeout=60) as client:
            for _ in range(3000):
                if (answer := home.reporter.send(client)).status_code != 200:
                    break
            assert answer.status_code == 503
            assert answer.headers["Retry-After"] == "1"
            assert answer.json()["code"] == "log.invalid"
            assert "cannot be written (the disk" in answer.json()["detail"]
            home.check(running)
            make_room()
            assert home.reporter.send(client).status_code == 200
        home.check(running)
        running.kill()
    with server(home.environment) as running:
        home.check(running)
        home.report(running.url, 1)


def test_a_server_on_a_read_only_disk_does_not_start(home, request):
    """The message names the file and the remedy, and the log is unchanged."""
    lock, unlock = ["chmod", "a-w", home.folder], ["chmod", "u+w", home.folder]
    if os.geteuid() == 0:  # file modes do not bind root
        home.folder = request.getfixturevalue("disk")
        lock, unlock = (["mount", "-o", f"remount,{mode}", home.folder] for mode in ("ro", "rw"))
    with server(home.environment) as running:
        home.report(running.url, 5)
        running.send_signal(signal.SIGTERM)
        running.wait()
    subprocess.run(lock, check=True)

    output = fail_to_start(home)

    assert "error[log.invalid]" in output
    assert f"{home.log}: " in output
    assert "the folder's rights" in output
    subprocess.run(unlock, check=True)
    with server(home.environment) as running:
        home.check(running)


CORRUPTIONS = {
    "cut short": lambda wal: wal[: len(wal) * 2 // 3],
    "garbled": lambda wal: wal[: len(wal) // 2] + b"\xa5" * 100 + wal[len(wal) // 2 + 100 :],
    "zeroed at the end": lambda wal: wal[: len(wal) // 2] + bytes(len(wal) - len(wal) // 2),
    "empty": lambda wal: b"",
}


@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_the_readable_part_of_a_torn_write_ahead_log_is_served(corruption, home):
    """A disk that loses synced writes costs their steps; reporting them again mends the log."""
    for _ in range(2):
        with server(home.environment) as running:
            home.report(running.url, 20)
    wal = Path(f"{home.log}-wal")
    wal.write_bytes(CORRUPTIONS[corruption](wal.read_bytes()))

    with server(home.environment) as running:
        stored = read_stored(home.url)
        damaged = compare_states(running.url, [home.bundle], stored)
        series = httpx.get(f"{running.url}/v1/series").json()["series"]
        batch = {stamp: values[-1] for stamp, values in home.reporter.acknowledged.items()}
        answer = httpx.post(f"{running.url}/v1/observations", json=body_of(batch))
        mended = compare_states(running.url, [home.bundle], read_stored(home.url))

    assert home.reporter.compare(stored).lost > 0
    assert (damaged.lost, damaged.doubled) == (0, 0)
    assert damaged.state_error <= 1e-5
    assert {entry["unique_id"] for entry in series} == {name for name, _ in stored}
    assert answer.status_code == 200
    assert (mended.lost, mended.doubled) == (0, 0)
    assert mended.state_error <= 1e-5


@pytest.mark.parametrize("begin", [0, 4096])
def test_a_server_on_a_damaged_log_does_not_start(begin, home):
    """The message names the file and the remedy, and the file is unchanged."""
    with server(home.environment) as running:
        home.report(running.url, 60)
        running.send_signal(signal.SIGTERM)
        running.wait()
    whole = home.log.read_bytes()
    garbled = whole[:begin] + random.Random(3).randbytes(len(whole) - begin)
    home.log.write_bytes(garbled)

    output = fail_to_start(home)

    assert "error[log.damaged]" in output
    assert f"{home.log}: " in output
    assert "put a backup in its place" in output
    assert home.log.read_bytes() == garbled


def break_page(path: Path) -> tuple[bytes, list[str], list[str]]:
    """
    Garble, in a copy of a log, a page needed for the history of some series but not to start.

    Returns:
        The content of the garbled file, the series that need the page, and the others.
    """
    whole = path.read_bytes()
    copy = path.with_name("copy.db")
    for start in range(4096, len(whole), 4096):
        copy.write_bytes(whole[:start] + bytes([0x5A]) * 4096 + whole[start + 4096 :])
        damaged, intact = [], []
        with (
            contextlib.suppress(LogError),
            contextlib.closing(ObservationLog(f"sqlite:///{copy}", reads_only=True)) as log,
        ):
            with log.read() as transaction:
                names = transaction.names()
                transaction.fingerprint(transaction.before)
                transaction.changes(transaction.before - 1)
            for number, name in names.items():
                try:
                    with log.read() as transaction:
                        transaction.history([number])
                    intact.append(name)
                except DamagedLog:
                    damaged.append(name)
        if damaged and intact:
            return copy.read_bytes(), damaged, intact
    raise AssertionError("no page is needed by some series only")


def fill_log(home: Home) -> None:
    """Store 101 steps of forty series, and stop the server in order."""
    with server(home.environment) as running:
        for days in (DAY_TEXTS[:100], DAY_TEXTS[100:101]):
            batch = {(f"s{i:02}", day): 5.0 for i in range(40) for day in days}
            httpx.post(f"{running.url}/v1/observations", json=body_of(batch)).raise_for_status()
        running.send_signal(signal.SIGTERM)
        running.wait()


def test_a_damaged_history_fails_only_the_requests_that_read_it(home):
    """Live states still forecast; a request for the damaged history gets a 503."""
    fill_log(home)
    content, damaged, intact = break_page(home.log)
    home.log.write_bytes(content)

    with server(home.environment) as running, httpx.Client(base_url=running.url) as client:
        refusal, detail = (client.get(f"/v1/series/{name}") for name in (damaged[0], intact[0]))
        forecast = client.post("/v1/forecasts", json={"unique_ids": [*damaged, *intact]})

    assert (refusal.status_code, refusal.json()["code"]) == (503, "log.damaged")
    assert "the file is damaged" in refusal.json()["detail"]
    assert (detail.status_code, forecast.status_code) == (200, 200)


def test_a_read_of_any_damaged_page_fails_or_is_complete(tmp_path):
    """Opening or reading the log raises a log error; no read returns only a part of the rows."""
    file = tmp_path / "log.db"
    url, days = f"sqlite:///{file}", pd.date_range("2020-01-01", periods=100)
    names = [f"s{i:02}" for i in range(60)]
    table = pd.DataFrame({"unique_id": np.repeat(names, 100), "ds": np.tile(days, 60), "y": 1.0})
    import_history(url, table, DataConfig(freq="D", kind="positive"))
    whole, outcomes = file.read_bytes(), Counter[str]()
    for start in range(4096, len(whole), 4096):
        file.write_bytes(whole[:start] + bytes([0x5A]) * 4096 + whole[start + 4096 :])
        try:
            log = ObservationLog(url)
        except LogError:
            continue
        try:
            with log.read() as transaction:
                assert len(transaction.history(range(1, 61)).ds) == len(table)
                outcomes["read"] += 1
        except DamagedLog:
            outcomes["damaged"] += 1
        log.close()
    assert outcomes["damaged"] > 20
    assert outcomes["read"] > 0


def test_a_replay_that_meets_damage_logs_it_once_and_is_retried(home):
    """`/readyz` gives the remedy, other series are live, and a repaired page ends the outage."""
    fill_log(home)
    shutil.rmtree(home.folder / "snapshots")
    whole, (content, damaged, intact) = home.log.read_bytes(), break_page(home.log)
    page = next(i for i in range(0, len(whole), 4096) if whole[i:][:4096] != content[i:][:4096])
    home.log.write_bytes(content)

    with server(home.environment) as running, httpx.Client(base_url=running.url) as client:
        readiness = wait_until(
            lambda: client.get("/readyz").json(), lambda answer: bool(answer["reason"])
        )
        forecasts = [
            client.post("/v1/forecasts", json={"unique_ids": [name]})
            for name in (intact[0], damaged[0])
        ]
        client.post("/v1/models:refresh")  # retries the replay
        output = running.output
        with home.log.open("r+b") as file:
            file.seek(page)
            file.write(whole[page:][:4096])
        batch = {(intact[0], DAY_TEXTS[101]): 5.0}  # a new batch voids what was read before
        assert client.post("/v1/observations", json=body_of(batch)).status_code == 200
        client.post("/v1/models:refresh")
        wait_until(
            lambda: client.get("/readyz").json(),
            lambda answer: (answer["phase"], answer["reason"]) == ("ready", ""),
        )
        comparison = compare_states(running.url, [home.bundle], read_stored(home.url))

    phase = (readiness["ready"], readiness["phase"], readiness["replayed"])
    assert phase == (True, "replaying", len(intact))
    assert "cannot be read (the file is damaged); put a backup in its place" in readiness["reason"]
    assert [forecast.status_code for forecast in forecasts] == [200, 503]
    assert "Traceback" not in output
    assert (
        output.count(
            f"replay: the observation log cannot be read (the file is damaged) "
            f"({home.url}: database disk image is malformed)"
        )
        == 1
    )
    assert (comparison.lost, comparison.doubled) == (0, 0)
    assert comparison.state_error <= 1e-5


def test_a_clock_that_jumps_changes_nothing(home):
    """It jumps between starts and at each reading; batch numbers, not times, give the order."""
    for clock in ((10**9, -(10**9)), (-(10**9),), (3600, -3600, 0)):
        with started(home.environment, clock=clock) as running:
            running.wait_until_ready()
            home.report(running.url, 20)
            home.check(running)
    shutil.rmtree(home.folder / "snapshots")
    with server(home.environment) as running:
        home.check(running)
    with contextlib.closing(sqlite3.connect(home.log)) as log:
        times = [
            time for (time,) in log.execute("select recorded_at from observation order by batch")
        ]
    assert times != sorted(times)

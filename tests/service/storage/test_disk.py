"""
The disk under a real server: full, read-only, torn, garbled; and a clock that jumps.

Whatever happens to it, the server says what is wrong and where, and nothing that is not so.
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

from benchmarks.speed.clients import NAMED, Reporter, body_of, compare_states, stored_in
from benchmarks.speed.servers import Server, ServerStopped, server, started, wait_until
from forecast.bundle import Bundle, load_bundle
from forecast.config import DataConfig
from service.errors import DamagedLog, LogError
from service.ingest.importer import import_history
from service.storage.log import ObservationLog

ROOM = 2 * 2**20
"""Bytes of the small disk."""


@dataclass
class Home:
    """A folder that servers run in, one after the other, and a client that keeps account."""

    folder: Path
    model: Path
    reporter: Reporter = field(default_factory=lambda: Reporter(["a", "b", "c"], random.Random(5)))

    @property
    def environment(self) -> dict[str, str]:
        """Settings of a server."""
        return {
            "STATECAST_MODEL": str(self.model),
            "STATECAST_DATA_DIR": str(self.folder),
            "STATECAST_UNKNOWN_SERIES": "create",
            "STATECAST_SNAPSHOT_SECONDS": "0.02",
        }

    @property
    def log(self) -> Path:
        """The file of the observation log."""
        return self.folder / "observations.db"

    @property
    def url(self) -> str:
        """Of the observation log."""
        return f"sqlite:///{self.log}"

    @property
    def bundle(self) -> Bundle:
        """The model."""
        return load_bundle(self.model)

    def report(self, url: str, times: int) -> None:
        """So many requests, all acknowledged."""
        with httpx.Client(base_url=url, timeout=60) as client:
            for _ in range(times):
                assert self.reporter.send(client).status_code == 200

    def check(self, running: Server) -> None:
        """Everything acknowledged is stored once, and the states are a replay of it."""
        stored = stored_in(self.url)
        found = self.reporter.compare(stored) + compare_states(running.url, [self.bundle], stored)
        assert (found.lost, found.doubled, found.torn) == (0, 0, 0)
        assert found.state_error <= 1e-5


@pytest.fixture
def home(daily_models, tmp_path) -> Home:
    """On the disk that tests run on."""
    return Home(tmp_path / "data", daily_models[0])


def refuses_to_start(home: Home) -> str:
    """What a server says that stops at once, without a traceback."""
    with started(home.environment) as running:
        with pytest.raises(ServerStopped) as stopped:
            running.wait_until_ready()
        assert running.wait() == 2
    said = str(stopped.value)
    assert "Traceback" not in said
    return said


@pytest.fixture
def disk(tmp_path) -> Iterator[Path]:
    """A small disk of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", folder],
        check=False,
        capture_output=True,
        text=True,
    )
    if mounted.returncode:
        pytest.skip(f"a disk cannot be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def fill_disk(running: Server, home: Home) -> Callable[[], None]:
    """Nothing more fits on it; returns how to make room."""
    ballast = home.folder / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    return ballast.unlink


def bound_files(running: Server, home: Home) -> Callable[[], None]:
    """No file of the process may grow any further; returns how to lift that."""
    usual = resource.prlimit(running.pid, resource.RLIMIT_FSIZE)
    size = Path(f"{home.log}-wal").stat().st_size
    resource.prlimit(running.pid, resource.RLIMIT_FSIZE, (size, usual[1]))
    return lambda: resource.prlimit(running.pid, resource.RLIMIT_FSIZE, usual) and None


@pytest.mark.parametrize("fill", [fill_disk, bound_files])
def test_a_full_disk_refuses_to_store_and_goes_on_when_there_is_room(fill, home, request):
    """503 with what to do; forecasts go on; what was acknowledged before and after is there."""
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


def test_a_read_only_disk_is_told_at_the_start(home, request):
    """With the file and what to do; the log is as it was."""
    lock, unlock = ["chmod", "a-w", home.folder], ["chmod", "u+w", home.folder]
    if os.geteuid() == 0:  # whom rights do not stop
        home.folder = request.getfixturevalue("disk")
        lock, unlock = (["mount", "-o", f"remount,{how}", home.folder] for how in ("ro", "rw"))
    with server(home.environment) as running:
        home.report(running.url, 5)
        running.send_signal(signal.SIGTERM)
        running.wait()
    subprocess.run(lock, check=True)

    said = refuses_to_start(home)

    assert "error[log.invalid]" in said
    assert f"{home.log}: " in said
    assert "the folder's rights" in said
    subprocess.run(unlock, check=True)
    with server(home.environment) as running:
        home.check(running)


HARMS = {
    "cut short": lambda wal: wal[: len(wal) * 2 // 3],
    "garbled": lambda wal: wal[: len(wal) // 2] + b"\xa5" * 100 + wal[len(wal) // 2 + 100 :],
    "zeroed at the end": lambda wal: wal[: len(wal) // 2] + bytes(len(wal) - len(wal) // 2),
    "empty": lambda wal: b"",
}


@pytest.mark.parametrize("harm", HARMS)
def test_of_a_torn_write_ahead_log_what_is_whole_is_served(harm, home):
    """A disk that broke its promise: states are those of the log as far as it goes, no further."""
    for _ in range(2):
        with server(home.environment) as running:
            home.report(running.url, 20)
    wal = Path(f"{home.log}-wal")
    wal.write_bytes(HARMS[harm](wal.read_bytes()))

    with server(home.environment) as running:
        stored = stored_in(home.url)
        found = compare_states(running.url, [home.bundle], stored)
        listed = httpx.get(f"{running.url}/v1/series").json()["series"]
        told = {stamp: values[-1] for stamp, values in home.reporter.acknowledged.items()}
        again = httpx.post(f"{running.url}/v1/observations", json=body_of(told))
        mended = compare_states(running.url, [home.bundle], stored_in(home.url))

    assert home.reporter.compare(stored).lost > 0
    assert (found.lost, found.doubled) == (0, 0)
    assert found.state_error <= 1e-5
    assert {one["unique_id"] for one in listed} == {name for name, _ in stored}
    assert again.status_code == 200
    assert (mended.lost, mended.doubled) == (0, 0)
    assert mended.state_error <= 1e-5


@pytest.mark.parametrize("begin", [0, 4096])
def test_a_damaged_log_is_told_and_left_as_it_is(begin, home):
    """No database any more, or one with garbled pages: file and remedy are named."""
    with server(home.environment) as running:
        home.report(running.url, 60)
        running.send_signal(signal.SIGTERM)
        running.wait()
    whole = home.log.read_bytes()
    garbled = whole[:begin] + random.Random(3).randbytes(len(whole) - begin)
    home.log.write_bytes(garbled)

    said = refuses_to_start(home)

    assert "error[log.damaged]" in said
    assert f"{home.log}: " in said
    assert "put a backup in its place" in said
    assert home.log.read_bytes() == garbled


def broken_page(path: Path) -> tuple[bytes, list[str], list[str]]:
    """The file with a page garbled that the history of some series needs; who needs it, who not."""
    whole = path.read_bytes()
    copy = path.with_name("copy.db")
    for start in range(4096, len(whole), 4096):
        copy.write_bytes(whole[:start] + bytes([0x5A]) * 4096 + whole[start + 4096 :])
        lost, kept = [], []
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
                    kept.append(name)
                except DamagedLog:
                    lost.append(name)
        if lost and kept:
            return copy.read_bytes(), lost, kept
    raise AssertionError("no such page")


def fill(home) -> None:
    """A hundred steps of forty series, and a server that was stopped in order."""
    with server(home.environment) as running:
        for days in (NAMED[:100], NAMED[100:101]):
            batch = {(f"s{i:02}", day): 5.0 for i in range(40) for day in days}
            httpx.post(f"{running.url}/v1/observations", json=body_of(batch)).raise_for_status()
        running.send_signal(signal.SIGTERM)
        running.wait()


def test_damage_that_is_met_later_fails_what_touches_it(home):
    """Live states go on; the history that cannot be read is a 503 that says so."""
    fill(home)
    broken, damaged, whole = broken_page(home.log)
    home.log.write_bytes(broken)

    with server(home.environment) as running, httpx.Client(base_url=running.url) as client:
        lost, kept = (client.get(f"/v1/series/{name}") for name in (damaged[0], whole[0]))
        forecast = client.post("/v1/forecasts", json={"unique_ids": [*damaged, *whole]})

    assert (lost.status_code, lost.json()["code"]) == (503, "log.damaged")
    assert "the file is damaged" in lost.json()["detail"]
    assert (kept.status_code, forecast.status_code) == (200, 200)


def test_whatever_page_is_damaged_it_is_the_log_that_cannot_be_read(tmp_path):
    """Met at the first row or later, whoever notices it; what was read until then is no answer."""
    file = tmp_path / "log.db"
    url, days = f"sqlite:///{file}", pd.date_range("2020-01-01", periods=100)
    names = [f"s{i:02}" for i in range(60)]
    table = pd.DataFrame({"unique_id": np.repeat(names, 100), "ds": np.tile(days, 60), "y": 1.0})
    import_history(url, table, DataConfig(freq="D", kind="positive"))
    whole, found = file.read_bytes(), Counter[str]()
    for start in range(4096, len(whole), 4096):
        file.write_bytes(whole[:start] + bytes([0x5A]) * 4096 + whole[start + 4096 :])
        try:
            log = ObservationLog(url)
        except LogError:
            continue
        try:
            with log.read() as transaction:
                assert len(transaction.history(range(1, 61)).ds) == len(table)
                found["read"] += 1
        except DamagedLog:
            found["damaged"] += 1
        log.close()
    assert found["damaged"] > 20
    assert found["read"] > 0


def test_damage_that_is_met_in_a_replay_is_told_once_and_tried_again(home):
    """`/readyz` says what to do; the other series are live; it goes on once the page is whole."""
    fill(home)
    shutil.rmtree(home.folder / "snapshots")
    whole, (broken, lost, kept) = home.log.read_bytes(), broken_page(home.log)
    page = next(at for at in range(0, len(whole), 4096) if whole[at:][:4096] != broken[at:][:4096])
    home.log.write_bytes(broken)

    with server(home.environment) as running, httpx.Client(base_url=running.url) as client:
        told = wait_until(lambda: client.get("/readyz").json(), lambda told: bool(told["reason"]))
        forecasts = [
            client.post("/v1/forecasts", json={"unique_ids": [name]}) for name in (kept[0], lost[0])
        ]
        client.post("/v1/models:refresh")  # it tries again
        damaged = running.said
        with home.log.open("r+b") as file:
            file.seek(page)
            file.write(whole[page:][:4096])
        batch = {(kept[0], NAMED[101]): 5.0}  # a new batch: nothing read before is taken for true
        assert client.post("/v1/observations", json=body_of(batch)).status_code == 200
        client.post("/v1/models:refresh")
        wait_until(
            lambda: client.get("/readyz").json(),
            lambda told: (told["phase"], told["reason"]) == ("ready", ""),
        )
        found = compare_states(running.url, [home.bundle], stored_in(home.url))

    assert (told["ready"], told["phase"], told["replayed"]) == (True, "replaying", len(kept))
    assert "cannot be read (the file is damaged); put a backup in its place" in told["reason"]
    assert [answer.status_code for answer in forecasts] == [200, 503]
    assert "Traceback" not in damaged
    assert (
        damaged.count(
            f"replay: the observation log cannot be read (the file is damaged) "
            f"({home.url}: database disk image is malformed)"
        )
        == 1
    )
    assert (found.lost, found.doubled) == (0, 0)
    assert found.state_error <= 1e-5


def test_a_clock_that_jumps_changes_nothing(home):
    """Between two starts and at every look: order comes from numbers, not from the time of day."""
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

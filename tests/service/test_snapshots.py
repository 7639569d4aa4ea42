"""States on the disk: a start reads them and what the log has had since, and trusts no more."""

import contextlib
import resource
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from forecast.bundle import load_bundle
from forecast.states import States
from service.compute import Compute
from service.engine import Engine
from service.importing import import_history
from service.log import Log
from service.metrics import Metrics
from service.recovery import recover
from service.settings import Limits
from service.snapshots import Snapshots
from service.writer import Sent, Writer
from tests.service.test_log import MONTHLY


class Host:
    """A log, an engine and a writer, as one start of a server has them."""

    def __init__(self, url: str, bundle: Path, folder: Path, block: int) -> None:
        self.bundle = load_bundle(bundle)
        self.compute = Compute(30.0, 1000, Metrics())
        self.log = Log(url)
        self.writer = Writer(
            Engine(self.bundle, self.compute, block=block), self.log, Metrics(),
            unknown_series="create", limits=Limits(max_fill=100),
        )  # fmt: skip
        self.snapshots = Snapshots(folder, self.log, self.bundle.digest)
        self.restored = recover(self.writer, self.snapshots)

    @property
    def engine(self) -> Engine:
        return self.writer.engine

    def observe(self, name: str, month: str, y: float) -> None:
        """One value."""
        stamp = np.array([pd.Timestamp(month).value])
        sent = Sent([name], stamp, np.array([y]), np.empty((1, 0)), (), lambda item: f"/{item}")
        self.writer.write(sent)

    def states(self) -> dict[str, States]:
        """The state of every series, those that wait included."""
        self.writer.bring_in(list(self.writer.waiting))
        rows = self.engine.rows
        return {name: self.engine.snapshot(np.array([rows[name]]))[0] for name in sorted(rows)}

    def close(self) -> None:
        """Let go of the log."""
        self.compute.close()
        self.log.close()


@pytest.fixture
def start(tmp_path, monthly, monthly_bundle) -> Iterator[Callable[..., Host]]:
    """Start a host on the same log and snapshots, once the one before has stopped."""
    url = f"sqlite:///{tmp_path / 'log.db'}"
    import_history(url, monthly, MONTHLY)
    hosts: list[Host] = []

    def start(block: int = 4096) -> Host:
        if hosts:
            hosts[-1].close()
        hosts.append(Host(url, monthly_bundle, tmp_path / "snapshots", block))
        return hosts[-1]

    yield start
    if hosts:
        hosts[-1].close()


@pytest.fixture
def names(monthly) -> list[str]:
    """The five series there are."""
    return sorted(monthly["unique_id"].unique())


def assert_equal(states: dict[str, States], others: dict[str, States]) -> None:
    """To the last digits that the order of computation leaves."""
    assert states.keys() == others.keys()
    for name, state in states.items():
        other = others[name]
        assert (state.last_ds, state.count) == (other.last_ds, other.count)
        for field in ("hidden", "cell", "scalars", "rings", "seen"):
            np.testing.assert_allclose(
                getattr(state, field), getattr(other, field), rtol=1e-5, atol=1e-5
            )


def test_a_start_reads_snapshots_and_what_the_log_has_had_since(start, names, tmp_path):
    """New steps, a correction and a new series are taken in; the log alone gives the same."""
    host = start()
    host.states()
    assert host.snapshots.save(host.engine) == 1
    host.observe(names[0], "2019-01-01", 300.0)
    host.observe(names[1], "2018-12-01", 301.0)
    host.observe("new", "2019-01-01", 302.0)
    live = host.states()

    restored = start()
    assert (restored.restored, restored.writer.waiting) == (5, {})
    assert_equal(restored.states(), live)

    shutil.rmtree(tmp_path / "snapshots")
    replayed = start()
    assert (replayed.restored, len(replayed.writer.waiting)) == (0, 6)
    assert_equal(replayed.states(), live)


def test_only_blocks_that_moved_are_written_again(start, names):
    """With blocks of two series, one observation writes one file."""
    host = start(block=2)
    host.states()
    assert host.snapshots.save(host.engine) == 3
    assert host.snapshots.save(host.engine) == 0
    host.observe(names[2], "2019-01-01", 300.0)
    assert host.snapshots.save(host.engine) == 1
    live = host.states()

    restored = start(block=2)
    assert restored.restored == 5
    assert restored.snapshots.save(restored.engine) == 0
    assert_equal(restored.states(), live)


def test_a_break_between_two_blocks_leaves_what_can_be_trusted(start, names):
    """A pass that ended half way: some files are newer than the mark, and none is wrong."""
    host = start(block=2)
    host.states()
    host.snapshots.save(host.engine)
    for name in names:
        host.observe(name, "2019-01-01", 300.0)
    stops = iter([False, True])
    host.snapshots.save(host.engine, stopped=lambda: next(stops))
    live = host.states()

    restored = start(block=2)
    assert restored.restored == 5
    assert_equal(restored.states(), live)


@pytest.mark.parametrize(
    "harm",
    [
        lambda file: file.write_bytes(file.read_bytes()[:-100]),
        lambda file: file.write_bytes(file.read_bytes()[:-1] + b"!"),
        lambda file: file.write_bytes(b""),
        lambda file: file.unlink(),
    ],
)
def test_a_damaged_file_is_as_good_as_none(start, harm, tmp_path):
    """Torn, changed, empty or gone: its series are replayed."""
    host = start()
    live = host.states()
    host.snapshots.save(host.engine)
    (file,) = (tmp_path / "snapshots").rglob("block-*.state")
    harm(file)

    restored = start()

    assert (restored.restored, len(restored.writer.waiting)) == (0, 5)
    assert_equal(restored.states(), live)


def test_snapshots_of_another_course_of_the_log_are_not_read(start, names, tmp_path):
    """A log put back to an earlier day and written to since has the number, not the batch."""
    earlier = tmp_path / "earlier.db"
    shutil.copy(tmp_path / "log.db", earlier)
    host = start()
    host.states()
    host.observe(names[0], "2019-01-01", 300.0)
    host.snapshots.save(host.engine)
    host.close()
    shutil.copy(earlier, tmp_path / "log.db")
    for rest in ("-wal", "-shm"):
        (tmp_path / f"log.db{rest}").unlink(missing_ok=True)
    other = start()
    other.states()
    other.observe(names[0], "2019-01-01", 900.0)
    live = other.states()

    restored = start()

    assert restored.restored == 0
    assert_equal(restored.states(), live)


@pytest.mark.parametrize("broken_off", [True, False])
def test_states_that_the_log_does_not_reach_are_not_read(start, names, tmp_path, broken_off):
    """A log put back to an earlier day: files are newer than it, with a newer mark or without."""
    host = start(block=2)
    host.states()
    host.snapshots.save(host.engine)
    earlier = tmp_path / "earlier.db"
    with contextlib.closing(sqlite3.connect(tmp_path / "log.db")) as log:
        log.execute("vacuum into ?", (str(earlier),))
    host.observe(names[0], "2019-01-01", 300.0)
    host.writer.remove(names[-1])
    stops = iter([False, broken_off, False])
    host.snapshots.save(host.engine, stopped=lambda: next(stops))
    host.close()
    shutil.copy(earlier, tmp_path / "log.db")
    for rest in ("-wal", "-shm"):
        (tmp_path / f"log.db{rest}").unlink(missing_ok=True)

    states = start(block=2).states()

    shutil.rmtree(tmp_path / "snapshots")
    assert_equal(states, start(block=2).states())


def test_files_of_a_mark_that_was_not_trusted_are_never_read_again(start, names):
    """Fewer blocks than before: a new mark would vouch for the old file of the last one."""
    host = start(block=2)
    host.states()
    host.snapshots.save(host.engine)
    for name in names[:3]:
        host.writer.remove(name)
    host = start(block=2)  # a kill before the next snapshot
    assert host.restored == 0
    host.states()
    for name in names[3:]:
        host.observe(name, "2019-01-01", 300.0)
    host.snapshots.save(host.engine)
    live = host.states()

    restored = start(block=2)

    assert restored.restored == 2
    assert_equal(restored.states(), live)


def test_snapshots_of_models_no_longer_served_go(start, tmp_path):
    """Those of another log stay: another model of the same server may keep them there."""
    host = start()
    other, elsewhere = (
        host.snapshots.folder.with_name(name)
        for name in (f"{host.log.log_id[:12]}-0123", "0123456789ab-0123")
    )
    for folder in (host.snapshots.folder, other, elsewhere):
        folder.mkdir(parents=True, exist_ok=True)

    host.snapshots.forget_others()

    left = {folder.name for folder in (tmp_path / "snapshots").iterdir()}
    assert left == {host.snapshots.folder.name, elsewhere.name}


def test_a_disk_that_takes_no_more_loses_no_snapshot(start, names):
    """What was there holds, and the block is written when there is room again."""
    host = start()
    host.states()
    host.snapshots.save(host.engine)
    host.observe(names[0], "2019-01-01", 300.0)
    live = host.states()
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, usual[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            host.snapshots.save(host.engine)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    assert host.snapshots.save(host.engine) == 1

    assert_equal(start().states(), live)

"""A start restores states from snapshots and the later log, and distrusts any other file."""

import contextlib
import resource
import shutil
import sqlite3

import pytest

from tests.helpers.hosts import assert_equal


@pytest.fixture
def names(monthly) -> list[str]:
    """Return the sorted ids of the five series."""
    return sorted(monthly["unique_id"].unique())


def test_a_start_restores_snapshots_and_replays_later_batches(start_host, names, tmp_path):
    """New steps, a correction and a new series are applied; the log alone gives equal states."""
    host = start_host()
    host.states()
    assert host.snapshots.save(host.engine) == 1
    host.observe(names[0], "2019-01-01", 300.0)
    host.observe(names[1], "2018-12-01", 301.0)
    host.observe("new", "2019-01-01", 302.0)
    live = host.states()

    restored = start_host()
    assert (restored.restored, restored.writer.waiting) == (5, {})
    assert_equal(restored.states(), live)

    shutil.rmtree(tmp_path / "snapshots")
    replayed = start_host()
    assert (replayed.restored, len(replayed.writer.waiting)) == (0, 6)
    assert_equal(replayed.states(), live)


def test_only_changed_blocks_are_written_again(start_host, names):
    """With blocks of two series, one observation writes one file."""
    host = start_host(block=2)
    host.states()
    assert host.snapshots.save(host.engine) == 3
    assert host.snapshots.save(host.engine) == 0
    host.observe(names[2], "2019-01-01", 300.0)
    assert host.snapshots.save(host.engine) == 1
    live = host.states()

    restored = start_host(block=2)
    assert restored.restored == 5
    assert restored.snapshots.save(restored.engine) == 0
    assert_equal(restored.states(), live)


def test_an_interrupted_save_leaves_usable_snapshots(start_host, names):
    """Some files are then newer than the mark, and all of them are restored."""
    host = start_host(block=2)
    host.states()
    host.snapshots.save(host.engine)
    for name in names:
        host.observe(name, "2019-01-01", 300.0)
    stops = iter([False, True])
    host.snapshots.save(host.engine, stopped=lambda: next(stops))
    live = host.states()

    restored = start_host(block=2)
    assert restored.restored == 5
    assert_equal(restored.states(), live)


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.write_bytes(file.read_bytes()[:-100]),
        lambda file: file.write_bytes(file.read_bytes()[:-1] + b"!"),
        lambda file: file.write_bytes(b""),
        lambda file: file.unlink(),
    ],
)
def test_series_of_a_damaged_file_are_replayed(start_host, damage, tmp_path):
    """The file may be truncated, changed, empty or missing."""
    host = start_host()
    live = host.states()
    host.snapshots.save(host.engine)
    (file,) = (tmp_path / "snapshots").rglob("block-*.state")
    damage(file)

    restored = start_host()

    assert (restored.restored, len(restored.writer.waiting)) == (0, 5)
    assert_equal(restored.states(), live)


def test_snapshots_of_another_history_of_the_log_are_not_restored(start_host, names, tmp_path):
    """A log restored from a backup and written to again has the batch number, not the batch."""
    earlier = tmp_path / "earlier.db"
    shutil.copy(tmp_path / "log.db", earlier)
    host = start_host()
    host.states()
    host.observe(names[0], "2019-01-01", 300.0)
    host.snapshots.save(host.engine)
    host.close()
    shutil.copy(earlier, tmp_path / "log.db")
    for rest in ("-wal", "-shm"):
        (tmp_path / f"log.db{rest}").unlink(missing_ok=True)
    host = start_host()
    host.states()
    host.observe(names[0], "2019-01-01", 900.0)
    live = host.states()

    restored = start_host()

    assert restored.restored == 0
    assert_equal(restored.states(), live)


@pytest.mark.parametrize("interrupted", [True, False])
def test_snapshots_newer_than_the_log_are_not_restored(start_host, names, tmp_path, interrupted):
    """Files are newer than a log restored from a backup, with a newer mark or without."""
    host = start_host(block=2)
    host.states()
    host.snapshots.save(host.engine)
    earlier = tmp_path / "earlier.db"
    with contextlib.closing(sqlite3.connect(tmp_path / "log.db")) as log:
        log.execute("vacuum into ?", (str(earlier),))
    host.observe(names[0], "2019-01-01", 300.0)
    host.writer.remove(names[-1])
    stops = iter([False, interrupted, False])
    host.snapshots.save(host.engine, stopped=lambda: next(stops))
    host.close()
    shutil.copy(earlier, tmp_path / "log.db")
    for rest in ("-wal", "-shm"):
        (tmp_path / f"log.db{rest}").unlink(missing_ok=True)

    states = start_host(block=2).states()

    shutil.rmtree(tmp_path / "snapshots")
    assert_equal(states, start_host(block=2).states())


def test_files_of_a_distrusted_mark_are_never_restored(start_host, names):
    """With fewer blocks than before, a new mark would vouch for the old file of the last block."""
    host = start_host(block=2)
    host.states()
    host.snapshots.save(host.engine)
    for name in names[:3]:
        host.writer.remove(name)
    host = start_host(block=2)  # a kill before the next snapshot
    assert host.restored == 0
    host.states()
    for name in names[3:]:
        host.observe(name, "2019-01-01", 300.0)
    host.snapshots.save(host.engine)
    live = host.states()

    restored = start_host(block=2)

    assert restored.restored == 2
    assert_equal(restored.states(), live)


def test_snapshots_of_models_no_longer_served_are_deleted(start_host, tmp_path):
    """Those of another log stay, as they may belong to another model of the same server."""
    host = start_host()
    other_model, other_log = (
        host.snapshots.folder.with_name(name)
        for name in (f"{host.log.log_id[:12]}-0123", "0123456789ab-0123")
    )
    for folder in (host.snapshots.folder, other_model, other_log):
        folder.mkdir(parents=True, exist_ok=True)

    host.snapshots.forget_others()

    remaining = {folder.name for folder in (tmp_path / "snapshots").iterdir()}
    assert remaining == {host.snapshots.folder.name, other_log.name}


def test_a_full_disk_loses_no_snapshot(start_host, names):
    """The previous files stay valid, and the block is written once there is space again."""
    host = start_host()
    host.states()
    host.snapshots.save(host.engine)
    host.observe(names[0], "2019-01-01", 300.0)
    live = host.states()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            host.snapshots.save(host.engine)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert host.snapshots.save(host.engine) == 1

    assert_equal(start_host().states(), live)

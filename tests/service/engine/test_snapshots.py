"""States on the disk: a start reads them and what the log has had since, and trusts no more."""

import contextlib
import resource
import shutil
import sqlite3

import pytest

from tests.helpers.hosts import assert_equal


@pytest.fixture
def names(monthly) -> list[str]:
    """The five series there are."""
    return sorted(monthly["unique_id"].unique())


def test_a_start_reads_snapshots_and_what_the_log_has_had_since(start_host, names, tmp_path):
    """New steps, a correction and a new series are taken in; the log alone gives the same."""
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


def test_only_blocks_that_moved_are_written_again(start_host, names):
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


def test_a_break_between_two_blocks_leaves_what_can_be_trusted(start_host, names):
    """A pass that ended half way: some files are newer than the mark, and none is wrong."""
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
    "harm",
    [
        lambda file: file.write_bytes(file.read_bytes()[:-100]),
        lambda file: file.write_bytes(file.read_bytes()[:-1] + b"!"),
        lambda file: file.write_bytes(b""),
        lambda file: file.unlink(),
    ],
)
def test_a_damaged_file_is_as_good_as_none(start_host, harm, tmp_path):
    """Torn, changed, empty or gone: its series are replayed."""
    host = start_host()
    live = host.states()
    host.snapshots.save(host.engine)
    (file,) = (tmp_path / "snapshots").rglob("block-*.state")
    harm(file)

    restored = start_host()

    assert (restored.restored, len(restored.writer.waiting)) == (0, 5)
    assert_equal(restored.states(), live)


def test_snapshots_of_another_course_of_the_log_are_not_read(start_host, names, tmp_path):
    """A log put back to an earlier day and written to since has the number, not the batch."""
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
    other = start_host()
    other.states()
    other.observe(names[0], "2019-01-01", 900.0)
    live = other.states()

    restored = start_host()

    assert restored.restored == 0
    assert_equal(restored.states(), live)


@pytest.mark.parametrize("broken_off", [True, False])
def test_states_that_the_log_does_not_reach_are_not_read(start_host, names, tmp_path, broken_off):
    """A log put back to an earlier day: files are newer than it, with a newer mark or without."""
    host = start_host(block=2)
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

    states = start_host(block=2).states()

    shutil.rmtree(tmp_path / "snapshots")
    assert_equal(states, start_host(block=2).states())


def test_files_of_a_mark_that_was_not_trusted_are_never_read_again(start_host, names):
    """Fewer blocks than before: a new mark would vouch for the old file of the last one."""
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


def test_snapshots_of_models_no_longer_served_go(start_host, tmp_path):
    """Those of another log stay: another model of the same server may keep them there."""
    host = start_host()
    other, elsewhere = (
        host.snapshots.folder.with_name(name)
        for name in (f"{host.log.log_id[:12]}-0123", "0123456789ab-0123")
    )
    for folder in (host.snapshots.folder, other, elsewhere):
        folder.mkdir(parents=True, exist_ok=True)

    host.snapshots.forget_others()

    left = {folder.name for folder in (tmp_path / "snapshots").iterdir()}
    assert left == {host.snapshots.folder.name, elsewhere.name}


def test_a_disk_that_takes_no_more_loses_no_snapshot(start_host, names):
    """What was there holds, and the block is written when there is room again."""
    host = start_host()
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

    assert_equal(start_host().states(), live)

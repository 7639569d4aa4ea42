"""Tests of PostgreSQL failover: equal batch numbers may belong to different histories."""

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from benchmarks.speed.servers import wait_until
from forecast.errors import ForecastError
from service.errors import LogError
from service.storage import schema as tables
from tests.helpers.hosts import Host, assert_equal
from tests.helpers.service import crash, restart


def promote(cluster: Any) -> None:
    """Restart the database on a new timeline, as a standby does when it becomes the primary."""
    crash(cluster)
    folder = Path(cluster.pgdata)
    with (folder / "postgresql.auto.conf").open("a") as settings:
        settings.write("restore_command = 'false'\n")
    (folder / "recovery.signal").touch()
    restart(cluster)


def forget_last(url: str, batches: int) -> None:
    """Delete the last batches of the log, as if a lagging replica had been promoted."""
    engine, observation = sa.create_engine(url), tables.observation
    with engine.begin() as connection:
        (last,) = connection.execute(sa.select(tables.head.c.batch)).one()
        connection.execute(observation.delete().where(observation.c.batch > last - batches))
        connection.execute(tables.head.update().values(batch=last - batches))
    engine.dispose()


def must_replay(host: Host) -> bool:
    """Return whether series wait after catching up; False while the log cannot be reached."""
    try:
        host.writer.catch_up()
    except LogError:
        return False
    return bool(host.writer.waiting)


def test_new_batches_with_the_numbers_of_lost_ones_cause_a_replay(cluster, postgres, hosts):
    """A server that missed the failover replays, and saves no snapshot before it catches up."""
    ours, theirs = hosts
    first, second = sorted(ours.engine.rows)[:2]
    ours.observe(first, "2019-01-01", 300.0)
    ours.observe(first, "2019-02-01", 301.0)
    batch = ours.engine.batch
    forget_last(postgres, 2)
    promote(cluster)
    wait_until(lambda: must_replay(theirs), bool, 30)
    theirs.states()
    theirs.observe(second, "2019-01-01", 700.0)
    theirs.observe(second, "2019-02-01", 701.0)

    with pytest.raises(ForecastError, match="has another primary"):
        ours.snapshots.save(ours.engine)
    ours.writer.catch_up()

    assert theirs.engine.batch == batch
    assert len(ours.writer.waiting) == 5
    assert_equal(ours.states(), theirs.states())
    assert ours.states()[second].count == 122
    assert ours.snapshots.save(ours.engine) == 1


def test_a_standby_is_refused_until_it_is_promoted(cluster, postgres, hosts):
    """After the promotion the same connections see a new history, so that all series replay."""
    ours, _ = hosts

    def refusal() -> str:
        try:
            ours.writer.catch_up()
        except LogError as error:
            return str(error)
        return ""

    crash(cluster)
    (Path(cluster.pgdata) / "standby.signal").touch()
    restart(cluster)
    wait_until(refusal, lambda message: "is a standby" in message, 30)
    with pytest.raises(LogError, match="is a standby"):
        ours.observe("new-series", "2019-01-01", 5.0)
    assert len(ours.engine) == 5
    engine = sa.create_engine(postgres)
    with engine.connect() as connection:
        connection.exec_driver_sql("select pg_promote()")
    engine.dispose()

    wait_until(lambda: must_replay(ours), bool, 30)

    ours.states()
    ours.observe("new-series", "2019-01-01", 5.0)
    assert len(ours.engine) == 6


def test_a_database_restart_causes_no_replay(cluster, hosts):
    """The history of the log is the same before and after."""
    ours, _ = hosts
    crash(cluster)
    restart(cluster)

    def catches_up() -> bool:
        try:
            ours.writer.catch_up()
        except LogError:
            return False
        return True

    wait_until(catches_up, bool, 30)
    assert not ours.writer.waiting
    assert len(ours.engine) == 5

"""Another primary with another history of the log: numbers of batches alone do not tell it."""

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
    """The database goes on in a new timeline, as a standby does that becomes the primary."""
    crash(cluster)
    folder = Path(cluster.pgdata)
    with (folder / "postgresql.auto.conf").open("a") as settings:
        settings.write("restore_command = 'false'\n")
    (folder / "recovery.signal").touch()
    restart(cluster)


def forget_last(url: str, batches: int) -> None:
    """As a replica that lagged by so many has it."""
    engine, seen = sa.create_engine(url), tables.observation
    with engine.begin() as connection:
        (last,) = connection.execute(sa.select(tables.head.c.batch)).one()
        connection.execute(seen.delete().where(seen.c.batch > last - batches))
        connection.execute(tables.head.update().values(batch=last - batches))
    engine.dispose()


def replayed(host: Host) -> bool:
    """Whether a look at the log has every series replayed; the database may yet be coming up."""
    try:
        host.writer.catch_up()
    except LogError:
        return False
    return bool(host.writer.waiting)


def test_as_many_batches_as_were_lost_are_not_taken_for_them(cluster, postgres, hosts):
    """A server that did not look meanwhile replays; its snapshots wait until it has looked."""
    ours, theirs = hosts
    name, other = sorted(ours.engine.rows)[:2]
    ours.observe(name, "2019-01-01", 300.0)
    ours.observe(name, "2019-02-01", 301.0)
    batch = ours.engine.batch
    forget_last(postgres, 2)
    promote(cluster)
    wait_until(lambda: replayed(theirs), bool, 30)
    theirs.states()
    theirs.observe(other, "2019-01-01", 700.0)
    theirs.observe(other, "2019-02-01", 701.0)

    with pytest.raises(ForecastError, match="has another primary"):
        ours.snapshots.save(ours.engine)
    ours.writer.catch_up()

    assert theirs.engine.batch == batch
    assert len(ours.writer.waiting) == 5
    assert_equal(ours.states(), theirs.states())
    assert ours.states()[other].count == 122
    assert ours.snapshots.save(ours.engine) == 1


def test_a_standby_is_not_taken_for_the_log_until_it_is_the_primary(cluster, postgres, hosts):
    """Through the same connections: then its history is another one."""
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
    wait_until(refusal, lambda told: "is a standby" in told, 30)
    with pytest.raises(LogError, match="is a standby"):
        ours.observe("begun-later", "2019-01-01", 5.0)
    assert len(ours.engine) == 5
    engine = sa.create_engine(postgres)
    with engine.connect() as connection:
        connection.exec_driver_sql("select pg_promote()")
    engine.dispose()

    wait_until(lambda: replayed(ours), bool, 30)

    ours.states()
    ours.observe("begun-later", "2019-01-01", 5.0)
    assert len(ours.engine) == 6


def test_a_restart_is_no_other_history(cluster, hosts):
    """Nothing is replayed because the database was away."""
    ours, _ = hosts
    crash(cluster)
    restart(cluster)

    def looked() -> bool:
        try:
            ours.writer.catch_up()
        except LogError:
            return False
        return True

    wait_until(looked, bool, 30)
    assert not ours.writer.waiting
    assert len(ours.engine) == 5

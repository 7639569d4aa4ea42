"""Tests of schema migrations: an older log is migrated in place, and an unknown one is refused."""

import itertools
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from benchmarks.speed.servers import Point, ServerStopped, server, started
from service.errors import LogError
from service.ingest.importer import import_history
from service.storage.log import ObservationLog
from service.storage.schema import metadata
from tests.helpers.hosts import MONTHLY
from tests.helpers.service import read_log, run_sql

FIRST = (
    "create table meta (key text not null primary key, value text not null)",
    "create table series (series integer not null primary key, unique_id text not null unique, "
    "static text, created_at bigint not null)",
    "create table observation (series integer not null references series (series), "
    "ds bigint not null, revision integer not null, y double precision, covariates text, "
    "filled boolean not null, recorded_at bigint not null, primary key (series, ds, revision))",
    "insert into meta values ('schema_version', '1'), ('freq', '\"MS\"')",
    "insert into series values (1, 'a', null, 0)",
    "insert into observation values (1, 0, 1, 5.0, null, false, 0), (1, 0, 2, 6.0, null, false, 0)",
)
"""Statements that create a log as the first release did, with two revisions of one value."""


def test_a_log_of_the_first_release_is_migrated_to_the_newest_schema(url):
    """Its series and values are all kept, and the head of the log is created."""
    run_sql(url, *FIRST)

    names, rows = read_log(url)

    assert (names, rows.y.tolist()) == (["a"], [6.0])
    assert run_sql(url, "select batch from head") == [(0,)]
    assert run_sql(url, "select version_num from alembic_version") == [("0004",)]


@pytest.mark.parametrize("statements", [(), FIRST])
def test_migrated_and_new_logs_have_the_tables_that_the_code_describes(url, statements):
    """Comments are not compared, because only the code has them."""
    run_sql(url, *statements) if statements else None
    ObservationLog(url).close()

    engine = sa.create_engine(url)
    with engine.connect() as connection:
        compare_type = connection.dialect.name == "postgresql"  # SQLite has one type of number
        context = MigrationContext.configure(connection, opts={"compare_type": compare_type})
        differences = compare_metadata(context, metadata)
    engine.dispose()
    changes = [
        change for item in differences for change in (item if isinstance(item, list) else [item])
    ]
    assert [change for change in changes if "comment" not in change[0]] == []


def test_a_log_of_a_newer_release_is_refused_and_left_as_it_is(url, monthly):
    """An older server must not write what a newer one relies on."""
    import_history(url, monthly, MONTHLY)
    run_sql(url, "update alembic_version set version_num = '9999'")

    with pytest.raises(LogError, match="schema version 9999"):
        ObservationLog(url)

    assert run_sql(url, "select count(*) from observation") == [(600,)]


def test_tables_of_another_program_are_not_touched(url):
    """A database that already has a different table `series` is refused."""
    run_sql(url, "create table series (name text)", "insert into series values ('mine')")

    with pytest.raises(LogError, match="tables of another program"):
        ObservationLog(url)

    assert run_sql(url, "select * from series") == [("mine",)]


def test_a_failed_migration_leaves_the_log_unchanged(tmp_path):
    """The migration is one transaction, which includes the creation of tables."""
    url = f"sqlite:///{tmp_path / 'log.db'}"
    run_sql(url, *FIRST, "create table removed (mine text)")  # clashes with version 2

    with pytest.raises(LogError, match="cannot be opened"):
        ObservationLog(url)

    tables = {
        name for (name,) in run_sql(url, "select name from sqlite_master where type = 'table'")
    }
    assert tables == {"meta", "series", "observation", "removed"}
    run_sql(url, "drop table removed")
    assert read_log(url)[0] == ["a"]


def test_logs_can_be_created_from_several_threads_at_once(tmp_path):
    """A server of several models does so; each migration runs on its own log."""
    urls = [f"sqlite:///{tmp_path / f'{i}.db'}" for i in range(12)]

    with ThreadPoolExecutor(len(urls)) as threads:
        for log in threads.map(ObservationLog, urls):
            log.close()

    for url in urls:
        assert read_log(url)[0] == []


def test_a_kill_after_any_statement_of_a_migration_leaves_the_log_unchanged(
    url, monthly_bundle, tmp_path
):
    """A later start completes the migration, and every value is stored once."""
    environment = {
        "STATECAST_MODEL": str(monthly_bundle),
        "STATECAST_DATA_DIR": str(tmp_path / "data"),
        "STATECAST_DATABASE_URL": url,
    }
    run_sql(url, *FIRST)
    for turn in itertools.count(1):
        statement = Point("alembic/ddl/impl.py", "DefaultImpl._exec", "leave", turn)
        with started(environment, statement) as running:
            try:
                running.wait_until_ready()
                break
            except ServerStopped:
                assert running.wait() == -9
        assert run_sql(url, "select value from meta where key = 'schema_version'") == [("1",)]
        assert run_sql(url, "select y from observation order by revision") == [(5.0,), (6.0,)]

    assert turn > 8
    with server(environment) as running:
        detail = httpx.get(f"{running.url}/v1/series/a").json()
    assert (detail["observations"], detail["revisions"]) == (1, 1)

"""SQLite and PostgreSQL: connections, locks and queries in slices."""

import contextlib
import fcntl
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import event

from service.errors import LogError, LogLocked
from service.storage.schema import metadata

_ADVISORY_LOCK = 0x57A7_ECA5
_LOCK_S = 30
"""Longest wait for another process that writes, in seconds."""
_WRITES = "statecast_writes"
STANDBY = "standby"
"""Timeline of a standby: it follows a primary and may become one with a timeline of its own."""
_TIMELINE = "timeline"
_ASK_TIMELINE = (
    f"select case when pg_is_in_recovery() then '{STANDBY}' "
    "else substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) end"
)
_PATIENCE = {
    "connect_timeout": "10",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
}
"""
Options of libpq, unless the URL sets them: how long to wait for a database that does not answer,
and how soon to notice that its machine has gone away. In seconds, the last in milliseconds.
"""


def open_engine(address: sa.URL) -> sa.Engine:
    """
    Return an engine for an SQLite file, or for a database and the schema that `?schema=` names.

    Raises:
        LogError: The URL names a database in memory.
    """
    if address.get_backend_name() != "sqlite":
        return _open_server(address)
    if address.database in {None, "", ":memory:"}:
        raise LogError(
            "a log in memory is lost at the first stop",
            where=str(address),
            help="name a file: sqlite:///data/observations.db",
        )
    assert address.database is not None
    Path(address.database).parent.mkdir(parents=True, exist_ok=True)
    engine = sa.create_engine(address, connect_args={"timeout": _LOCK_S})

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # We begin transactions ourselves, also for DDL.
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        # Only an immediate transaction waits for another writer.
        writes = connection.get_execution_options().get(_WRITES)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _open_server(address: sa.URL) -> sa.Engine:
    url = address.difference_update_query(["schema"])
    patience = {name: text for name, text in _PATIENCE.items() if name not in url.query}
    engine = sa.create_engine(url.update_query_dict(patience), pool_pre_ping=True)

    @event.listens_for(engine, "connect")
    def note_timeline(connection: Any, record: Any) -> None:
        cursor = connection.cursor()
        try:
            cursor.execute(_ASK_TIMELINE)
            record.info[_TIMELINE] = cursor.fetchone()[0]
        except (
            engine.dialect.loaded_dbapi.Error
        ):  # A database that only speaks PostgreSQL's protocol.
            record.info[_TIMELINE] = ""
        cursor.close()
        connection.rollback()

    schema = schema_of(address)
    if schema is not None:

        @event.listens_for(engine, "connect", insert=True)
        def choose(connection: Any, _: Any) -> None:
            cursor = connection.cursor()
            cursor.execute("select set_config('search_path', quote_ident(%s), false)", (schema,))
            cursor.close()
            connection.commit()

    return engine


def timeline_of(connection: sa.Connection) -> str:
    """
    Return the history of the database that a connection sees; empty if there is only one.

    PostgreSQL begins a new timeline when a standby becomes the primary, and when a backup is
    restored to a point in time. Of the connections of before, only those of the standby survive.
    """
    if connection.info.get(_TIMELINE) == STANDBY:
        connection.info[_TIMELINE] = connection.exec_driver_sql(_ASK_TIMELINE).scalar_one()
    return str(connection.info.get(_TIMELINE, ""))


def schema_of(address: sa.URL) -> str | None:
    """Return the schema that `?schema=` of a PostgreSQL URL names, or None."""
    named = address.query.get("schema")
    return named[-1] if isinstance(named, tuple) else named


def make_schema(connection: sa.Connection, address: sa.URL) -> None:
    """Create the schema unless it exists: creating one needs a right that its owner may lack."""
    schema = schema_of(address)
    if schema is not None and not sa.inspect(connection).has_schema(schema):
        connection.execute(sa.schema.CreateSchema(schema))


def need_file(address: sa.URL) -> None:
    """
    Check that the file of an SQLite log exists.

    Raises:
        LogError: It does not.
    """
    if address.get_backend_name() == "sqlite" and not Path(str(address.database)).is_file():
        raise LogError(
            "there is no observation log here",
            where=str(address.database),
            help="the first start of the server, or `statecast observe FILE --offline`, creates it",
        )


def stored_bytes(connection: sa.Connection) -> int:
    """Return the size of the tables with their indexes, in bytes."""
    if connection.dialect.name == "sqlite":
        path = connection.engine.url.database
        files = (Path(f"{path}{rest}") for rest in ("", "-wal"))
        return sum(file.stat().st_size for file in files if file.exists())
    sizes = [sa.func.pg_total_relation_size(name) for name in metadata.tables]
    return int(sum(connection.execute(sa.select(*sizes)).one()))


def shrink(engine: sa.Engine) -> None:
    """Write an SQLite file anew without the pages that nothing is on."""
    connection = engine.raw_connection()
    try:
        cursor = connection.cursor()
        for statement in ("VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)"):
            cursor.execute(statement)
    finally:
        connection.close()


def snapshots(engine: sa.Engine) -> sa.Engine:
    """Return an engine of the same pool whose transactions see one moment of the database."""
    if engine.dialect.name == "sqlite":
        return engine  # Its transactions always do.
    return engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)


def writing(engine: sa.Engine) -> sa.Engine:
    """Return an engine of the same pool whose transactions wait for other writers, for a time."""
    if engine.dialect.name == "sqlite":
        return engine.execution_options(**{_WRITES: True})
    engine = engine.execution_options()

    @event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_LOCK_S}s'")

    return engine


def alone(connection: sa.Connection) -> None:
    """Keep other processes from changing the tables until the transaction ends."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_ADVISORY_LOCK)))


@contextlib.contextmanager
def only_writer(address: sa.URL, place: str) -> Iterator[None]:
    """
    Lock the file of an SQLite log for this process; the lock falls with the process.

    Raises:
        LogLocked: Another process holds it.
    """
    if address.get_backend_name() != "sqlite":
        yield
        return
    with Path(f"{address.database}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LogLocked(
                "another process writes to the observation log",
                where=place,
                help="send observations to the running server instead, or stop it first",
            ) from None
        yield


T = TypeVar("T")
MOST = 500
"""Most values in one `IN (...)`; SQLite allows 32,766."""


def slices(values: Sequence[T], most: int = MOST) -> Iterator[Sequence[T]]:
    """
    Split values into slices of at most `most`.

    >>> [len(part) for part in slices(range(1_200))]
    [500, 500, 200]
    """
    return (values[start : start + most] for start in range(0, len(values), most))


def among(column: sa.Column[int], numbers: Sequence[int]) -> Iterator[sa.ColumnElement[bool]]:
    """
    Yield conditions that a column has one of the numbers.

    Numbers without a gap become one range, others slices.

    >>> c = sa.Column("series", sa.Integer)
    >>> [str(condition) for condition in among(c, [3, 1, 2])], len([*among(c, range(0, 2_000, 2))])
    (['series BETWEEN :series_1 AND :series_2'], 2)
    """
    ordered = sorted(numbers)
    whole = bool(ordered) and ordered[-1] - ordered[0] + 1 == len(ordered)
    for part in [ordered] if whole else slices(ordered):
        if part[-1] - part[0] + 1 == len(part):
            yield column.between(part[0], part[-1])
        else:
            yield column.in_(part)

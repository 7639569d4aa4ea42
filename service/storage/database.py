"""SQLite and PostgreSQL: engines, locks, chunked queries."""

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
"""Seconds to wait for another process that writes."""
_WRITES = "statecast_writes"
STANDBY = "standby"
"""In place of a timeline: of a database that follows another, and may yet begin a new one."""
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
Of libpq, unless the address says otherwise: seconds until a database that does not answer is given
up, and after which a machine that has gone away is noticed. The last is in milliseconds.
"""


def open_engine(address: sa.URL) -> sa.Engine:
    """For a file, or for a database and the schema that `?schema=` names."""
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
        connection.isolation_level = None  # transactions begin where we say, tables included
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        writes = connection.get_execution_options().get(_WRITES)  # or it would not wait for others
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _open_server(address: sa.URL) -> sa.Engine:
    given = address.difference_update_query(["schema"])
    patience = {name: text for name, text in _PATIENCE.items() if name not in given.query}
    engine = sa.create_engine(given.update_query_dict(patience), pool_pre_ping=True)

    @event.listens_for(engine, "connect")
    def note_timeline(connection: Any, record: Any) -> None:
        cursor = connection.cursor()
        try:
            cursor.execute(_ASK_TIMELINE)
            record.info[_TIMELINE] = cursor.fetchone()[0]
        except engine.dialect.loaded_dbapi.Error:  # speaks like PostgreSQL and is something else
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
    Which history of the database a connection sees; empty where there is but one.

    PostgreSQL begins another one when a standby becomes the primary, and when a backup is brought
    to a point in time. Of connections that were there before, only those of the standby go on.
    """
    if connection.info.get(_TIMELINE) == STANDBY:
        connection.info[_TIMELINE] = connection.exec_driver_sql(_ASK_TIMELINE).scalar_one()
    return str(connection.info.get(_TIMELINE, ""))


def schema_of(address: sa.URL) -> str | None:
    """The schema of a PostgreSQL database that `?schema=` names, if it does."""
    named = address.query.get("schema")
    return named[-1] if isinstance(named, tuple) else named


def make_schema(connection: sa.Connection, address: sa.URL) -> None:
    """Unless it is there: making one needs a right that the owner of one may lack."""
    schema = schema_of(address)
    if schema is not None and not sa.inspect(connection).has_schema(schema):
        connection.execute(sa.schema.CreateSchema(schema))


def need_file(address: sa.URL) -> None:
    """
    Before a file is opened that must be there.

    Raises:
        LogError: It is not.
    """
    if address.get_backend_name() == "sqlite" and not Path(str(address.database)).is_file():
        raise LogError(
            "there is no observation log here",
            where=str(address.database),
            help="the first start of the server, or `statecast observe FILE --offline`, makes it",
        )


def stored_bytes(connection: sa.Connection) -> int:
    """How much room the tables take, with their indexes."""
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
    """The same pool, whose transactions see the database as it is at one moment."""
    if engine.dialect.name == "sqlite":
        return engine  # they do by nature
    return engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)


def writing(engine: sa.Engine) -> sa.Engine:
    """The same pool, whose transactions wait for others that write, but not for ever."""
    if engine.dialect.name == "sqlite":
        return engine.execution_options(**{_WRITES: True})
    engine = engine.execution_options()

    @event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_LOCK_S}s'")

    return engine


def alone(connection: sa.Connection) -> None:
    """Wait until no other process changes the tables; until the transaction ends."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_ADVISORY_LOCK)))


@contextlib.contextmanager
def only_writer(address: sa.URL, place: str) -> Iterator[None]:
    """Hold a log that is a file for this process; the lock falls with it, however it ends."""
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
"""Values in one `IN (...)`; SQLite allows 32,766."""


def slices(values: Sequence[T], most: int = MOST) -> Iterator[Sequence[T]]:
    """
    Not too many at a time.

    >>> [len(part) for part in slices(range(1_200))]
    [500, 500, 200]
    """
    return (values[start : start + most] for start in range(0, len(values), most))


def among(column: sa.Column[int], numbers: Sequence[int]) -> Iterator[sa.ColumnElement[bool]]:
    """
    That a column has one of some numbers: between two ends where none is missing, else by slices.

    >>> c = sa.Column("series", sa.Integer)
    >>> [str(one) for one in among(c, [3, 1, 2])], len([*among(c, range(0, 2_000, 2))])
    (['series BETWEEN :series_1 AND :series_2'], 2)
    """
    ordered = sorted(numbers)
    whole = bool(ordered) and ordered[-1] - ordered[0] + 1 == len(ordered)
    for part in [ordered] if whole else slices(ordered):
        if part[-1] - part[0] + 1 == len(part):
            yield column.between(part[0], part[-1])
        else:
            yield column.in_(part)

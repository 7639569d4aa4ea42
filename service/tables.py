"""The tables of the observation log, and how they are reached."""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event

from service.errors import LogError, LogLocked

_ADVISORY_LOCK = 0x57A7_ECA5
_LOCK_S = 30
"""Seconds to wait for another process that writes."""
_WRITES = "statecast_writes"
metadata = sa.MetaData()
meta = sa.Table(
    "meta",
    metadata,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)
series = sa.Table(
    "series",
    metadata,
    sa.Column("series", sa.Integer, primary_key=True),
    sa.Column("unique_id", sa.Text, nullable=False, unique=True),
    sa.Column("static", sa.Text, comment="JSON object of static covariates"),
    sa.Column("created_at", sa.BigInteger, nullable=False, comment="Unix milliseconds"),
    sa.Column("batch", sa.BigInteger, nullable=False, server_default="0"),
    sa.Index("series_batch", "batch"),
)
removed = sa.Table(
    "removed",
    metadata,
    sa.Column("series", sa.Integer, primary_key=True),
    sa.Column("batch", sa.BigInteger, nullable=False),
)
head = sa.Table(
    "head",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("batch", sa.BigInteger, nullable=False, comment="the last one written"),
    sa.Column("width", sa.BigInteger, comment="stamps in one bucket of observations"),
)
observation = sa.Table(
    "observation",
    metadata,
    sa.Column("bucket", sa.BigInteger, primary_key=True, comment="ds // head.width"),
    sa.Column("series", sa.Integer, primary_key=True),
    sa.Column("ds", sa.BigInteger, primary_key=True, comment="nanoseconds, or the integer step"),
    sa.Column("revision", sa.Integer, primary_key=True),
    sa.Column("y", sa.Double, comment="null: not observed"),
    sa.Column("covariates", sa.Text, comment="JSON object"),
    sa.Column("filled", sa.Boolean, nullable=False, comment="made up by the fill policy"),
    sa.Column("recorded_at", sa.BigInteger, nullable=False, comment="Unix milliseconds"),
    sa.Column("batch", sa.BigInteger, nullable=False, server_default="0"),
    sa.Index("observation_batch", "batch"),
    sqlite_with_rowid=False,
)
pruned = sa.Table(
    "pruned",
    metadata,
    sa.Column("series", sa.Integer, sa.ForeignKey("series.series"), primary_key=True),
    sa.Column("first_ds", sa.BigInteger, nullable=False, comment="the first stamp that is kept"),
    sa.Column("steps", sa.BigInteger, nullable=False, comment="taken out so far"),
    sa.Column("newest", sa.BigInteger, nullable=False, comment="the last batch that wrote of them"),
    sa.Column("batch", sa.BigInteger, nullable=False),
    sa.Index("pruned_batch", "batch"),
)
base = sa.Table(
    "base",
    metadata,
    sa.Column("series", sa.Integer, sa.ForeignKey("series.series"), primary_key=True),
    sa.Column("digest", sa.Text, primary_key=True, comment="of the model"),
    sa.Column("steps", sa.BigInteger, nullable=False, comment="that the state has seen"),
    sa.Column("state", sa.LargeBinary, nullable=False, comment="before the first step kept"),
)
STANDBY = "standby"
"""In place of a timeline: of a database that follows another, and may yet begin a new one."""
_TIMELINE = "timeline"
_ASK_TIMELINE = (
    f"select case when pg_is_in_recovery() then '{STANDBY}' "
    "else substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) end"
)
_PATIENCE = {
    "connect_timeout": "10", "keepalives_idle": "30", "keepalives_interval": "10",
    "keepalives_count": "3", "tcp_user_timeout": "30000",
}  # fmt: skip
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
            "a log in memory is lost at the first stop", where=str(address),
            help="name a file: sqlite:///data/observations.db",
        )  # fmt: skip
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
            "there is no observation log here", where=str(address.database),
            help="the first start of the server, or `statecast observe FILE --offline`, makes it",
        )  # fmt: skip


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
                "another process writes to the observation log", where=place,
                help="send observations to the running server instead, or stop it first",
            ) from None  # fmt: skip
        yield

"""The tables of the observation log, and the connection that only one process may write through."""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import sqlalchemy as sa
from sqlalchemy import event

from service.errors import LogError, LogLocked

_ADVISORY_LOCK = 0x57A7_ECA5

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
)

observation = sa.Table(
    "observation",
    metadata,
    sa.Column("series", sa.Integer, sa.ForeignKey("series.series"), primary_key=True),
    sa.Column("ds", sa.BigInteger, primary_key=True, comment="nanoseconds, or the integer step"),
    sa.Column("revision", sa.Integer, primary_key=True),
    sa.Column("y", sa.Double, comment="null: not observed"),
    sa.Column("covariates", sa.Text, comment="JSON object"),
    sa.Column("filled", sa.Boolean, nullable=False, comment="made up by the fill policy"),
    sa.Column("recorded_at", sa.BigInteger, nullable=False, comment="Unix milliseconds"),
    sqlite_with_rowid=False,
)


def open_engine(address: sa.URL) -> sa.Engine:
    if address.get_backend_name() != "sqlite":
        return sa.create_engine(address, pool_pre_ping=True)
    if address.database in {None, "", ":memory:"}:
        raise LogError(
            "a log in memory is lost at the first stop", where=str(address),
            help="name a file: sqlite:///data/observations.db",
        )  # fmt: skip
    assert address.database is not None
    Path(address.database).parent.mkdir(parents=True, exist_ok=True)
    engine = sa.create_engine(address, connect_args={"timeout": 10})

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _: Any) -> None:
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    return engine


@contextlib.contextmanager
def only_writer(engine: sa.Engine, address: sa.URL, place: str) -> Iterator[None]:
    """Hold the log for this process; the lock falls with the process, however that ends."""
    busy = LogLocked(
        "another process writes to the observation log", where=place,
        help="send observations to the running server instead, or stop it first",
    )  # fmt: skip
    if address.get_backend_name() == "sqlite":
        with Path(f"{address.database}.lock").open("w") as file:
            _flock(file, busy)
            yield
        return
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        query = sa.select(sa.func.pg_try_advisory_lock(_ADVISORY_LOCK))
        if not connection.execute(query).scalar_one():
            raise busy
        try:
            yield
        finally:
            connection.execute(sa.select(sa.func.pg_advisory_unlock(_ADVISORY_LOCK)))


def _flock(file: IO[str], busy: LogLocked) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise busy from None

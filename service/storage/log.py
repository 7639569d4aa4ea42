"""
The observation log: append-only, with revisions. States are a cache of it.

A series has a row for every step from its first to its last; a step filled by policy is marked
`filled`. A correction appends a row with the next revision; the highest revision counts. Each
transaction that writes is a batch. Batches are numbered in the order in which they become visible,
and a batch is on the disk when the transaction returns. SQLite (WAL, `synchronous=FULL`) is written
by one process, which holds a lock; PostgreSQL by any number, one transaction at a time.
"""

import contextlib
import copy
import json
import logging
from collections.abc import Iterator, Sequence

import sqlalchemy as sa

from forecast.calendars.calendar import Calendar
from forecast.redact import redact_url
from service.errors import DamagedLog, LogError, LogFrequency
from service.storage import migrations
from service.storage.database import (
    alone,
    make_schema,
    need_file,
    only_writer,
    open_engine,
    shrink,
    snapshots,
    stored_bytes,
    writing,
)
from service.storage.transaction import Transaction

_DAMAGED = "the file is damaged"
_KINDS = {
    "is full": "the disk is full",
    "I/O error": "the disk fails",
    "readonly": "it is read-only",
    "malformed": _DAMAGED,
    "not a database": _DAMAGED,
    "QueuePool": "all connections are in use",
    "is locked": "another process holds it",
    "lock timeout": "another session holds it",
    "during recovery": "the database is a standby",
    "connection": "no connection to PostgreSQL",
}
"""Texts in errors of the databases, and our words for them."""
logger = logging.getLogger("service.log")


class ObservationLog:
    """
    An open observation log.

    Args:
        url: SQLAlchemy URL of an SQLite file or a PostgreSQL database. Missing tables are created,
            and the schema that `?schema=` names.
        covariates: Names of the columns of `Observations.covariates`.
        reads_only: Open an existing log for reading, even while others write; do not upgrade it.

    Raises:
        LogLocked: Another process writes to the log, and the log is a file.
        LogError: The log cannot be opened or upgraded, or a newer release wrote it.
    """

    def __init__(
        self, url: str, covariates: Sequence[str] = (), *, reads_only: bool = False
    ) -> None:
        self.covariates = tuple(covariates)
        try:
            with contextlib.ExitStack() as guard:
                address = sa.make_url(url)
                self.url = url
                self.place = redact_url(address)
                if reads_only:
                    need_file(address)
                self._engine = open_engine(address)
                self._reader, self._writing = snapshots(self._engine), writing(self._engine)
                guard.callback(self._engine.dispose)
                if reads_only:
                    with self._reader.connect() as connection:
                        migrations.need_newest(connection, self.place)
                else:
                    guard.enter_context(only_writer(address, self.place))
                    with self._engine.begin() as connection:
                        alone(connection)
                        make_schema(connection, address)
                        migrations.upgrade(connection, self.place, note=logger.warning)
                self.shared = address.get_backend_name() != "sqlite"
                with self.read() as transaction:
                    self.log_id = transaction.meta("log_id") or ""
                self._guard = guard.pop_all()
        except (sa.exc.SQLAlchemyError, OSError, ImportError, ValueError) as error:
            raise _error_class(error)(
                f"the observation log cannot be opened ({_kind(error)})",
                where=f"{url.partition('?')[0].rpartition('@')[2]}: {_reason(error)}",
                help=_advice(
                    error, url, "check STATECAST_DATABASE_URL, the folder's rights and free space"
                ),
            ) from error

    def close(self) -> None:
        """Close the log and release its lock."""
        self._guard.close()

    def with_covariates(self, covariates: Sequence[str]) -> "ObservationLog":
        """Return the same open log for a model with other covariates."""
        other = copy.copy(self)
        other.covariates = tuple(covariates)
        return other

    def bind_calendar(self, calendar: Calendar) -> None:
        """
        Record the frequency at first use, and require it of every later model.

        Raises:
            LogFrequency: The log has another frequency.
        """
        with self.write() as transaction:
            known = transaction.meta("freq")
            if known is None:
                transaction.note_calendar(calendar)
            elif json.loads(known) != calendar.freq:
                raise LogFrequency(
                    f"the log holds series of freq={json.loads(known)!r}, and the model forecasts "
                    f"freq={calendar.freq!r}",
                    where=self.place,
                    help="serve a model of that frequency, or set another database_url",
                )

    @property
    def calendar(self) -> Calendar | None:
        """Calendar of the log, recorded at first use; None if it was not used yet."""
        with self.read() as transaction:
            known = transaction.meta("freq")
        return None if known is None else Calendar(json.loads(known))

    def size(self) -> int:
        """Return the size on the disk in bytes, including indexes and the write-ahead log."""
        with self._errors_as("read"), self._reader.connect() as connection:
            return stored_bytes(connection)

    def vacuum(self) -> None:
        """
        Return the space of removed rows to the disk; PostgreSQL does so by itself.

        Raises:
            LogError: A reader is in the way, or the disk lacks room for another copy of the log.
        """
        if not self.shared:
            with self._errors_as("vacuumed"):
                shrink(self._engine)

    @contextlib.contextmanager
    def write(self) -> Iterator[Transaction]:
        """
        Open a transaction that writes a batch; one at a time.

        The batch is on the disk when the block returns, and undone if it raises.

        Raises:
            LogError: The batch could not be written, or it is unknown whether it was.
        """
        with (
            self._errors_as("written"),
            self._writing.begin() as connection,
            self._closed_if_damaged(connection),
        ):
            transaction = Transaction(connection, self.covariates, writes=True)
            yield transaction
            transaction.end()

    @contextlib.contextmanager
    def read(self) -> Iterator[Transaction]:
        """
        Open a transaction that reads the log at one moment; it waits for no writer.

        Raises:
            LogError: The log could not be read.
        """
        with (
            self._errors_as("read"),
            self._reader.connect() as connection,
            self._closed_if_damaged(connection),
        ):
            yield Transaction(connection, self.covariates)

    @contextlib.contextmanager
    def _errors_as(self, action: str) -> Iterator[None]:
        try:
            yield
        except self._errors as error:
            usual = "try again: nothing is stored twice; the server's log tells the reason"
            raise _error_class(error)(
                f"the observation log cannot be {action} ({_kind(error)})",
                where=f"{self.place}: {_reason(error)}",
                help=_advice(error, self.place, usual),
            ) from error

    @contextlib.contextmanager
    def _closed_if_damaged(self, connection: sa.Connection) -> Iterator[None]:
        """Close a connection that met damage: it would keep answering from its cache."""
        try:
            yield
        except self._errors as error:
            if _kind(error) == _DAMAGED:
                connection.invalidate()
            raise

    @property
    def _errors(self) -> tuple[type[Exception], ...]:
        """Errors of SQLAlchemy, and of the driver, whose cursors are also read directly."""
        driver = self._engine.dialect.loaded_dbapi.Error
        return (sa.exc.DBAPIError, sa.exc.TimeoutError, driver)


def _error_class(error: Exception) -> type[LogError]:
    return DamagedLog if _kind(error) == _DAMAGED else LogError


def _kind(error: Exception) -> str:
    """Describe an error in words, or by its class if it is not known."""
    reason = _reason(error)
    return next((words for text, words in _KINDS.items() if text in reason), type(error).__name__)


def _advice(error: Exception, place: str, usual: str) -> str:
    """Return what to do about an error; trying again does not help with a damaged file."""
    if _kind(error) != _DAMAGED:
        return usual
    name = place.partition("?")[0].rpartition("/")[2]
    return (
        f"put a backup in its place, without {name}-wal and {name}-shm beside it; what can still "
        f"be read of this one: sqlite3 {name} .recover"
    )


def _reason(error: Exception) -> str:
    return str(getattr(error, "orig", None) or error).partition("\n")[0]

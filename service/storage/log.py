"""
The observation log: append-only, with revisions. It is the truth; states are a cache of it.

A series has a row for every step from its first to its last; a step filled by policy is a row
marked `filled`. Correcting a value appends a row with the next revision; the highest revision
counts. Each transaction that writes is a batch, numbered in the order in which they became
visible, and is on the disk when it returns. SQLite (WAL, `synchronous=FULL`) is written by one
process, which holds a lock; PostgreSQL by any number, one transaction at a time.
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
"""What the database says, and what is told of it."""
logger = logging.getLogger("service.log")


class ObservationLog:
    """
    The log behind one URL.

    Args:
        url: SQLAlchemy URL of an SQLite file or a PostgreSQL database; tables are made, and the
            schema that `?schema=` names.
        covariates: Names in the order in which `Rows.covariates` has them.
        reads_only: Open a log that is there, whoever writes to it; it is not brought up to date.

    Raises:
        LogLocked: Another process writes to it, and it is a file.
        LogError: It cannot be opened or brought up to date, or a newer release wrote it.
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
                help=_way_out(
                    error, url, "check STATECAST_DATABASE_URL, the folder's rights and free space"
                ),
            ) from error

    def close(self) -> None:
        """Give the lock back."""
        self._guard.close()

    def seen_by(self, covariates: Sequence[str]) -> "ObservationLog":
        """The same log, open already, for a model with other covariates."""
        other = copy.copy(self)
        other.covariates = tuple(covariates)
        return other

    def bind_calendar(self, calendar: Calendar) -> None:
        """
        Note the frequency at first use, and hold every later model to it.

        Raises:
            LogFrequency: The log was begun with another one.
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
        """The frequency that was noted at first use."""
        with self.read() as transaction:
            known = transaction.meta("freq")
        return None if known is None else Calendar(json.loads(known))

    def size(self) -> int:
        """Bytes on the disk, indexes and what is not yet merged into the file included."""
        with self._told("read"), self._reader.connect() as connection:
            return stored_bytes(connection)

    def vacuum(self) -> None:
        """
        Give the space of what was taken out back to the disk; PostgreSQL does so by itself.

        Raises:
            LogError: A reader is in the way, or there is no room: it needs the log's size again.
        """
        if not self.shared:
            with self._told("made smaller"):
                shrink(self._engine)

    @contextlib.contextmanager
    def write(self) -> Iterator[Transaction]:
        """
        One batch: on the disk when it returns, undone when it raises; one at a time.

        Raises:
            LogError: It could not be written, or it is not known whether it was.
        """
        with self._told("written"), self._writing.begin() as connection, self._damage(connection):
            transaction = Transaction(connection, self.covariates, writes=True)
            yield transaction
            transaction.end()

    @contextlib.contextmanager
    def read(self) -> Iterator[Transaction]:
        """
        The log as it is at one moment; waits for no writer.

        Raises:
            LogError: It could not be read.
        """
        with self._told("read"), self._reader.connect() as connection, self._damage(connection):
            yield Transaction(connection, self.covariates)

    @contextlib.contextmanager
    def _told(self, done: str) -> Iterator[None]:
        try:
            yield
        except self._errors as error:
            usual = "try again: nothing is stored twice; the server's log tells the reason"
            raise _error_class(error)(
                f"the observation log cannot be {done} ({_kind(error)})",
                where=f"{self.place}: {_reason(error)}",
                help=_way_out(error, self.place, usual),
            ) from error

    @contextlib.contextmanager
    def _damage(self, connection: sa.Connection) -> Iterator[None]:
        """A connection that met damage is closed: it would answer out of its cache for ever."""
        try:
            yield
        except self._errors as error:
            if _kind(error) == _DAMAGED:
                connection.invalidate()
            raise

    @property
    def _errors(self) -> tuple[type[Exception], ...]:
        """Of the library, and of the driver whose rows are read without it."""
        driver = self._engine.dialect.loaded_dbapi.Error
        return (sa.exc.DBAPIError, sa.exc.TimeoutError, driver)


def _error_class(error: Exception) -> type[LogError]:
    return DamagedLog if _kind(error) == _DAMAGED else LogError


def _kind(error: Exception) -> str:
    """In words where they are known, else the class."""
    reason = _reason(error)
    return next((told for said, told in _KINDS.items() if said in reason), type(error).__name__)


def _way_out(error: Exception, place: str, usual: str) -> str:
    """What to do about it: a file that is damaged is not mended by trying again."""
    if _kind(error) != _DAMAGED:
        return usual
    name = place.partition("?")[0].rpartition("/")[2]
    return (
        f"put a backup in its place, without {name}-wal and {name}-shm beside it; what can still "
        f"be read of this one: sqlite3 {name} .recover"
    )


def _reason(error: Exception) -> str:
    return str(getattr(error, "orig", None) or error).partition("\n")[0]

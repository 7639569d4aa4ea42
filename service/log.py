"""
The observation log: append-only, with revisions. It is the truth; states are a cache of it.

A series has a row for every step from its first to its last; a step filled by policy is a row
marked `filled`. Correcting a value appends a row with the next revision; the highest revision
counts. One process writes (held by a lock), in transactions that are on the disk when they
return: SQLite in WAL mode with `synchronous=FULL`, or PostgreSQL.
"""

import contextlib
import fcntl
import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import sqlalchemy as sa
from jaxtyping import Bool, Float, Int
from sqlalchemy import event

from forecast.calendars import Calendar
from service.errors import LogError, LogFrequency, LogLocked

SCHEMA_VERSION = 1
_ADVISORY_LOCK = 0x57A7_ECA5
_IN = 500
"""Values in one `IN (...)`; SQLite allows 32,766."""

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


@dataclass(frozen=True, slots=True)
class Rows:
    """Observations side by side, series end to end, stamps rising."""

    series: Int[np.ndarray, " row"]
    ds: Int[np.ndarray, " row"]
    y: Float[np.ndarray, " row"]
    """NaN where not observed."""
    covariates: Float[np.ndarray, "row covariate"]
    filled: Bool[np.ndarray, " row"]

    def __len__(self) -> int:
        return len(self.ds)

    def take(self, rows: Int[np.ndarray, " kept"] | Bool[np.ndarray, " row"]) -> "Rows":
        """These rows, in this order."""
        return Rows(
            self.series[rows], self.ds[rows], self.y[rows], self.covariates[rows],
            self.filled[rows],
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Entry:
    """One series of the log."""

    number: int
    unique_id: str
    static: Mapping[str, Any]


class Log:
    """
    The log behind one URL.

    Args:
        url: SQLAlchemy URL of an SQLite file or a PostgreSQL database; tables are made.
        covariates: Names in the order in which `Rows.covariates` has them.

    Raises:
        LogLocked: Another process writes to it.
        LogError: It cannot be opened, or another version wrote it.
    """

    def __init__(self, url: str, covariates: Sequence[str] = ()) -> None:
        self.covariates = tuple(covariates)
        self._guard = contextlib.ExitStack()
        try:
            address = sa.make_url(url)
            self.place = address.render_as_string(hide_password=True)
            self._engine = _engine(address)
            self._guard.callback(self._engine.dispose)
            self._guard.enter_context(_only_writer(self._engine, address, self.place))
            metadata.create_all(self._engine)
            self._check_version()
        except (sa.exc.SQLAlchemyError, OSError, ImportError) as error:
            self._guard.close()
            raise LogError(
                f"the observation log cannot be opened: {_reason(error)}",
                where=url.partition("@")[0] if "@" not in url else url.rpartition("@")[2],
                help="check STATECAST_DATABASE_URL, the folder's rights and free space",
            ) from error
        except BaseException:
            self._guard.close()
            raise

    def close(self) -> None:
        """Give the lock back."""
        self._guard.close()

    def bind_calendar(self, calendar: Calendar) -> None:
        """
        Note the frequency at first use, and hold every later model to it.

        Raises:
            LogFrequency: The log was begun with another one.
        """
        with self.write() as transaction:
            known = transaction.meta("freq")
            if known is None:
                transaction.set_meta("freq", json.dumps(calendar.freq))
            elif json.loads(known) != calendar.freq:
                raise LogFrequency(
                    f"the log holds series of freq={json.loads(known)!r}, and the model forecasts "
                    f"freq={calendar.freq!r}",
                    where=self.place,
                    help="serve a model of that frequency, or set another database_url",
                )

    @contextlib.contextmanager
    def write(self) -> Iterator["Transaction"]:
        """A transaction: on the disk when it returns, undone when it raises."""
        try:
            with self._engine.begin() as connection:
                yield Transaction(connection, self.covariates)
        except sa.exc.OperationalError as error:
            raise LogError(
                f"the observation log cannot be written: {_reason(error)}", where=self.place,
                help="check free space and rights; nothing of this request was stored",
            ) from error  # fmt: skip

    @contextlib.contextmanager
    def read(self) -> Iterator["Transaction"]:
        """A look at the log that does not wait for the writer."""
        with self._engine.connect() as connection:
            yield Transaction(connection, self.covariates)

    def _check_version(self) -> None:
        with self.write() as transaction:
            found = transaction.meta("schema_version")
            if found is None:
                transaction.set_meta("schema_version", str(SCHEMA_VERSION))
            elif found != str(SCHEMA_VERSION):
                raise LogError(
                    f"the log has schema version {found}; this release reads {SCHEMA_VERSION}",
                    where=self.place, help="use the release that wrote it",
                )  # fmt: skip


class Transaction:
    """What can be read and appended inside one transaction."""

    def __init__(self, connection: sa.Connection, covariates: tuple[str, ...]) -> None:
        self._connection = connection
        self._covariates = covariates

    def meta(self, key: str) -> str | None:
        """One fact about the log itself."""
        query = sa.select(meta.c.value).where(meta.c.key == key)
        return self._connection.execute(query).scalar_one_or_none()

    def set_meta(self, key: str, value: str) -> None:
        """Note a fact once."""
        self._connection.execute(sa.insert(meta).values(key=key, value=value))

    def entries(self) -> list[Entry]:
        """Every series, in the order of their numbers."""
        query = sa.select(series.c.series, series.c.unique_id, series.c.static)
        found = self._connection.execute(query.order_by(series.c.series))
        return [Entry(n, name, json.loads(static or "{}")) for n, name, static in found]

    def created_at(self, number: int) -> int:
        """Unix milliseconds at which a series was first seen."""
        query = sa.select(series.c.created_at).where(series.c.series == number)
        return int(self._connection.execute(query).scalar_one())

    def lengths(self) -> dict[int, int]:
        """Stored rows of each series, old revisions included."""
        query = sa.select(observation.c.series, sa.func.count()).group_by(observation.c.series)
        return {int(n): int(rows) for n, rows in self._connection.execute(query)}

    def spans(self) -> dict[int, tuple[int, int]]:
        """First and last stamp of each series."""
        query = sa.select(
            observation.c.series, sa.func.min(observation.c.ds), sa.func.max(observation.c.ds)
        ).group_by(observation.c.series)
        return {int(n): (int(a), int(b)) for n, a, b in self._connection.execute(query)}

    def summary(self, number: int) -> tuple[int, int, int, int, int]:
        """First stamp, last stamp, steps, filled steps and revisions of a series."""
        rows = self.history([number])
        query = sa.select(sa.func.count()).where(observation.c.series == number)
        stored = int(self._connection.execute(query).scalar_one())
        first, last = int(rows.ds[0]), int(rows.ds[-1])
        return first, last, len(rows), int(rows.filled.sum()), stored - len(rows)

    def add_series(
        self, unique_ids: Sequence[str], static: Mapping[str, Mapping[str, Any]]
    ) -> list[int]:
        """Number series never seen before; numbers rise in the order given."""
        highest = self._connection.execute(sa.select(sa.func.max(series.c.series))).scalar_one()
        start, now = (highest or 0) + 1, _now()
        rows = [
            {
                "series": start + i,
                "unique_id": name,
                "static": _to_json(static.get(name, {})),
                "created_at": now,
            }
            for i, name in enumerate(unique_ids)
        ]
        if rows:
            self._connection.execute(sa.insert(series), rows)
        return list(range(start, start + len(rows)))

    def history(self, numbers: Sequence[int]) -> Rows:
        """Every step of these series with its latest value, ordered by series and stamp."""
        c = observation.c
        columns = [c.series, c.ds, c.y, c.filled, *([c.covariates] if self._covariates else [])]
        found: list[Any] = []
        for part, whole in _parts(numbers):
            some = c.series.between(part[0], part[-1]) if whole else c.series.in_(part)
            query = sa.select(*columns).where(some).order_by(c.series, c.ds, c.revision)
            found += self._connection.execute(query).all()
        return self._rows(found)

    def current(self, keys: Mapping[int, Sequence[int]]) -> Rows:
        """The latest value of some stamps of some series; stamps that have none are left out."""
        c = observation.c
        columns = [c.series, c.ds, c.y, c.filled, *([c.covariates] if self._covariates else [])]
        found: list[Any] = []
        for number in sorted(keys):
            stamps = sorted(keys[number])
            for start in range(0, len(stamps), _IN):
                part = stamps[start : start + _IN]
                query = sa.select(*columns).where(c.series == number, c.ds.in_(part))
                found += self._connection.execute(query.order_by(c.ds, c.revision)).all()
        return self._rows(found)

    def append(self, rows: Rows, *, revise: bool = False) -> None:
        """
        Store observations, in any order.

        Args:
            rows: Their `series` are numbers of the log.
            revise: Whether these stamps are stored already and get the next revision.
        """
        if not len(rows):
            return
        now = _now()
        revisions = self._next_revisions(rows) if revise else [1] * len(rows)
        table = zip(
            rows.series.tolist(), rows.ds.tolist(), revisions, _nullable(rows.y),
            _texts(rows.covariates, self._covariates), rows.filled.tolist(), strict=True,
        )  # fmt: skip
        names = ("series", "ds", "revision", "y", "covariates", "filled", "recorded_at")
        values = [dict(zip(names, (*row, now), strict=True)) for row in table]
        self._connection.execute(sa.insert(observation), values)

    def _next_revisions(self, rows: Rows) -> list[int]:
        c = observation.c
        found = []
        for number, ds in zip(rows.series.tolist(), rows.ds.tolist(), strict=True):
            query = sa.select(sa.func.max(c.revision)).where(c.series == number, c.ds == ds)
            found.append(int(self._connection.execute(query).scalar_one()) + 1)
        return found

    def _rows(self, found: list[Any]) -> Rows:
        """Keep the last revision of each stamp; `found` is ordered by series, stamp, revision."""
        if not found:
            none = np.empty(0, np.int64)
            return Rows(
                none, none, np.empty(0), np.empty((0, len(self._covariates))), none.astype(bool)
            )
        numbers, stamps, y, filled, *texts = zip(*found, strict=True)
        series_, ds = np.array(numbers, np.int64), np.array(stamps, np.int64)
        latest = np.r_[(series_[1:] != series_[:-1]) | (ds[1:] != ds[:-1]), True]
        rows = Rows(
            series_, ds, np.array(y, np.float64),
            _numbers(texts[0] if texts else (), len(found), self._covariates),
            np.array(filled, bool),
        )  # fmt: skip
        return rows if latest.all() else rows.take(latest)


def _engine(address: sa.URL) -> sa.Engine:
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
def _only_writer(engine: sa.Engine, address: sa.URL, place: str) -> Iterator[None]:
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


def _parts(numbers: Sequence[int]) -> Iterator[tuple[Sequence[int], bool]]:
    """Slices for one query each, and whether a slice is every number between its ends."""
    ordered = sorted(numbers)
    if ordered and ordered[-1] - ordered[0] + 1 == len(ordered):
        yield ordered, True
        return
    for start in range(0, len(ordered), _IN):
        yield ordered[start : start + _IN], False


def _nullable(y: Float[np.ndarray, " row"]) -> list[float | None]:
    gone = np.isnan(y)
    values: list[float | None] = y.tolist()
    for row in np.flatnonzero(gone).tolist():
        values[row] = None
    return values


def _texts(
    covariates: Float[np.ndarray, "row covariate"], names: tuple[str, ...]
) -> Iterable[str | None]:
    if not names:
        return [None] * len(covariates)
    return [json.dumps(dict(zip(names, row, strict=True))) for row in covariates.tolist()]


def _numbers(
    texts: Sequence[str | None], rows: int, names: tuple[str, ...]
) -> Float[np.ndarray, "row covariate"]:
    table = np.full((rows, len(names)), np.nan)
    for row, text in enumerate(texts):
        values = json.loads(text or "{}")
        table[row] = [values.get(name, np.nan) for name in names]
    return table


def _to_json(values: Mapping[str, Any]) -> str | None:
    return json.dumps(values, sort_keys=True) if values else None


def _now() -> int:
    return time.time_ns() // 1_000_000


def _reason(error: Exception) -> str:
    return str(getattr(error, "orig", None) or error).partition("\n")[0]

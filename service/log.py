"""
The observation log: append-only, with revisions. It is the truth; states are a cache of it.

A series has a row for every step from its first to its last; a step filled by policy is a row
marked `filled`. Correcting a value appends a row with the next revision; the highest revision
counts. One process writes (held by a lock), in transactions that are on the disk when they
return: SQLite in WAL mode with `synchronous=FULL`, or PostgreSQL.
"""

import contextlib
import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import sqlalchemy as sa

from forecast.calendars import Calendar
from forecast.config import DataConfig
from forecast.frames import check, read_table
from forecast.rows import Rows as FoundRows
from forecast.rows import problems, read_rows
from forecast.tables import need_columns
from service.errors import LogError, LogFrequency, Refused
from service.observing import STATUSES, Known, with_values
from service.observing import plan as plan_batch
from service.rows import Entry, Rows, from_texts, nullable, to_json, to_texts
from service.tables import meta, metadata, observation, only_writer, open_engine, series

SCHEMA_VERSION = 1
logger = logging.getLogger("service.log")
_IN = 500
"""Values in one `IN (...)`; SQLite allows 32,766."""


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
        try:
            with contextlib.ExitStack() as guard:
                address = sa.make_url(url)
                self.place = address.render_as_string(hide_password=True)
                self._engine = open_engine(address)
                guard.callback(self._engine.dispose)
                guard.enter_context(only_writer(self._engine, address, self.place))
                metadata.create_all(self._engine)
                self._check_version()
                self._guard = guard.pop_all()
        except (sa.exc.SQLAlchemyError, OSError, ImportError) as error:
            raise LogError(
                f"the observation log cannot be opened ({type(error).__name__})",
                where=f"{url.rpartition('@')[2]}: {_reason(error)}",
                help="check STATECAST_DATABASE_URL, the folder's rights and free space",
            ) from error

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
        except sa.exc.DBAPIError as error:
            logger.error("%s: %s", self.place, _reason(error))  # noqa: TRY400 - told in short
            raise LogError(
                f"the observation log cannot be written ({type(error).__name__})",
                help="send it again: nothing is stored twice; the server's log tells the reason",
            ) from error

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
        self.covariates = covariates

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

    def find(self, unique_ids: Sequence[str]) -> list[Entry]:
        """Those of the series that are there, in no order."""
        entries = []
        for start in range(0, len(unique_ids), _IN):
            some = series.c.unique_id.in_(unique_ids[start : start + _IN])
            query = sa.select(series.c.series, series.c.unique_id, series.c.static).where(some)
            entries += [Entry(n, name, json.loads(static or "{}"))
                        for n, name, static in self._connection.execute(query)]  # fmt: skip
        return entries

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
                "static": to_json(static.get(name, {})),
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
        columns = [c.series, c.ds, c.y, c.filled, *([c.covariates] if self.covariates else [])]
        found: list[Any] = []
        for part, whole in _parts(numbers):
            some = c.series.between(part[0], part[-1]) if whole else c.series.in_(part)
            query = sa.select(*columns).where(some).order_by(c.series, c.ds, c.revision)
            found += self._tuples(query)
        return self._rows(found)

    def current(self, asked: Rows, numbers: Sequence[int]) -> Rows:
        """
        The latest values of the stamps in `asked`, ordered alike; those not stored are left out.

        Args:
            asked: Its `series` count through `numbers`, as those of the answer do.
            numbers: Of series in the log.
        """
        c = observation.c
        columns = [c.series, c.ds, c.y, c.filled, *([c.covariates] if self.covariates else [])]
        parts = []
        for row in np.unique(asked.series).tolist():
            stamps = np.unique(asked.ds[asked.series == row]).tolist()
            found: list[Any] = []
            for start in range(0, len(stamps), _IN):
                some = c.ds.in_(stamps[start : start + _IN])
                query = sa.select(*columns).where(c.series == numbers[row], some)
                found += self._tuples(query.order_by(c.ds, c.revision))
            part = self._rows(found)
            parts.append(replace(part, series=np.full(len(part), row)))
        return Rows.concat(parts) if parts else asked

    def append(self, rows: Rows, *, revise: bool = False) -> None:
        """
        Store observations, in any order.

        Args:
            rows: Their `series` are numbers of the log.
            revise: Whether these stamps are stored already and get the next revision.
        """
        if not len(rows):
            return
        revisions = self._next_revisions(rows) if revise else [1] * len(rows)
        columns = (
            rows.series.tolist(), rows.ds.tolist(), revisions, nullable(rows.y),
            to_texts(rows.covariates, self.covariates), rows.filled.tolist(), [_now()] * len(rows),
        )  # fmt: skip
        self._connection.exec_driver_sql(self._insert, list(zip(*columns, strict=True)))

    @property
    def _insert(self) -> str:
        """Plain SQL: the driver takes tuples as they are, three times as fast as by name."""
        mark = "?" if self._connection.dialect.paramstyle == "qmark" else "%s"
        names = [column.name for column in observation.columns]
        marks = ", ".join([mark] * len(names))
        return f"insert into observation ({', '.join(names)}) values ({marks})"

    def _tuples(self, query: sa.Select[Any]) -> Sequence[Any]:
        """All rows as the driver gives them: wrapping each would take longer than reading it."""
        with self._connection.execute(query) as result:
            assert result.cursor is not None
            return result.cursor.fetchall()

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
                none, none, np.empty(0), np.empty((0, len(self.covariates))), none.astype(bool)
            )
        numbers, stamps, y, filled, *texts = zip(*found, strict=True)
        series_, ds = np.array(numbers, np.int64), np.array(stamps, np.int64)
        latest = np.r_[(series_[1:] != series_[:-1]) | (ds[1:] != ds[:-1]), True]
        rows = Rows(
            series_, ds, np.array(y, np.float64),
            from_texts(texts[0] if texts else (), len(found), self.covariates),
            np.array(filled, bool),
        )  # fmt: skip
        return rows if latest.all() else rows.take(latest)


def _parts(numbers: Sequence[int]) -> Iterator[tuple[Sequence[int], bool]]:
    """Slices for one query each, and whether a slice is every number between its ends."""
    ordered = sorted(numbers)
    if ordered and ordered[-1] - ordered[0] + 1 == len(ordered):
        yield ordered, True
        return
    for start in range(0, len(ordered), _IN):
        yield ordered[start : start + _IN], False


def _now() -> int:
    return time.time_ns() // 1_000_000


def _reason(error: Exception) -> str:
    return str(getattr(error, "orig", None) or error).partition("\n")[0]


def import_history(
    database_url: str, table: Any, data: DataConfig, *, query: str | None = None
) -> dict[str, int]:
    """
    Read a table into the log without a server: all of it, or nothing.

    Args:
        database_url: Of the log; no server may have it open.
        table: Anything `forecast.frames.read_table` takes, one row per series and stamp.
        data: Roles, frequency and fill policy, as the model that will serve has them (its
            bundle's `config.data`).
        query: SQL, when `table` is a database URL.

    Returns:
        Counts: `rows`, `series`, `created` (series), `new`, `duplicate`, `revised`, `filled`.

    Raises:
        DataError: The table has a fault, or does not go on where the log ends.
        LogLocked, LogError: The log cannot be written.
    """
    frame = read_table(table, query=query)
    found = read_rows(frame, data)
    calendar = Calendar(data.freq) if data.freq is not None else check(frame, data).calendar
    for problem in problems(found, data, calendar):
        raise problem
    log = Log(database_url, (*data.known_future, *data.past_only))
    try:
        log.bind_calendar(calendar)
        with log.write() as transaction:
            return _import(transaction, found, _static(frame, data), data, calendar)
    except Refused as refusal:
        raise refusal.error from None
    finally:
        log.close()


def _import(
    transaction: "Transaction",
    found: FoundRows,
    static: Mapping[str, Mapping[str, Any]],
    data: DataConfig,
    calendar: Calendar,
) -> dict[str, int]:
    names = transaction.covariates
    numbers = {entry.unique_id: entry.number for entry in transaction.entries()}
    spans = transaction.spans()
    ends = [spans.get(numbers.get(name, -1)) for name in found.names]
    known = Known(
        found.names,
        np.array([span[0] if span else 0 for span in ends], np.int64),
        np.array([span[1] if span else 0 for span in ends], np.int64),
        np.array([span is None for span in ends]),
    )
    columns = [found.covariates[name] for name in names]
    rows = Rows(
        found.series, found.stamps, found.y,
        np.stack(columns, axis=1) if columns else np.empty((len(found.y), 0)),
        np.zeros(len(found.y), bool),
    )  # fmt: skip
    rows = with_values(rows, data.fill)

    def stored(asked: Rows) -> Rows:
        return transaction.current(asked, [numbers.get(name, -1) for name in found.names])

    plan = plan_batch(
        rows, known, stored, data, calendar, max_fill=10_000_000, pointer=lambda row: f"row {row}"
    )
    fresh = [found.names[row] for row in np.unique(rows.series) if ends[row] is None]
    numbers |= dict(zip(fresh, transaction.add_series(fresh, static), strict=True))
    number = np.array([numbers.get(name, -1) for name in found.names], np.int64)
    transaction.append(replace(plan.fresh, series=number[plan.fresh.series]))
    transaction.append(replace(plan.revised, series=number[plan.revised.series]), revise=True)
    counts = np.bincount(plan.status, minlength=len(STATUSES)).tolist()
    return {
        "rows": len(rows),
        "series": len(found.names),
        "created": len(fresh),
        **dict(zip(STATUSES, counts, strict=True)),
        "filled": plan.filled,
    }


def _static(frame: pd.DataFrame, data: DataConfig) -> dict[str, dict[str, Any]]:
    """Static covariates by series, as the first row of each has them."""
    if not data.static:
        return {}
    need_columns(frame, data, ("static",))
    first = frame.drop_duplicates(data.id_col).set_index(data.id_col)[list(data.static)]
    rows = first.to_dict("index").items()
    return {str(name): {str(k): v for k, v in row.items()} for name, row in rows}

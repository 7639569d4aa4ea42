"""Tests of the observation log on SQLite and on PostgreSQL, and of importing history into it."""

import contextlib
import socket
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa

from forecast.calendars.calendar import Calendar
from forecast.config import DataConfig
from forecast.errors import DuplicateStamps, LateValues, MissingSteps
from service.errors import LogError, LogFrequency, LogLocked
from service.ingest.importer import import_history
from service.storage import schema as tables
from service.storage.log import ObservationLog
from service.storage.records import Observations
from tests.helpers.hosts import MONTHLY
from tests.helpers.service import empty_database, read_log


def test_imported_history_is_stored_unchanged(url, monthly):
    """Every series, stamp and value is stored, in order."""
    counts = import_history(url, monthly, MONTHLY)

    names, rows = read_log(url)
    assert counts == {
        "rows": 600,
        "series": 5,
        "created": 5,
        "new": 600,
        "duplicate": 0,
        "revised": 0,
        "filled": 0,
    }
    expected = monthly.sort_values(["unique_id", "ds"])
    assert names == sorted(monthly["unique_id"].unique())
    np.testing.assert_array_equal(rows.y, expected["y"])
    np.testing.assert_array_equal(rows.ds, expected["ds"].astype("datetime64[ns]").astype("int64"))


def test_importing_again_adds_only_what_is_new(url, monthly):
    """Known rows count as duplicates, corrections become revisions, and new steps are appended."""
    older = monthly[monthly["ds"] < "2018-12-01"]
    import_history(url, older, MONTHLY)
    changed = monthly.copy()
    changed.loc[changed.index[3], "y"] += 1.0

    counts = import_history(url, changed, MONTHLY)

    assert (counts["created"], counts["new"], counts["revised"]) == (0, 5, 1)
    assert counts["duplicate"] == len(older) - 1
    _, rows = read_log(url)
    np.testing.assert_array_equal(rows.y, changed.sort_values(["unique_id", "ds"])["y"])


def test_covariates_and_static_columns_are_read_back_by_name(url, weekly):
    """The reader chooses the order of the covariates."""
    data = DataConfig(
        freq="W-THU", known_future=("price", "deal"), past_only=("feat",), static=("brand", "store")
    )

    import_history(url, weekly, data)

    _, rows = read_log(url, ("feat", "price"))
    expected = weekly.sort_values(["unique_id", "ds"])
    np.testing.assert_array_equal(rows.covariates, expected[["feat", "price"]])
    log = ObservationLog(url)
    with log.read() as transaction:
        first = transaction.entries()[0]
    log.close()
    assert first.static == {"brand": weekly["brand"].iloc[0], "store": weekly["store"].iloc[0]}


@pytest.mark.parametrize("fill", ["zero", "forward", "mask"])
def test_gaps_of_a_file_are_filled_as_declared_and_marked(url, monthly, fill):
    """A flag distinguishes filled values from reported ones."""
    gappy = monthly.drop(index=[10, 11, 50])

    counts = import_history(url, gappy, replace(MONTHLY, fill=fill))

    _, rows = read_log(url)
    last_values = monthly["y"].to_numpy()[[9, 9, 49]]
    expected = {"zero": [0.0] * 3, "forward": last_values, "mask": [np.nan] * 3}[fill]
    assert counts["filled"] == 3
    np.testing.assert_array_equal(np.flatnonzero(rows.filled), [10, 11, 50])
    np.testing.assert_array_equal(rows.y[rows.filled], expected)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda t: t.drop(index=[10]), MissingSteps),
        (lambda t: pd.concat([t, t.iloc[:1].assign(y=0.5)]), DuplicateStamps),
        (lambda t: t.assign(ds=t["ds"] - pd.DateOffset(years=30)), LateValues),
    ],
)
def test_a_file_with_a_fault_changes_nothing(url, monthly, change, error):
    """It is refused as a whole."""
    import_history(url, monthly, MONTHLY)

    with pytest.raises(error):
        import_history(url, change(monthly), MONTHLY)

    assert len(read_log(url)[1]) == 600


def test_a_failed_transaction_is_rolled_back(url):
    """Neither its series nor its observations are stored."""
    log = ObservationLog(url)
    log.bind_calendar(Calendar(1))
    rows = Observations(
        np.array([1]), np.array([0]), np.array([1.0]), np.empty((1, 0)), np.array([False])
    )

    def fail_half_way() -> None:
        with log.write() as transaction:
            transaction.add_series(["a"], {})
            transaction.append(rows)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_half_way()

    with log.read() as transaction:
        assert transaction.entries() == []
    log.close()


def test_only_one_process_writes_a_file(tmp_path):
    """A second process is refused until the first has closed the log."""
    url = f"sqlite:///{tmp_path / 'log.db'}"
    log = ObservationLog(url)
    with pytest.raises(LogLocked):
        ObservationLog(url)
    log.close()
    ObservationLog(url).close()


def test_a_log_has_one_frequency(url):
    """A log of months refuses integer stamps."""
    log = ObservationLog(url)
    log.bind_calendar(Calendar("MS"))
    log.bind_calendar(Calendar("MS"))
    with pytest.raises(LogFrequency, match="freq='MS'"):
        log.bind_calendar(Calendar(1))
    log.close()


def test_sqlite_is_durable_and_lets_readers_in(tmp_path):
    """With WAL and synchronous=FULL (2) an acknowledged write survives a power failure."""
    log = ObservationLog(f"sqlite:///{tmp_path / 'log.db'}")
    with log._engine.connect() as connection:
        assert connection.exec_driver_sql("pragma journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("pragma synchronous").scalar() == 2
    log.close()


def test_a_write_waits_for_another_program_that_holds_the_file(tmp_path):
    """An operator's own transaction delays a write but does not make it fail."""
    log, numbers = ObservationLog(f"sqlite:///{tmp_path / 'log.db'}"), []

    def write() -> None:
        with log.write() as transaction:
            numbers.extend(transaction.add_series(["a"], {}))

    with contextlib.closing(sqlite3.connect(tmp_path / "log.db")) as operator:
        operator.execute("begin immediate")
        with ThreadPoolExecutor(1) as pool:
            pending = pool.submit(write)
            with pytest.raises(FutureTimeout):
                pending.result(0.5)
            operator.rollback()
            pending.result(30)
    log.close()
    assert numbers == [1]


def test_a_write_fails_when_another_session_never_releases_its_lock(postgres, monkeypatch):
    """The wait ends after half a minute, here shortened to one second."""
    monkeypatch.setattr("service.storage.database._LOCK_S", 1)
    url = empty_database(postgres)
    log = ObservationLog(url)
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.connect() as session:
        session.execute(sa.select(tables.head).with_for_update())
        with pytest.raises(LogError, match="another session holds it"), log.write():
            pass
    with log.write() as transaction:
        transaction.add_series(["a"], {})
    log.close()


@pytest.mark.parametrize(
    "url",
    [
        "sqlite://",
        "sqlite:////proc/nowhere/log.db",
        "nonsense://x/y",
        "postgresql+psycopg://u:p@host:port/x",
    ],
)
def test_an_unusable_database_url_is_refused(url):
    """It may name memory, a folder that cannot exist, an unknown dialect or a bad port."""
    with pytest.raises(LogError):
        ObservationLog(url)


def test_connecting_to_a_silent_database_times_out():
    """The default timeout is ten seconds; the message gives the cause, but not the password."""
    start = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(LogError, match="connection timeout expired") as default:
            ObservationLog(f"postgresql+psycopg://reader:secret@127.0.0.1:{port}/sales")
        assert time.monotonic() - start < 30
        with pytest.raises(LogError) as explicit:
            ObservationLog(
                f"postgresql+psycopg://127.0.0.1:{port}/sales?password=secret&connect_timeout=2"
            )
    assert "secret" not in str(default.value) + str(explicit.value)


def test_history_is_imported_quickly(tmp_path):
    """The floor of 20,000 rows per second suits a slow machine; usual is well above 100,000."""
    rows = 50_000
    table = pd.DataFrame(
        {
            "unique_id": np.repeat([f"s{i}" for i in range(50)], rows // 50),
            "ds": np.tile(np.arange(rows // 50), 50),
            "y": np.arange(rows, dtype=float),
        }
    )
    start = time.perf_counter()

    import_history(f"sqlite:///{tmp_path / 'log.db'}", table, DataConfig(freq=1))

    assert rows / (time.perf_counter() - start) > 20_000

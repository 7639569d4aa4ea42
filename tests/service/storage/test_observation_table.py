"""Tests of the observation table: rows are clustered by time bucket, and every read finds them."""

from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa

from forecast.calendars.calendar import Calendar
from service.storage.log import ObservationLog
from service.storage.observation_table import BUCKET_STEPS, Cuts
from service.storage.records import Observations
from tests.helpers.service import run_sql
from tests.service.storage.test_migrations import FIRST


def rows_of(series: np.ndarray, ds: np.ndarray, y: np.ndarray | None = None) -> Observations:
    """Return observations without covariates; each value is its stamp unless `y` is passed."""
    values = ds.astype(float) if y is None else y
    return Observations(series, ds, values, np.empty((len(ds), 0)), np.zeros(len(ds), bool))


def create_log(url: str, first: dict[str, int], until: int) -> ObservationLog:
    """Create a log of integer steps: each series has the steps from its `first` up to `until`."""
    log = ObservationLog(url)
    log.bind_calendar(Calendar(1))
    with log.write() as transaction:
        numbers = transaction.add_series(list(first), {})
        for number, start in zip(numbers, first.values(), strict=True):
            ds = np.arange(start, until)
            transaction.append(rows_of(np.full(len(ds), number), ds))
    return log


def test_series_that_begin_far_apart_are_read_in_order(url):
    """Steps may be negative, lie many buckets apart, or begin inside a bucket."""
    first = {"a": -40, "b": 7, "c": 10_000}
    log = create_log(url, first, 10_020)

    with log.read() as transaction:
        rows = transaction.history([1, 2, 3])
        outer = transaction.history([1, 3])
        spans = transaction.spans([1, 2, 3, 4])
    log.close()

    expected = [np.arange(start, 10_020) for start in first.values()]
    np.testing.assert_array_equal(rows.ds, np.concatenate(expected))
    np.testing.assert_array_equal(rows.series, np.repeat([1, 2, 3], [len(ds) for ds in expected]))
    np.testing.assert_array_equal(rows.y, rows.ds)
    np.testing.assert_array_equal(outer.ds, np.concatenate([expected[0], expected[2]]))
    assert spans == {1: (-40, 10_019), 2: (7, 10_019), 3: (10_000, 10_019)}


def test_current_returns_the_last_revision_of_requested_stamps_only(url):
    """The request spans several series and buckets, and some of its stamps are not stored."""
    log = create_log(url, {"a": 0, "b": 0}, 100)
    with log.write() as transaction:
        for value in (1.0, 2.0):
            revisions = rows_of(np.array([2, 1]), np.array([50, 3]), np.full(2, value))
            transaction.append(revisions, revise=True)

    requested = rows_of(np.array([0, 1, 1, 1]), np.array([3, 50, 51, 100]))
    with log.read() as transaction:
        current = transaction.current(requested, [2, 1])
        history = transaction.history([1, 2])
    log.close()

    assert (current.series.tolist(), current.ds.tolist()) == ([0, 1, 1], [3, 50, 51])
    assert current.y.tolist() == [3.0, 50.0, 51.0]
    assert (len(history), history.y[3], history.y[150]) == (200, 2.0, 2.0)


def test_each_series_has_its_own_cut(url):
    """A cut may lie inside a bucket, at its beginning, or before the first step."""
    log = create_log(url, {"a": 0, "b": 5, "c": 90}, 100)
    cuts = Cuts(np.array([1, 2, 3]), np.array([3 * BUCKET_STEPS, 41, 10]))

    with log.write() as transaction:
        before = transaction.history_before(cuts)
        sums = transaction.sums_before(cuts)
        observed = transaction.first_observed(cuts)

    log.close()
    np.testing.assert_array_equal(before.ds, np.r_[np.arange(48), np.arange(5, 41)])
    assert {number: total.steps for number, total in sums.items()} == {1: 48, 2: 36}
    assert observed == {1: 48, 2: 41, 3: 90}


def count_pages_written(log: ObservationLog, day: int, series: int) -> float:
    """Append one step to every series, and return how many pages SQLite wrote."""
    run_sql(log.url, "pragma wal_checkpoint(truncate)")
    with log.write() as transaction:
        transaction.append(rows_of(np.arange(series) + 1, np.full(series, day)))
    return Path(f"{sa.make_url(log.url).database}-wal").stat().st_size / 4096


def test_a_step_of_all_series_writes_few_pages_in_a_long_log(tmp_path):
    """Rows clustered by series would need one page per series, which is 2,000 pages."""
    series, steps = 2_000, 320
    log = create_log(f"sqlite:///{tmp_path / 'log.db'}", {f"s{i}": 0 for i in range(series)}, steps)

    written = [count_pages_written(log, steps + step, series) for step in range(BUCKET_STEPS)]

    log.close()
    assert max(written) < series / 3


@pytest.mark.parametrize("freq", ['"MS"', '"D"', "1"])
def test_a_migration_moves_every_row_into_its_bucket(url, freq):
    """Stamps before 1970 and stamps decades apart are found as well."""
    stamps = [-(10**17) - 1, -(10**16), -5, -1, 0, 1, 10**16, 10**18]
    values = ", ".join(f"(2, {ds}, 1, {i}.0, null, false, 0)" for i, ds in enumerate(stamps))
    run_sql(
        url,
        *FIRST,
        f"update meta set value = '{freq}' where key = 'freq'",
        "insert into series values (2, 'b', null, 0)",
        f"insert into observation values {values}",
        "insert into observation values (2, 10000000000000000, 2, 66.0, null, false, 0)",
    )

    log = ObservationLog(url)
    with log.read() as transaction:
        rows = transaction.history([1, 2])
        current = transaction.current(rows_of(np.zeros(8, int), np.array(stamps)), [2])
    log.close()

    assert rows.ds.tolist() == [0, *stamps]
    assert rows.y.tolist() == [6.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 66.0, 7.0]
    assert current.y.tolist() == rows.y.tolist()[1:]

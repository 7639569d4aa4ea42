"""Where observations lie in the log, and that they are found there."""

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
    """Without covariates."""
    values = ds.astype(float) if y is None else y
    return Observations(series, ds, values, np.empty((len(ds), 0)), np.zeros(len(ds), bool))


def begin(url: str, first: dict[str, int], until: int) -> ObservationLog:
    """A log of integer steps, every series from its own first step on."""
    log = ObservationLog(url)
    log.bind_calendar(Calendar(1))
    with log.write() as transaction:
        numbers = transaction.add_series(list(first), {})
        for number, start in zip(numbers, first.values(), strict=True):
            ds = np.arange(start, until)
            transaction.append(rows_of(np.full(len(ds), number), ds))
    return log


def test_series_that_begin_far_apart_are_read_in_order(url):
    """Steps below 0, gaps of many buckets between series, and steps that no bucket begins with."""
    first = {"a": -40, "b": 7, "c": 10_000}
    log = begin(url, first, 10_020)

    with log.read() as transaction:
        rows = transaction.history([1, 2, 3])
        apart = transaction.history([1, 3])
        spans = transaction.spans([1, 2, 3, 4])
    log.close()

    expected = [np.arange(start, 10_020) for start in first.values()]
    np.testing.assert_array_equal(rows.ds, np.concatenate(expected))
    np.testing.assert_array_equal(rows.series, np.repeat([1, 2, 3], [len(e) for e in expected]))
    np.testing.assert_array_equal(rows.y, rows.ds)
    np.testing.assert_array_equal(apart.ds, np.concatenate([expected[0], expected[2]]))
    assert spans == {1: (-40, 10_019), 2: (7, 10_019), 3: (10_000, 10_019)}


def test_the_last_revision_counts_and_only_what_is_asked_for_is_found(url):
    """Stamps of several series and buckets, some of them not stored."""
    log = begin(url, {"a": 0, "b": 0}, 100)
    with log.write() as transaction:
        for value in (1.0, 2.0):
            again = rows_of(np.array([2, 1]), np.array([50, 3]), np.full(2, value))
            transaction.append(again, revise=True)

    asked = rows_of(np.array([0, 1, 1, 1]), np.array([3, 50, 51, 100]))
    with log.read() as transaction:
        found = transaction.current(asked, [2, 1])
        history = transaction.history([1, 2])
    log.close()

    assert (found.series.tolist(), found.ds.tolist()) == ([0, 1, 1], [3, 50, 51])
    assert found.y.tolist() == [3.0, 50.0, 51.0]
    assert (len(history), history.y[3], history.y[150]) == (200, 2.0, 2.0)


def test_what_lies_before_a_cut_is_found_series_by_series(url):
    """Cuts inside a bucket, at its beginning, and before all there is."""
    log = begin(url, {"a": 0, "b": 5, "c": 90}, 100)
    cuts = Cuts(np.array([1, 2, 3]), np.array([3 * BUCKET_STEPS, 41, 10]))

    with log.write() as transaction:
        before = transaction.history_before(cuts)
        doomed = transaction.sums_before(cuts)
        observed = transaction.first_observed(cuts)

    log.close()
    np.testing.assert_array_equal(before.ds, np.r_[np.arange(48), np.arange(5, 41)])
    assert {number: some.steps for number, some in doomed.items()} == {1: 48, 2: 36}
    assert observed == {1: 48, 2: 41, 3: 90}


def pages(log: ObservationLog, day: int, series: int) -> float:
    """Pages written for a new step of every series."""
    run_sql(log.url, "pragma wal_checkpoint(truncate)")
    with log.write() as transaction:
        transaction.append(rows_of(np.arange(series) + 1, np.full(series, day)))
    return Path(f"{sa.make_url(log.url).database}-wal").stat().st_size / 4096


def test_a_step_of_all_series_touches_few_pages_however_long_the_log(tmp_path):
    """A page each would be 2,000, and was before they lay by bucket."""
    series, steps = 2_000, 320
    log = begin(f"sqlite:///{tmp_path / 'log.db'}", {f"s{i}": 0 for i in range(series)}, steps)

    touched = [pages(log, steps + step, series) for step in range(BUCKET_STEPS)]

    log.close()
    assert max(touched) < series / 3


@pytest.mark.parametrize("freq", ['"MS"', '"D"', "1"])
def test_an_older_log_is_put_in_its_new_order(url, freq):
    """Every stamp is found where it is looked for, those before 1970 and by the year too."""
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
        found = transaction.current(rows_of(np.zeros(8, int), np.array(stamps)), [2])
    log.close()

    assert rows.ds.tolist() == [0, *stamps]
    assert rows.y.tolist() == [6.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 66.0, 7.0]
    assert found.y.tolist() == rows.y.tolist()[1:]

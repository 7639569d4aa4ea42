"""The plan for a batch equals that of a slow loop over single observations."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forecast.calendars.calendar import Calendar
from forecast.config import DataConfig
from service.errors import Refused
from service.ingest.planner import DUPLICATE, NEW, REVISED, Known, Plan, plan
from service.storage.records import Observations

CALENDAR = Calendar(1)

logs = st.dictionaries(
    st.integers(0, 2),
    st.tuples(st.integers(0, 5), st.lists(st.integers(0, 3), min_size=1, max_size=5)),
    max_size=3,
)
"""For each series, the first stamp and the values of the steps from there on."""
batches = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 14), st.integers(0, 3)), min_size=1, max_size=10
)
"""Items of (series, stamp, value)."""


def rows_of(triples: list[tuple[int, int, float]]) -> Observations:
    """Return observations without covariates, from items of (series, stamp, value)."""
    series, ds, y = (np.array(column) for column in zip(*triples, strict=True))
    return Observations(
        series.astype(np.int64),
        ds.astype(np.int64),
        y.astype(float),
        np.empty((len(y), 0)),
        np.zeros(len(y), bool),
    )


@pytest.mark.parametrize(
    ("kind", "y", "message"),
    [
        ("positive", -1, "negative"),
        ("count", -1, "negative"),
        ("price", 0, "not above 0"),
        ("volatility", 0, "not above 0"),
    ],
)
def test_a_value_that_the_kind_forbids_is_refused(kind, y, message):
    """The kind `real` accepts the same value."""
    rows = rows_of([(0, 1, y)])
    nothing = np.zeros(1, np.int64)
    known = Known(["a"], nothing, nothing, np.ones(1, bool))

    def plan_for(kind: str):
        return plan(
            rows,
            known,
            lambda steps: steps,
            DataConfig(kind=kind),
            CALENDAR,
            max_fill=0,
            max_rows=0,
            pointer=str,
        )

    with pytest.raises(Refused, match=message):
        plan_for(kind)
    assert plan_for("real").status.tolist() == [NEW]


def store_one_by_one(
    log: dict, batch: list, fill: str, max_fill: int
) -> tuple[dict, list[int]] | None:
    """Return the log after the batch and the status of each item; None if it is refused."""
    after = {s: dict(enumerate(map(float, values), first)) for s, (first, values) in log.items()}
    begin = {s: min(values) for s, values in after.items()}
    end = {s: max(values) for s, values in after.items()}
    status, sent = [NEW] * len(batch), {}
    order = sorted(range(len(batch)), key=lambda i: (batch[i][0], batch[i][1], i))
    for i in order:
        s, ds, y = batch[i]
        if (s, ds) in sent:
            if sent[s, ds] != y:
                return None
            status[i] = DUPLICATE
            continue
        sent[s, ds] = y
        mine = after.setdefault(s, {})
        if s in end and ds <= end[s]:
            if ds < begin[s]:
                return None
            status[i] = DUPLICATE if mine[ds] == y else REVISED
            mine[ds] = float(y)
            continue
        if mine:
            last = max(mine)
            gap = ds - last - 1
            if gap and (fill == "refuse" or gap > max_fill):
                return None
            last_y = log[s][1][-1] if s in log and last == end[s] else mine[last]
            for k in range(1, gap + 1):
                mine[last + k] = {"zero": 0.0, "forward": last_y, "mask": np.nan}[fill]
        mine[ds] = float(y)
    return after, status


def apply_plan(log: dict, planned: Plan, names: list[int]) -> dict:
    """Return the log after a plan."""
    after = {s: dict(enumerate(map(float, values), first)) for s, (first, values) in log.items()}
    for rows in (planned.revised, planned.fresh):
        for s, ds, y in zip(rows.series.tolist(), rows.ds.tolist(), rows.y.tolist(), strict=True):
            after.setdefault(names[s], {})[ds] = y
    return after


def is_same_log(a: dict, b: dict) -> bool:
    """Return whether stamps and values are equal; NaN equals NaN."""
    return a.keys() == b.keys() and all(
        x.keys() == b[s].keys()
        and all(x[t] == b[s][t] or (np.isnan(x[t]) and np.isnan(b[s][t])) for t in x)
        for s, x in a.items()
    )


@given(
    log=logs,
    batch=batches,
    fill=st.sampled_from(["refuse", "zero", "forward", "mask"]),
    max_fill=st.integers(0, 6),
)
def test_a_batch_is_planned_as_if_its_items_came_store_one_by_one(log, batch, fill, max_fill):
    """A batch is refused exactly if one of its items is."""
    rows = rows_of(batch)
    names = [0, 1, 2]
    spans = [(log[s][0], log[s][0] + len(log[s][1]) - 1) if s in log else (0, 0) for s in names]
    known = Known(
        [str(s) for s in names],
        np.array([a for a, _ in spans]),
        np.array([b for _, b in spans]),
        np.array([s not in log for s in names]),
    )

    def stored(steps: Observations) -> Observations:
        items = [
            (s, ds, log[s][1][ds - log[s][0]])
            for s, ds in zip(steps.series.tolist(), steps.ds.tolist(), strict=True)
            if s in log and 0 <= ds - log[s][0] < len(log[s][1])
        ]
        return rows_of(items) if items else steps.take(np.zeros(0, np.int64))

    expected = store_one_by_one(log, batch, fill, max_fill)
    try:
        planned = plan(
            rows,
            known,
            stored,
            DataConfig(freq=1, fill=fill),
            CALENDAR,
            max_fill=max_fill,
            max_rows=1_000,
            pointer=str,
        )
    except Refused:
        assert expected is None
        return

    assert expected is not None
    after, status = expected
    assert planned.status.tolist() == status
    assert is_same_log(apply_plan(log, planned, names), after)
    sent = {(s, t) for s, t, _ in batch}
    steps = zip(planned.fresh.series.tolist(), planned.fresh.ds.tolist(), strict=True)
    assert [step not in sent for step in steps] == planned.fresh.filled.tolist()

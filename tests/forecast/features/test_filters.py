"""The causal encoder: scan and step agree, and nothing depends on scale, order or company."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forecast.data.panel import Panel
from forecast.features.filter_spec import HETEROGENEOUS, MEANS, FilterSpec, Scalar
from forecast.features.filter_state import FilterState
from forecast.features.filters import advance
from forecast.features.origin import columns_at_origin, latest_seasons, lower_bound, season_offsets

SPECS = [
    FilterSpec(space="log", seasons=(4,), zeros=True, num_known=1, raw=(0,), amounts=(0,)),
    FilterSpec(space="linear", seasons=(3, 6), unit=None, num_past=1, raw=(0,), smoothers=True),
    FilterSpec(space="log", seasons=(5,), num_past=1, raw=(0,), smoothers=True),
    FilterSpec(
        space="ratio",
        seasons=(3,),
        trends=MEANS,
        unit=None,
        num_known=1,
        num_past=1,
        amounts=(0, 1),
        raw=(1,),
    ),
    FilterSpec(space="log", seasons=(5,), trends=HETEROGENEOUS, unit=0.5),
    FilterSpec(space="log", seasons=(), trends=(), unit=None),
]


def make_panel(spec: FilterSpec, lengths: list[int], seed: int) -> Panel:
    """Random series, of zeros too where they may be; some steps not observed, never the first."""
    rng = np.random.default_rng(seed)
    indptr = np.r_[0, np.cumsum(lengths)].astype(np.int64)
    total = int(indptr[-1])
    observed = rng.random(total) > 0.1
    observed[indptr[:-1][np.array(lengths) > 0]] = True
    values = np.where(observed, np.exp(rng.normal(3, 1, total)), 0.0)
    if spec.zeros:
        values[rng.random(total) < 0.2] = 0.0
    if spec.space == "linear":
        values -= 20.0 * observed
    if spec.space == "ratio":
        values = np.round(values / 30)
    return Panel(
        ids=tuple(f"s{i}" for i in range(len(lengths))),
        indptr=indptr,
        ds=np.concatenate([np.arange(n) for n in lengths]).astype(np.int64)
        if total
        else np.zeros(0, np.int64),
        values=values,
        observed=observed,
        known_future=rng.random((total, spec.num_known)).astype(np.float32),
        past_only=rng.random((total, spec.num_past)).astype(np.float32),
    )


def assert_same(a: FilterState, b: FilterState) -> None:
    """Bit for bit."""
    np.testing.assert_array_equal(a.count, b.count)
    np.testing.assert_array_equal(a.scalars, b.scalars)
    np.testing.assert_array_equal(a.rings, b.rings)


@given(
    spec=st.sampled_from(SPECS),
    lengths=st.lists(st.integers(0, 15), min_size=1, max_size=5),
    share=st.floats(0, 1),
    seed=st.integers(0, 999),
)
@settings(deadline=None)
def test_observing_in_parts_equals_observing_at_once(spec, lengths, share, seed):
    """Any cut gives the same state and the same features, to the bit."""
    panel = make_panel(spec, lengths, seed)
    cut = (np.array(lengths) * share).astype(np.int64)
    start = FilterState.initial(spec, len(lengths))

    whole, seen = advance(spec, start, panel)
    half, first = advance(spec, start, panel.head(cut))
    both, second = advance(spec, half, panel.tail(cut))

    assert_same(both, whole)
    head = np.concatenate([np.arange(n) < c for n, c in zip(lengths, cut, strict=True)])
    np.testing.assert_array_equal(seen.features[head.astype(bool)], first.features)
    np.testing.assert_array_equal(seen.features[~head.astype(bool)], second.features)


@pytest.mark.parametrize("spec", SPECS)
def test_series_do_not_touch_each_other(spec):
    """A series gives the same features alone and in company, and NaN-free beside wild ones."""
    panel = make_panel(spec, [12, 7, 9], seed=1)
    panel.values[panel.indptr[1] : panel.indptr[2]] = 1e30
    start = FilterState.initial(spec, 3)

    together, seen = advance(spec, start, panel)
    alone, only = advance(spec, start.take(np.array([2])), panel.take([2]))

    assert_same(together.take(np.array([2])), alone)
    np.testing.assert_array_equal(seen.features[panel.indptr[2] :], only.features)
    assert np.isfinite(only.features).all()


def test_features_do_not_depend_on_the_scale_of_positive_data():
    """Sales in thousands teach the same as sales in pieces."""
    spec = SPECS[0]
    panel = make_panel(spec, [30], seed=2)
    start = FilterState.initial(spec, 1)

    _, small = advance(spec, start, panel)
    panel.values[:] = 1000 * panel.values
    _, large = advance(spec, start, panel)

    np.testing.assert_allclose(small.features, large.features, atol=1e-4)


@pytest.mark.parametrize("zeros", [True, False])
def test_a_long_decline_is_read_as_it_is(zeros):
    """A price at a thousandth of its first value is that price; only a zero is lifted."""
    spec = FilterSpec(space="log", seasons=(), zeros=zeros)
    panel = make_panel(spec, [60], seed=4)
    panel.observed[:] = True
    panel.values[:] = 1000 * np.exp(-0.2 * np.arange(60))

    _, seen = advance(spec, FilterState.initial(spec, 1), panel)

    np.testing.assert_allclose(seen.columns[:, 0], np.log(panel.values), rtol=1e-5)


@pytest.mark.parametrize("spec", SPECS)
def test_a_state_tells_what_the_scan_told_of_its_last_step(spec):
    """Level, trends and seasonal values read from the state are those of the scan."""
    panel = make_panel(spec, [23], seed=3)

    state, seen = advance(spec, FilterState.initial(spec, 1), panel)
    columns, seasons = columns_at_origin(spec, state), latest_seasons(spec, state, 8)

    np.testing.assert_array_equal(columns[0], seen.columns[-1])
    first = spec.num_columns - len(spec.seasons)
    for i, season in enumerate(spec.seasons):
        at = 22 + season_offsets(season, 8)
        np.testing.assert_array_equal(seasons[0, i, 0], seen.columns[at, 0])
        np.testing.assert_array_equal(seasons[0, i, 1], seen.columns[at, first + i])


def shops(*series: np.ndarray, observed: np.ndarray | None = None) -> Panel:
    """Series of amounts, without covariates."""
    lengths = [len(y) for y in series]
    indptr, total = np.r_[0, np.cumsum(lengths)].astype(np.int64), sum(lengths)
    none = np.zeros((total, 0), np.float32)
    return Panel(
        ids=tuple(f"s{i}" for i in range(len(series))),
        indptr=indptr,
        ds=np.concatenate([np.arange(n) for n in lengths]),
        values=np.concatenate(series),
        observed=np.ones(total, np.bool_) if observed is None else observed,
        known_future=none,
        past_only=none,
    )


AMOUNTS = FilterSpec(space="log", seasons=(7,), zeros=True)


def open_days(number: int, seed: int = 0) -> np.ndarray:
    """What a shop sells on some days: about a hundred, by the day of the week."""
    week = 100 * (1 + 0.3 * np.sin(2 * np.pi * np.arange(number) / 7))
    return week * np.random.default_rng(seed).lognormal(0, 0.1, number)


def test_a_closed_shop_sinks_to_a_bound_and_comes_back():
    """Half a year of zeros: a zero stays within a thousandth, and two weeks of sales undo it."""
    days = open_days(600)
    days[300:480] = 0.0

    shut, _ = advance(AMOUNTS, FilterState.initial(AMOUNTS, 1), shops(days[:480]))
    again, _ = advance(AMOUNTS, shut, shops(days[480:495]))

    floor = shut.scalars[0, Scalar.LEVEL]
    assert np.log(100) - 7.2 < floor < np.log(100) - 6.6
    assert floor == pytest.approx(shut.scalars[0, Scalar.LAST], abs=1e-3)
    assert lower_bound(AMOUNTS, shut)[0] > shut.scalars[0, Scalar.LAST]  # such a forecast is a zero
    assert again.scalars[0, Scalar.LEVEL] == pytest.approx(np.log(100), abs=0.2)


@pytest.mark.parametrize("unit", [1e-4, 1.0, 1e4])
def test_a_series_begins_with_what_is_sold_first(unit):
    """Zeros before a launch say nothing of its scale: all goes on as if they were not there."""
    sold = unit * open_days(40)
    start = FilterState.initial(AMOUNTS, 2)

    state, seen = advance(AMOUNTS, start, shops(np.r_[np.zeros(10), sold], sold))

    assert state.count.tolist() == [50, 40]
    assert state.scalars[:, Scalar.GAP].tolist() == [10, 0]
    np.testing.assert_array_equal(seen.features[10:50], seen.features[50:])
    np.testing.assert_array_equal(*columns_at_origin(AMOUNTS, state))
    np.testing.assert_array_equal(*latest_seasons(AMOUNTS, state, 9))


def test_before_anything_is_sold_every_forecast_is_zero():
    """Whatever the unit: there is none to tell."""
    state, seen = advance(AMOUNTS, FilterState.initial(AMOUNTS, 1), shops(np.zeros(30)))

    assert np.isfinite(seen.features).all()
    assert lower_bound(AMOUNTS, state).tolist() == [np.inf]


@pytest.mark.parametrize(
    "spec", [AMOUNTS, FilterSpec(space="linear", seasons=(7,), unit=None, smoothers=True)]
)
def test_what_is_not_observed_leaves_the_level_where_it_was(spec):
    """A series that grew, then a year without a value: neither level nor the highest value move."""
    grown = 10 * np.exp(0.04 * np.arange(60)) * (1 + 0.2 * np.sin(2 * np.pi * np.arange(60) / 7))
    before, _ = advance(spec, FilterState.initial(spec, 1), shops(grown))

    after, _ = advance(spec, before, shops(np.zeros(365), observed=np.zeros(365, np.bool_)))

    seen = grown if spec.space == "linear" else np.log(grown)
    assert seen[-21:].min() <= after.scalars[0, Scalar.LEVEL] <= seen.max()
    assert after.scalars[0, Scalar.PEAK] == before.scalars[0, Scalar.PEAK]
    assert after.rings.max() <= 1.3 * seen.max()

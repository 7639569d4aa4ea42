"""Causal filters give the same state in any chunks, and series do not affect each other."""

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
    """Return random series, with zeros if the filters allow them and some unobserved steps."""
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
    """Require states that are equal bit for bit."""
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
    """Any cut gives bit-identical states and features."""
    panel = make_panel(spec, lengths, seed)
    cut = (np.array(lengths) * share).astype(np.int64)
    start = FilterState.initial(spec, len(lengths))

    whole, seen = advance(spec, start, panel)
    middle, first = advance(spec, start, panel.head(cut))
    last, second = advance(spec, middle, panel.tail(cut))

    assert_same(last, whole)
    head = np.concatenate([np.arange(n) < c for n, c in zip(lengths, cut, strict=True)])
    np.testing.assert_array_equal(seen.features[head.astype(bool)], first.features)
    np.testing.assert_array_equal(seen.features[~head.astype(bool)], second.features)


@pytest.mark.parametrize("spec", SPECS)
def test_series_do_not_affect_each_other(spec):
    """A series has the same finite features alone and beside one with absurd values."""
    panel = make_panel(spec, [12, 7, 9], seed=1)
    panel.values[panel.indptr[1] : panel.indptr[2]] = 1e30
    start = FilterState.initial(spec, 3)

    together, seen = advance(spec, start, panel)
    alone, only = advance(spec, start.take(np.array([2])), panel.take([2]))

    assert_same(together.take(np.array([2])), alone)
    np.testing.assert_array_equal(seen.features[panel.indptr[2] :], only.features)
    assert np.isfinite(only.features).all()


def test_features_do_not_depend_on_the_scale_of_positive_data():
    """Sales in thousands and in pieces have the same features."""
    spec = SPECS[0]
    panel = make_panel(spec, [30], seed=2)
    start = FilterState.initial(spec, 1)

    _, small = advance(spec, start, panel)
    panel.values[:] = 1000 * panel.values
    _, large = advance(spec, start, panel)

    np.testing.assert_allclose(small.features, large.features, atol=1e-4)


@pytest.mark.parametrize("zeros", [True, False])
def test_only_zeros_are_raised_to_the_lower_bound(zeros):
    """Values that decline to a thousandth of the first one keep their logarithms."""
    spec = FilterSpec(space="log", seasons=(), zeros=zeros)
    panel = make_panel(spec, [60], seed=4)
    panel.observed[:] = True
    panel.values[:] = 1000 * np.exp(-0.2 * np.arange(60))

    _, seen = advance(spec, FilterState.initial(spec, 1), panel)

    np.testing.assert_allclose(seen.columns[:, 0], np.log(panel.values), rtol=1e-5)


@pytest.mark.parametrize("spec", SPECS)
def test_columns_at_the_origin_equal_those_of_the_last_step(spec):
    """Level, trends and seasonal values read from the state equal those of the scan."""
    panel = make_panel(spec, [23], seed=3)

    state, seen = advance(spec, FilterState.initial(spec, 1), panel)
    columns, seasons = columns_at_origin(spec, state), latest_seasons(spec, state, 8)

    np.testing.assert_array_equal(columns[0], seen.columns[-1])
    first = spec.num_columns - len(spec.seasons)
    for i, season in enumerate(spec.seasons):
        steps = 22 + season_offsets(season, 8)
        np.testing.assert_array_equal(seasons[0, i, 0], seen.columns[steps, 0])
        np.testing.assert_array_equal(seasons[0, i, 1], seen.columns[steps, first + i])


def panel_of(*series: np.ndarray, observed: np.ndarray | None = None) -> Panel:
    """Return a panel of the series, without covariates."""
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


def daily_sales(number: int, seed: int = 0) -> np.ndarray:
    """Return daily sales of about 100 with a weekly season."""
    week = 100 * (1 + 0.3 * np.sin(2 * np.pi * np.arange(number) / 7))
    return week * np.random.default_rng(seed).lognormal(0, 0.1, number)


def test_the_level_of_a_closed_shop_falls_to_a_bound_and_recovers():
    """After half a year of zeros the level is bounded, and two weeks of sales restore it."""
    sales = daily_sales(600)
    sales[300:480] = 0.0

    closed, _ = advance(AMOUNTS, FilterState.initial(AMOUNTS, 1), panel_of(sales[:480]))
    reopened, _ = advance(AMOUNTS, closed, panel_of(sales[480:495]))

    floor = closed.scalars[0, Scalar.LEVEL]
    assert np.log(100) - 7.2 < floor < np.log(100) - 6.6
    assert floor == pytest.approx(closed.scalars[0, Scalar.LAST], abs=1e-3)
    assert lower_bound(AMOUNTS, closed)[0] > closed.scalars[0, Scalar.LAST]  # forecast as zero
    assert reopened.scalars[0, Scalar.LEVEL] == pytest.approx(np.log(100), abs=0.2)


@pytest.mark.parametrize("unit", [1e-4, 1.0, 1e4])
def test_a_series_begins_with_its_first_sale(unit):
    """Zeros before the first sale change neither features nor seasonal values."""
    sales = unit * daily_sales(40)
    start = FilterState.initial(AMOUNTS, 2)

    state, seen = advance(AMOUNTS, start, panel_of(np.r_[np.zeros(10), sales], sales))

    assert state.count.tolist() == [50, 40]
    assert state.scalars[:, Scalar.GAP].tolist() == [10, 0]
    np.testing.assert_array_equal(seen.features[10:50], seen.features[50:])
    np.testing.assert_array_equal(*columns_at_origin(AMOUNTS, state))
    np.testing.assert_array_equal(*latest_seasons(AMOUNTS, state, 9))


def test_before_the_first_sale_every_forecast_is_zero():
    """The lower bound is infinite, as a series of zeros has no unit."""
    state, seen = advance(AMOUNTS, FilterState.initial(AMOUNTS, 1), panel_of(np.zeros(30)))

    assert np.isfinite(seen.features).all()
    assert lower_bound(AMOUNTS, state).tolist() == [np.inf]


@pytest.mark.parametrize(
    "spec", [AMOUNTS, FilterSpec(space="linear", seasons=(7,), unit=None, smoothers=True)]
)
def test_unobserved_steps_leave_the_level_unchanged(spec):
    """A year without values changes neither the level of a growing series nor its peak."""
    growing = 10 * np.exp(0.04 * np.arange(60)) * (1 + 0.2 * np.sin(2 * np.pi * np.arange(60) / 7))
    before, _ = advance(spec, FilterState.initial(spec, 1), panel_of(growing))

    after, _ = advance(spec, before, panel_of(np.zeros(365), observed=np.zeros(365, np.bool_)))

    seen = growing if spec.space == "linear" else np.log(growing)
    assert seen[-21:].min() <= after.scalars[0, Scalar.LEVEL] <= seen.max()
    assert after.scalars[0, Scalar.PEAK] == before.scalars[0, Scalar.PEAK]
    assert after.rings.max() <= 1.3 * seen.max()

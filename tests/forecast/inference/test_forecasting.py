"""Promises about states: chunk invariance, purity, causality, identity."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from forecast.bundle import Bundle
from forecast.config import Config, ModelConfig
from forecast.data.panel import Panel
from forecast.errors import (
    ForeignState,
    LateValues,
    MissingSteps,
    StateError,
    TooShort,
    UnknownQuantile,
    UnseenHorizon,
)
from forecast.inference.forecasting import forecast
from forecast.inference.observing import MAX_SERIES, observe, warm_up
from forecast.inference.states import States, initial_states
from forecast.models.recurrent import CELLS
from forecast.training.train import train


@pytest.fixture(scope="module", params=[*CELLS, "windowed", "backward", "members"])
def any_bundle(request: pytest.FixtureRequest, panel: Panel, config: Config) -> Bundle:
    """A model of two layers for each cell, a windowed, a bidirectional one and an ensemble."""
    variants = {
        "windowed": {"cell": "gru", "window": 5},
        "backward": {"cell": "lstm", "window": 4, "bidirectional": True},
        "members": {"cell": "gru", "members": 2},
    }
    table = variants.get(request.param, {"cell": request.param})
    model = ModelConfig(hidden_size=8, horizon=6, num_layers=2, dropout=0.1, **table)
    config = replace(config, model=model, train=replace(config.train, max_steps=5))
    return train(panel, config).bundle


def assert_states_close(a: States, b: States) -> None:
    """Check for equal positions, and for equal arrays within 1e-5."""
    np.testing.assert_array_equal(a.last_ds, b.last_ds)
    np.testing.assert_array_equal(a.count, b.count)
    for name in ("scalars", "rings", "hidden", "cell", "seen"):
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), atol=1e-5, rtol=1e-5)


@pytest.fixture(scope="module")
def years(panel: Panel) -> Panel:
    """The last twelve years of each series."""
    return panel.tail(panel.lengths - 144)


@pytest.fixture(scope="module")
def cold(any_bundle: Bundle, years: Panel) -> States:
    """The states after one pass over all of these years."""
    return warm_up(any_bundle, years)


@given(data=st.data())
@settings(max_examples=10)
def test_observing_a_then_b_equals_a_cold_warm_up_over_ab(any_bundle, years, cold, data):
    """Cell, cuts, partition into batches and order of series do not matter."""
    rows = np.array(data.draw(st.permutations(range(years.num_series))))
    cuts = np.array([data.draw(st.integers(0, int(n))) for n in years.lengths])
    split = data.draw(st.integers(1, years.num_series - 1))

    empty = initial_states(any_bundle, years.num_series)
    first = observe(any_bundle, empty.take(rows), years.head(cuts).take(rows))
    rest = years.tail(cuts).take(rows)
    parts = [
        observe(any_bundle, first.take(part), rest.take(part))
        for part in np.split(np.arange(len(rows)), [split])
    ]

    assert_states_close(States.concat(parts), cold.take(rows))


def test_one_observation_at_a_time_equals_all_at_once(bundle, panel):
    """Fifty single steps give the same state as one pass over them."""
    few = panel.take([0, 1, 2])
    cut = few.lengths - 50
    states = warm_up(bundle, few.head(cut))

    for step in range(50):
        states = observe(bundle, states, few.head(cut + step + 1).tail(cut + step))

    assert_states_close(states, warm_up(bundle, few))


def test_threads_change_no_bit_of_states_and_forecasts(any_bundle, panel):
    """Blocks of series that threads compute equal those computed in turn."""
    many = panel.take(np.arange(MAX_SERIES + 7) % panel.num_series)
    steps = many.head(np.full(many.num_series, 9))
    empty = initial_states(any_bundle, many.num_series)

    with ThreadPoolExecutor(3, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        states = observe(any_bundle, empty, steps, pool=pool)
        shared = forecast(any_bundle, states, quantiles=(0.1, 0.9), pool=pool)

    alone = observe(any_bundle, empty, steps)
    assert states.to_bytes() == alone.to_bytes()
    assert shared.tobytes() == forecast(any_bundle, alone, quantiles=(0.1, 0.9)).tobytes()


@pytest.mark.parametrize("poison", [1e30, 0.0])
def test_absurd_values_of_one_series_change_no_other_forecast(bundle, panel, poison):
    """Series of one batch do not influence each other."""
    wild = replace(panel, values=panel.values.copy())
    wild.values[wild.indptr[3] : wild.indptr[4]] = poison
    others = [i for i in range(panel.num_series) if i != 3]

    clean = forecast(bundle, warm_up(bundle, panel), quantiles=(0.1, 0.9))
    beside = forecast(bundle, warm_up(bundle, wild), quantiles=(0.1, 0.9))

    np.testing.assert_array_equal(beside[others], clean[others])
    assert np.isfinite(beside[others]).all()


@pytest.mark.parametrize("noise", [0.0, 1e9])
def test_nothing_after_the_cutoff_changes_a_forecast(bundle, panel, noise):
    """Noise or missing values after the cutoff give the same bytes."""
    cut = panel.lengths - 12
    changed = replace(panel, values=panel.values.copy(), observed=panel.observed.copy())
    for begin, end in zip(panel.indptr[:-1] + cut, panel.indptr[1:], strict=True):
        changed.values[begin:end] = noise
        changed.observed[begin:end] = noise != 0

    before = forecast(bundle, warm_up(bundle, panel.head(cut)), quantiles=(0.1, 0.9))
    after = forecast(bundle, warm_up(bundle, changed.head(cut)), quantiles=(0.1, 0.9))

    assert before.tobytes() == after.tobytes()


def test_a_forecast_leaves_the_state_as_it_was(bundle, panel):
    """Two forecasts from one state are equal, and its bytes do not change."""
    states = warm_up(bundle, panel)
    before = states.to_bytes()

    once = forecast(bundle, states, quantiles=(0.05, 0.95))
    again = forecast(bundle, states, quantiles=(0.05, 0.95))

    np.testing.assert_array_equal(once, again)
    assert states.to_bytes() == before


def test_observing_leaves_the_old_state_as_it_was(bundle, panel):
    """A state is a value: the one before an observation can still be used."""
    cut = panel.lengths - 3
    states = warm_up(bundle, panel.head(cut))
    before = states.to_bytes()

    observe(bundle, states, panel.tail(cut))

    assert states.to_bytes() == before


def test_a_state_goes_to_bytes_and_back_bit_for_bit(bundle, panel):
    """Nothing is rounded or left out, and the forecasts are equal."""
    states = warm_up(bundle, panel)

    back = States.from_bytes(states.to_bytes())

    assert back.to_bytes() == states.to_bytes()
    np.testing.assert_array_equal(forecast(bundle, back), forecast(bundle, states))


@pytest.mark.parametrize("junk", [b"", b"not a state", b"\x10\x00\x00\x00\x00\x00\x00\x00{}"])
def test_bytes_that_are_not_a_state_are_refused(junk):
    """Empty, random or truncated bytes are a StateError."""
    with pytest.raises(StateError, match="not a state"):
        States.from_bytes(junk)


def test_a_state_is_refused_by_any_other_model(bundle, panel, config):
    """The digest of settings and weights is part of the identity of a state."""
    other = train(panel, replace(config, train=replace(config.train, max_steps=2))).bundle
    states = warm_up(bundle, panel)

    with pytest.raises(ForeignState, match="was made by model"):
        forecast(other, states)
    with pytest.raises(ForeignState, match="was made by model"):
        observe(other, states, panel)


def test_steps_that_do_not_follow_are_refused(bundle, panel):
    """A gap and a repeated step are different errors, with series and stamp."""
    cut = panel.lengths - 5
    states = warm_up(bundle, panel.head(cut))

    with pytest.raises(MissingSteps, match=r"expected 20.* found 20"):
        observe(bundle, states, panel.tail(cut + 1))
    with pytest.raises(LateValues, match="do not go on"):
        observe(bundle, states, panel.tail(cut - 1))


def test_requests_outside_what_the_model_learned_are_refused(bundle, panel):
    """They are too long horizons, quantiles out of range, and series without observations."""
    states = warm_up(bundle, panel)

    with pytest.raises(UnseenHorizon, match="learned 1 to 6 and goes on to 60"):
        forecast(bundle, states, horizon=61)
    with pytest.raises(UnknownQuantile, match=r"0\.999 was asked for"):
        forecast(bundle, states, quantiles=(0.999,))
    with pytest.raises(TooShort, match="no observation yet"):
        forecast(bundle, initial_states(bundle, 2))


def test_beyond_the_trained_horizon_the_forecast_goes_on_from_itself(bundle, panel):
    """The second block is the forecast after observing the first; intervals widen."""
    states = warm_up(bundle, panel)
    far = forecast(bundle, states, horizon=16, quantiles=(0.1, 0.5, 0.9))
    near = forecast(bundle, states, horizon=6, quantiles=(0.1, 0.5, 0.9))

    stamps = bundle.calendar.after(states.last_ds, 6)
    observed = Panel(
        ids=panel.ids,
        indptr=np.arange(0, 6 * panel.num_series + 1, 6),
        ds=stamps.ravel(),
        values=near[..., 0].ravel(),
        observed=np.ones(stamps.size, bool),
        known_future=np.zeros((stamps.size, 0), np.float32),
        past_only=np.zeros((stamps.size, 0), np.float32),
    )
    second = forecast(bundle, observe(bundle, states, observed), horizon=6)

    np.testing.assert_array_equal(far[:, :6], near)
    np.testing.assert_allclose(far[:, 6:12, 0], second[..., 0], rtol=1e-6)
    width = np.log(far[..., 3] / far[..., 1])
    assert (width[:, 15] >= width[:, 3]).all()
    assert (np.diff(far[..., 1:], axis=-1) >= 0).all()


def test_no_quantiles_cross_beyond_the_trained_horizon(bundle, panel):
    """Not even if the outer ones narrow within it; any choice of quantiles agrees with all."""
    states = warm_up(bundle, panel)
    learned = bundle.config.model.quantiles
    closing = np.array(bundle.factors)
    closing[..., -1:] *= np.linspace(3.0, 1.0, closing.shape[1])[:, None]  # the outermost
    narrowing = replace(bundle, factors=closing)
    states = replace(states, digest=narrowing.digest)

    far = forecast(narrowing, states, horizon=40, quantiles=learned)
    some = forecast(narrowing, states, horizon=40, quantiles=(learned[1], 0.5, learned[-1]))

    assert (np.diff(far[..., 1:], axis=-1) >= 0).all()
    np.testing.assert_array_equal(some[..., [1, 3]], far[..., [2, len(learned)]])


def test_no_quantile_exceeds_ten_times_the_highest_value(bundle, panel):
    """Even factors that would make the intervals absurdly wide do not change that."""
    wild = replace(bundle, factors=np.full_like(bundle.factors, 500.0))
    highest = [
        panel.values[a:b].max() for a, b in zip(panel.indptr, panel.indptr[1:], strict=False)
    ]

    out = forecast(wild, warm_up(wild, panel), quantiles=(0.5, 0.99))

    assert (out[..., 2] <= 10 * np.array(highest)[:, None] * (1 + 1e-5)).all()
    assert (out[..., 2] > 5 * np.array(highest)[:, None]).any()
    np.testing.assert_array_equal(out[..., 0], forecast(bundle, warm_up(bundle, panel))[..., 0])


def test_quantiles_rise_and_the_median_is_the_point_forecast(bundle, panel):
    """Quantiles may be asked for in any order, at or between the learned ones."""
    quantiles = (0.9, 0.5, 0.1, 0.33, 0.77)

    out = forecast(bundle, warm_up(bundle, panel), quantiles=quantiles)

    ordered = out[..., 1 + np.argsort(quantiles)]
    assert (np.diff(ordered, axis=-1) > 0).all()
    np.testing.assert_array_equal(out[..., 0], out[..., 1 + quantiles.index(0.5)])
    assert (out >= 0).all()


def test_a_shorter_horizon_is_the_beginning_of_the_whole(bundle, panel):
    """The forecast of a step does not depend on the horizon."""
    states = warm_up(bundle, panel)

    np.testing.assert_array_equal(
        forecast(bundle, states, horizon=2), forecast(bundle, states)[:, :2]
    )

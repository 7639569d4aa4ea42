"""Promise 3: observing a, then b, equals observing ab, in any chunks, batches or order."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from forecast.bundle import Bundle
from forecast.config import Cell, Config, ModelConfig
from forecast.data.panel import Panel
from forecast.features.filter_spec import FilterSpec
from forecast.inference.forecasting import forecast
from forecast.inference.observing import MAX_SERIES, observe, warm_up
from forecast.inference.states import States, initial_states
from forecast.models.network import Network
from forecast.models.recurrent import CELLS
from forecast.resolved_config import ResolvedModelConfig
from forecast.training.train import train


@pytest.fixture(scope="module", params=[*CELLS, "windowed", "backward", "members"])
def any_bundle(request: pytest.FixtureRequest, panel: Panel, config: Config) -> Bundle:
    """Return a model of two layers: one for each cell, two windowed ones and an ensemble."""
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
    """Require equal positions, and equal arrays within 1e-5."""
    np.testing.assert_array_equal(a.last_ds, b.last_ds)
    np.testing.assert_array_equal(a.count, b.count)
    for name in ("scalars", "rings", "hidden", "cell", "seen"):
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), atol=1e-5, rtol=1e-5)


@pytest.fixture(scope="module")
def years(panel: Panel) -> Panel:
    """Return the last twelve years of each series."""
    return panel.tail(panel.lengths - 144)


@pytest.fixture(scope="module")
def cold(any_bundle: Bundle, years: Panel) -> States:
    """Return the states after one pass over all of `years`."""
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


@pytest.mark.parametrize("cell", CELLS)
def test_chunking_does_not_change_what_the_network_computes(cell: Cell):
    """Two chunks with the state carried between them give the outputs of one."""
    torch.manual_seed(0)
    network = Network(
        ResolvedModelConfig(cell=cell, hidden_size=8, horizon=2, members=1),
        FilterSpec(space="log", seasons=()),
        num_features=4,
        num_dates=0,
        static_sizes=(3, 0),
    ).eval()
    steps, static = torch.randn(3, 12, 4), torch.tensor([[1.0, 0.5], [3.0, -2.0], [0.0, 0.0]])

    whole, _ = network.encode(steps, static, network.initial_state(3))
    first, state = network.encode(steps[:, :5], static, network.initial_state(3))
    second, _ = network.encode(steps[:, 5:], static, state)

    torch.testing.assert_close(torch.cat([first, second], dim=1), whole)

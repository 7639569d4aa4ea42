"""The network, its heads, windows and ensembles compute what their formulas say."""

import subprocess
import sys
from typing import Literal

import pytest
import torch

from forecast.config import Cell, ModelConfig
from forecast.errors import ConfigError
from forecast.features.filter_spec import MEANS, FilterSpec
from forecast.models.ensemble import Ensemble
from forecast.models.network import Network
from forecast.models.point_head import Future, PointHead
from forecast.models.quantile_head import QuantileHead
from forecast.models.recurrent import CELLS, RecurrentStack, State
from forecast.models.skip import LEAST
from forecast.models.windowed import WindowedStack
from forecast.resolved_config import ResolvedModelConfig

MEMORY_SCRIPT = """
from pathlib import Path
import torch
from forecast.models.recurrent import RecurrentStack

def resident_mib():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20

stack = RecurrentStack("lstm", 64, 64, 1, 0.0)
with torch.inference_mode():
    for series in (2000, *range(1500, 2000)):
        stack(torch.zeros(series, 1, 64), stack.initial_state(series))
        if series == 2000:
            before = resident_mib()
print(resident_mib() - before)
"""


def test_batches_of_many_sizes_do_not_fill_the_memory():
    """A cache of kernels by batch size would take about 1 MB for each of these 500 sizes."""
    process = subprocess.run(
        [sys.executable, "-c", MEMORY_SCRIPT], capture_output=True, text=True, check=True
    )
    assert float(process.stdout) < 200


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_a_windowed_model_reads_only_its_window(cell: Cell, bidirectional: bool):
    """The output of each step equals that of the layers for the window that ends there."""
    torch.manual_seed(0)
    stack = WindowedStack(cell, 8, 1, 0.0, 5, bidirectional=bidirectional).eval()
    inputs = torch.randn(2, 12, 8)

    outputs, state = stack(inputs, stack.initial_state(2))
    first, middle = stack(inputs[:, :7], stack.initial_state(2))
    second, after = stack(inputs[:, 7:], middle)
    alone, _ = stack.layers(inputs[:, 4:9])
    expected = (
        alone[:, -1] if not bidirectional else torch.cat([alone[:, -1, :4], alone[:, 0, 4:]], 1)
    )

    torch.testing.assert_close(torch.cat([first, second], dim=1), outputs)
    torch.testing.assert_close(after.hidden, state.hidden)
    torch.testing.assert_close(outputs[:, 8], expected)
    changed = inputs.clone()
    changed[:, :4] = 9.0
    torch.testing.assert_close(stack(changed, stack.initial_state(2))[0][:, 8], outputs[:, 8])


def test_drop_zeroes_only_the_fresh_lanes():
    """Lanes where a series begins start from zero, and the others keep their state."""
    state = State(torch.ones(1, 3, 2), torch.ones(1, 3, 2))

    dropped = state.drop(torch.tensor([False, True, False]))

    assert dropped.hidden[0, :, 0].tolist() == [1.0, 0.0, 1.0]
    assert dropped.cell[0, :, 0].tolist() == [1.0, 0.0, 1.0]


def test_before_training_the_point_forecast_is_the_mean_of_the_skips():
    """The correction starts at zero, and the weights of the skips start equal."""
    spec = FilterSpec(space="log", seasons=(4,))
    head = PointHead(spec, 6, 4, 3, 2)
    skips = torch.randn(5, spec.num_skips, 3)

    future = Future(head.embed_future(torch.randn(5, 3, 2)), torch.zeros(5, 3, 0))
    relative = head(torch.randn(5, 6), skips, future)

    torch.testing.assert_close(relative, skips.mean(1))


def test_the_mean_of_a_count_is_a_multiple_of_its_mixed_skips():
    """For any weights, the mean is above zero and the correction is a factor."""
    torch.manual_seed(0)
    spec = FilterSpec(
        space="ratio", seasons=(7,), trends=MEANS, unit=None, num_known=1, amounts=(0,)
    )
    head = PointHead(spec, 6, 4, 3, 2)
    skips, memory = torch.rand(50, spec.num_skips, 3), torch.randn(50, 6)
    future = Future(head.embed_future(torch.randn(50, 3, 2)), torch.randn(50, 3, 1))
    torch.testing.assert_close(head(memory, skips, future), skips.mean(1))
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=2.0)

    relative = head(memory, skips, future)
    mixed, correction, effect, _ = head.parts(memory, skips, future)

    assert bool((relative > 0).all())
    factor = (correction + effect).clamp(-6, 6).exp()
    torch.testing.assert_close(relative, mixed.clamp(min=LEAST) * factor)


def test_shrinkage_moves_the_forecast_towards_the_best_skip():
    """A shrinkage of 0 gives the best skip, 1 the network, and 0.5 their mean."""
    torch.manual_seed(0)
    spec = FilterSpec(space="log", seasons=())
    head = PointHead(spec, 6, 4, 3, 0).eval()
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter)
    skips, memory, future = (
        torch.randn(5, spec.num_skips, 3),
        torch.randn(5, 6),
        Future(torch.zeros(5, 3, 0), torch.zeros(5, 3, 0)),
    )
    head.best_skip.fill_(2)
    free = head(memory, skips, future)

    head.shrinkage.copy_(torch.tensor([0.0, 0.5, 1.0]))
    shrunk = head(memory, skips, future)

    torch.testing.assert_close(shrunk[:, 0], skips[:, 2, 0])
    torch.testing.assert_close(shrunk[:, 1], (skips[:, 2, 1] + free[:, 1]) / 2)
    torch.testing.assert_close(shrunk[:, 2], free[:, 2])


@pytest.mark.parametrize("space", ["log", "ratio"])
@pytest.mark.parametrize("shifted", [True, False])
def test_quantiles_never_cross(space: Literal["log", "ratio"], shifted: bool):
    """Distances grow away from the median for any weights; an unshifted median is the point."""
    torch.manual_seed(0)
    spec = FilterSpec(space=space, seasons=(), trends=MEANS)
    head = QuantileHead(spec, 6, 4, 3, (0.75, 0.9, 0.95), shifted=shifted)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=2.0)
    point = torch.rand(50, 3)

    median, distances = head(torch.randn(50, 6), point)

    assert bool((distances >= 0).all())
    assert bool((distances.diff(dim=-1) >= 0).all())
    assert torch.equal(median, point) != shifted


@pytest.mark.parametrize("space", ["log", "ratio"])
def test_a_shrinkage_of_zero_makes_widths_independent_of_the_memory(space: Literal["log", "ratio"]):
    """All series then have the same distances, and the median does not change."""
    torch.manual_seed(0)
    spec = FilterSpec(space=space, seasons=(), trends=MEANS)
    head = QuantileHead(spec, 6, 4, 3, (0.75, 0.9), shifted=space == "ratio")
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter)
    memory, point = torch.randn(50, 6), torch.rand(1, 3).expand(50, -1)
    with torch.no_grad():
        free = head(memory, point)
        head.shrinkage.fill_(0.0)
        usual = head(memory, point)

    assert float(free.distances.std(0).min()) > 1e-3
    torch.testing.assert_close(usual.distances, usual.distances[:1].expand(50, -1, -1, -1))
    assert torch.equal(usual.median, free.median)


def test_an_ensemble_forecasts_the_mean_of_its_members():
    """It carries the state of each member separately."""
    torch.manual_seed(0)
    spec = FilterSpec(space="log", seasons=(2,))
    config = ResolvedModelConfig(hidden_size=4, horizon=3, members=1)
    members = [Network(config, spec, num_features=5, num_dates=1).eval() for _ in range(3)]
    for member in members:
        for parameter in member.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
    ensemble = Ensemble(members)
    steps, static = torch.randn(2, 6, 5), torch.zeros(2, 0)
    skips, dates = torch.randn(2, spec.num_skips, 3), torch.randn(2, 3, 1)
    none = torch.zeros(2, 3, 0)

    memory, state = ensemble.encode(steps, static, ensemble.initial_state(2))
    point = ensemble.point(memory[:, -1], skips, Future(ensemble.embed_future(dates), none))
    alone = [m.encode(steps, static, m.initial_state(2)) for m in members]
    points = [
        m.point(a[0][:, -1], skips, Future(m.embed_future(dates), none))
        for m, a in zip(members, alone, strict=True)
    ]

    torch.testing.assert_close(point, torch.stack(points).mean(0))
    torch.testing.assert_close(state.hidden, torch.cat([a[1].hidden for a in alone]))
    seen, after = ensemble.observe(steps, static, ensemble.initial_state(2))
    torch.testing.assert_close(ensemble.memory_at_end(after, seen), memory[:, -1])


def test_recurrent_weights_start_orthogonal_with_an_open_forget_gate():
    """The bias of the forget gate is 1 and that of the input gate is 0."""
    stack = RecurrentStack("lstm", 4, 8, 1, 0.0)

    gates = stack.layers.weight_hh_l0.detach().split(8)
    bias = (stack.layers.bias_ih_l0 + stack.layers.bias_hh_l0).detach()

    for gate in gates:
        torch.testing.assert_close(gate @ gate.T, torch.eye(8), atol=1e-5, rtol=0)
    assert bias[8:16].tolist() == [1.0] * 8
    assert bias[:8].tolist() == [0.0] * 8


@pytest.mark.parametrize("quantiles", [(), (0.5,), (0.1, 0.5), (0.1, 0.9), (0.5, 0.1, 0.9)])
def test_quantiles_without_an_interval_are_refused(quantiles):
    """The settings raise an error before a network is built."""
    with pytest.raises(ConfigError, match="at least one interval"):
        ModelConfig(quantiles=quantiles)


def test_shrinkage_and_best_skip_keep_their_names_in_bundles(bundle):
    """The names in the state dict are part of the digest that live states carry."""
    names = bundle.network.state_dict()

    assert {"point.anchor", "point.trust", "quantiles.trust"} <= names.keys()
    assert not any("shrinkage" in name or "best_skip" in name for name in names)

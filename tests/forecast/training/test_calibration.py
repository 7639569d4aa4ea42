"""Guard and calibration on the steps kept: what they tell of the intervals to come."""

from copy import deepcopy

import numpy as np
import pandas as pd
import pytest
import torch

from forecast.calendars.calendar import Calendar
from forecast.config import Config, DataConfig, ModelConfig, TrainConfig
from forecast.data.panel import Panel
from forecast.data.validation import validate
from forecast.features.filter_spec import FilterSpec
from forecast.features.inputs import InputSpec
from forecast.features.static import StaticSpec
from forecast.forecaster import Forecaster
from forecast.models.ensemble import Ensemble
from forecast.models.network import make_network
from forecast.models.quantile_head import QuantileHead
from forecast.training.calibration import HeldOut, calibrate_ensemble, learn_spread_shrinkage
from forecast.training.dataset import TrainingSet
from forecast.training.defaults import resolve
from forecast.training.loop import fit_network, phases
from forecast.training.objective import LossScale, TrainingTask

UPPER = (0.75, 0.9, 0.975)


def walks(count: int, length: int, seed: int) -> pd.DataFrame:
    """Random walks in percent of their level."""
    rng = np.random.default_rng(seed)
    y = 100 * np.exp(rng.normal(0, 0.05, (count, length)).cumsum(axis=1))
    return pd.DataFrame(
        {
            "unique_id": np.repeat([f"s{i}" for i in range(count)], length),
            "ds": np.tile(np.arange(length), count),
            "y": y.ravel(),
        }
    )


def test_a_few_short_series_get_intervals_that_hold():
    """Learned by heart within seconds, and yet as unsure as what was kept back says."""
    horizon, held, config = 4, [], Config(model=ModelConfig(members=1))
    for seed in range(4):
        frame = walks(5, 12 + horizon, seed)
        past, future = frame[frame["ds"] < 12], frame[frame["ds"] >= 12]
        made = Forecaster(h=horizon, freq=1, config=config).fit(past).predict(level=[80])
        low, high = made["statecast-lo-80"].to_numpy(), made["statecast-hi-80"].to_numpy()
        y = future["y"].to_numpy()
        held.append(((y >= low) & (y <= high)).mean())
    assert np.mean(held) > 0.6


def test_of_very_many_targets_some_tell_enough(monkeypatch):
    """Calibrated on a tenth of the origins, intervals are about as wide."""
    frame = walks(40, 150, 7)
    config = Config(train=TrainConfig(max_steps=60), model=ModelConfig(hidden_size=8))
    whole = Forecaster(h=6, freq=1, config=config).fit(frame).bundle_
    monkeypatch.setattr("forecast.training.calibration.MAX_TARGETS", 40 * 20 * 6 // 10)

    thin = Forecaster(h=6, freq=1, config=config).fit(frame).bundle_

    assert not np.array_equal(thin.factors, whole.factors)
    assert np.abs(np.log(thin.factors / whole.factors)).mean() < 0.25


@pytest.mark.parametrize("told", [True, False])
def test_memory_has_a_say_in_the_spread_where_it_tells_of_it(told: bool):
    """Kept where the errors grow with what the head says; dropped where the two are strangers."""
    rng = np.random.default_rng(0)
    head = QuantileHead(FilterSpec(space="log", seasons=()), 1, 2, 1, UPPER, shifted=False)
    with torch.no_grad():  # silu(x) - silu(-x) is x, and the softplus of little is its exponential
        head.inner.weight.copy_(torch.tensor([[1.0], [-1.0]]))
        head.outer.weight.copy_(torch.tensor([[1.0, -1.0]] * 2))
        head.inner.bias.zero_()
        head.outer.bias.fill_(-5.0)
    spread = rng.normal(size=2000)
    memory = spread if told else rng.permutation(spread)
    late = HeldOut(
        series=torch.arange(2000) % 20,
        memory=torch.from_numpy(memory).float()[:, None],
        point=torch.zeros(2000, 1),
        target=torch.from_numpy(np.exp(spread - 5) * rng.normal(size=2000)).float()[:, None],
        known=torch.ones(2000, 1, dtype=torch.bool),
    )

    with torch.no_grad():
        learn_spread_shrinkage(head, late, UPPER, 2000.0)

    assert float(head.trust) == (1.0 if told else 0.0)


def test_members_that_are_alike_are_calibrated_as_one_of_them():
    """Two copies of a network, before and after the second leg: nothing is to be made up for."""
    panel = Panel.from_frame(validate(walks(20, 60, 3), DataConfig(freq=1, kind="positive")))
    config = Config(
        data=DataConfig(freq=1, kind="positive"),
        model=ModelConfig(hidden_size=8, horizon=6),
        train=TrainConfig(max_steps=60),
    )
    config = resolve(config, Calendar(1), panel.lengths)
    spec = InputSpec(
        filters=FilterSpec(space="log", seasons=()),
        calendar=Calendar(1),
        use_calendar=False,
        annual=False,
        holidays=None,
        static=StaticSpec(),
    )
    yardstick = LossScale.measure(panel, config, window=spec.filters.window)
    static = spec.static.encode(None, panel.ids)
    examples = TrainingSet.build(spec, panel, static, horizon=6, scale=yardstick.scale)
    lesson = TrainingTask(examples, config, yardstick)
    network = make_network(config, spec)
    progress = fit_network(network, lesson)
    before = deepcopy(network)
    before.load_state_dict(progress.settled)

    made = calibrate_ensemble(
        Ensemble([network] * 2), Ensemble([before] * 2), lesson, phases(lesson)[0].until
    )

    assert progress.leg == 2
    assert not torch.equal(before.quantiles.outer.weight, network.quantiles.outer.weight)
    assert progress.factors is not None
    assert made.factors is not None
    np.testing.assert_allclose(made.factors, progress.factors, rtol=1e-4)
    assert made.correlation == pytest.approx(progress.correlation, abs=1e-4)

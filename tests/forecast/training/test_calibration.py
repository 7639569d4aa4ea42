"""Calibration and shrinkage from held-out steps, and the intervals that result."""

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
    """Return random walks whose steps are a few percent of their level."""
    rng = np.random.default_rng(seed)
    y = 100 * np.exp(rng.normal(0, 0.05, (count, length)).cumsum(axis=1))
    return pd.DataFrame(
        {
            "unique_id": np.repeat([f"s{i}" for i in range(count)], length),
            "ds": np.tile(np.arange(length), count),
            "y": y.ravel(),
        }
    )


def test_a_few_short_series_get_intervals_that_cover():
    """A network overfits them within seconds; the held-out steps still make intervals wide."""
    horizon, covered, config = 4, [], Config(model=ModelConfig(members=1))
    for seed in range(4):
        frame = walks(5, 12 + horizon, seed)
        past, future = frame[frame["ds"] < 12], frame[frame["ds"] >= 12]
        forecast = Forecaster(h=horizon, freq=1, config=config).fit(past).predict(level=[80])
        low, high = forecast["statecast-lo-80"].to_numpy(), forecast["statecast-hi-80"].to_numpy()
        y = future["y"].to_numpy()
        covered.append(((y >= low) & (y <= high)).mean())
    assert np.mean(covered) > 0.6


def test_a_sample_of_very_many_targets_gives_similar_factors(monkeypatch):
    """Calibrated on a tenth of the origins, intervals are about as wide."""
    frame = walks(40, 150, 7)
    config = Config(train=TrainConfig(max_steps=60), model=ModelConfig(hidden_size=8))
    full = Forecaster(h=6, freq=1, config=config).fit(frame).bundle_
    monkeypatch.setattr("forecast.training.calibration.MAX_TARGETS", 40 * 20 * 6 // 10)

    thinned = Forecaster(h=6, freq=1, config=config).fit(frame).bundle_

    assert not np.array_equal(thinned.factors, full.factors)
    assert np.abs(np.log(thinned.factors / full.factors)).mean() < 0.25


@pytest.mark.parametrize("related", [True, False])
def test_the_spread_depends_on_memory_only_if_that_predicts_the_errors(related: bool):
    """It is not shrunk if the errors grow with it, and shrunk fully if they are unrelated."""
    rng = np.random.default_rng(0)
    head = QuantileHead(FilterSpec(space="log", seasons=()), 1, 2, 1, UPPER, shifted=False)
    # silu(x) - silu(-x) is x, and softplus(x) is close to exp(x) for small x.
    with torch.no_grad():
        head.inner.weight.copy_(torch.tensor([[1.0], [-1.0]]))
        head.outer.weight.copy_(torch.tensor([[1.0, -1.0]] * 2))
        head.inner.bias.zero_()
        head.outer.bias.fill_(-5.0)
    spread = rng.normal(size=2000)
    memory = spread if related else rng.permutation(spread)
    held_out = HeldOut(
        series=torch.arange(2000) % 20,
        memory=torch.from_numpy(memory).float()[:, None],
        point=torch.zeros(2000, 1),
        target=torch.from_numpy(np.exp(spread - 5) * rng.normal(size=2000)).float()[:, None],
        known=torch.ones(2000, 1, dtype=torch.bool),
    )

    with torch.no_grad():
        learn_spread_shrinkage(head, held_out, UPPER, 2000.0)

    assert float(head.shrinkage) == (1.0 if related else 0.0)


def test_an_ensemble_of_two_copies_is_calibrated_like_its_member():
    """Their mean errs as each of them does, before and after the second phase."""
    panel = Panel.from_frame(validate(walks(20, 60, 3), DataConfig(freq=1, kind="positive")))
    config = Config(
        data=DataConfig(freq=1, kind="positive"),
        model=ModelConfig(hidden_size=8, horizon=6),
        train=TrainConfig(max_steps=60),
    )
    resolved = resolve(config, Calendar(1), panel.lengths)
    spec = InputSpec(
        filters=FilterSpec(space="log", seasons=()),
        calendar=Calendar(1),
        use_calendar=False,
        annual=False,
        holidays=None,
        static=StaticSpec(),
    )
    loss_scale = LossScale.measure(panel, resolved, window=spec.filters.window)
    static = spec.static.encode(None, panel.ids)
    training_set = TrainingSet.build(spec, panel, static, horizon=6, scale=loss_scale.scale)
    task = TrainingTask(training_set, resolved, loss_scale)
    network = make_network(resolved, spec)
    progress = fit_network(network, task)
    calibrated = deepcopy(network)
    calibrated.load_state_dict(progress.calibrated_weights)

    calibration = calibrate_ensemble(
        Ensemble([network] * 2), Ensemble([calibrated] * 2), task, phases(task)[0].until
    )

    assert progress.phase == 2
    assert not torch.equal(calibrated.quantiles.outer.weight, network.quantiles.outer.weight)
    assert progress.calibration is not None
    np.testing.assert_allclose(calibration.factors, progress.calibration.factors, rtol=1e-4)
    assert calibration.correlation == pytest.approx(progress.calibration.correlation, abs=1e-4)

"""Counts: what their totals are held to, within a season and on any scale."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from forecast.calendars.calendar import Calendar
from forecast.config import Config, DataConfig, ModelConfig, TrainConfig
from forecast.data.panel import Panel
from forecast.features.filter_spec import MEANS, FilterSpec
from forecast.features.inputs import InputSpec
from forecast.features.static import StaticSpec
from forecast.inference.forecasting import forecast
from forecast.inference.observing import warm_up
from forecast.models.network import make_network
from forecast.training.dataset import TrainingSet
from forecast.training.defaults import resolve
from forecast.training.lanes import iter_chunks
from forecast.training.loop import fit_network
from forecast.training.objective import LossScale, TrainingTask
from forecast.training.train import train

DAY = np.r_[6, 9, 8, 6, 5, 5, 6, 8, 9, 9, 7, 5, 4, 3, 2, 1, np.zeros(7), 2]
"""What a shop sells in each hour, from the morning on: nothing at night."""
DAYS = 30


def panel_of(y: np.ndarray) -> Panel:
    """One series a row."""
    count, length = y.shape
    none = np.zeros((y.size, 0), np.float32)
    return Panel(
        ids=tuple(f"s{i}" for i in range(count)),
        indptr=length * np.arange(count + 1, dtype=np.int64),
        ds=np.tile(np.arange(length), count),
        values=y.ravel(),
        observed=np.ones(y.size, np.bool_),
        known_future=none,
        past_only=none,
    )


def examples_of(panel: Panel, seasons: tuple[int, ...], horizon: int) -> TrainingSet:
    """What training sees of counts by the hour."""
    spec = InputSpec(
        filters=FilterSpec(space="ratio", seasons=seasons, trends=MEANS, unit=None),
        calendar=Calendar(1),
        use_calendar=False,
        annual=False,
        holidays=None,
        static=StaticSpec(),
    )
    nothing, ones = np.zeros((panel.num_series, 0), np.float32), np.ones(panel.num_series)
    return TrainingSet.build(spec, panel, nothing, horizon=horizon, scale=ones)


@pytest.fixture(scope="module")
def means() -> np.ndarray:
    """What three shops of different size sell in each hour, had they no luck."""
    return np.outer([0.5, 1, 2], np.tile(DAY, DAYS))


@pytest.fixture(scope="module")
def shops(means: np.ndarray) -> Panel:
    """What they do sell."""
    return panel_of(np.random.default_rng(0).poisson(means).astype(float))


def config_of(horizon: int) -> Config:
    """Counts by the hour."""
    return Config(
        data=DataConfig(freq=1, kind="count", season_lengths=(24,)),
        model=ModelConfig(hidden_size=16, horizon=horizon),
        train=TrainConfig(max_steps=300),
    )


@pytest.mark.parametrize("horizon", [1, 6, 23])
def test_what_counts_usually_come_to_follows_the_season(means, horizon):
    """Where every day is like the one before, that is what comes, from any hour."""
    examples = examples_of(panel_of(means), (24,), horizon)
    late = torch.full((3,), 24 * (DAYS - 4))

    for chunk in iter_chunks(examples.lengths.numpy(), num_lanes=3, chunk_length=12):
        origins = examples.origins(chunk, torch.arange(12), examples.lengths, late)
        usual = torch.where(origins.known, examples.usual_counts(origins), 0.0)

        np.testing.assert_allclose(usual, origins.y * origins.known, rtol=0.02, atol=1e-6)


def test_until_a_week_is_seen_the_day_stands_for_it(means):
    """In the first week yesterday is a simple forecast twice, later last week is the other."""
    examples = examples_of(panel_of(means * np.repeat(np.arange(1, DAYS + 1), 24)), (24, 168), 6)
    (chunk,) = iter_chunks(examples.lengths.numpy(), num_lanes=3, chunk_length=24 * DAYS)
    noons = torch.tensor([3 * 24 + 5, 10 * 24 + 5])

    origins = examples.origins(chunk, noons, examples.lengths, torch.zeros(3, dtype=torch.int64))
    young, old = origins.at == noons[0], origins.at == noons[1]
    day, day_usual, week, week_usual = (origins.unit[..., None] * origins.skips[:, -4:]).unbind(1)

    torch.testing.assert_close(week[young], day[young])
    torch.testing.assert_close(week_usual[young], day_usual[young])
    y = examples.y.pick(torch.arange(3 * DAYS * 24)).reshape(3, DAYS, 24)
    torch.testing.assert_close(week[old], y[:, 10 - 7, 6:12])
    torch.testing.assert_close(day[old], y[:, 10 - 1, 6:12])


def test_a_part_of_a_day_is_not_drawn_to_the_mean_of_the_day(means, shops):
    """Six hours ahead, at any hour: nearer to what is to be expected than yesterday was."""
    ours, naive = [], []
    bundle = train(shops.head(shops.lengths - 48), config_of(6)).bundle
    for back in range(48, 0, -6):
        known = shops.head(shops.lengths - back)
        y = known.values.reshape(3, -1)
        expected = means[:, y.shape[1] : y.shape[1] + 6]
        y_hat = forecast(bundle, warm_up(bundle, known))[..., 0]
        ours.append(np.abs(expected - y_hat).mean())
        naive.append(np.abs(expected - y[:, -24:-18]).mean())

    assert np.mean(ours) < 0.45 * np.mean(naive)


def test_amounts_are_forecast_alike_on_any_scale(shops):
    """Revenue in dollars or in thousands of them: no choice depends on where the point is."""
    until_noon = shops.head(shops.lengths - 12)
    dollars = replace(until_noon, values=2.5 * until_noon.values)
    thousands = replace(dollars, values=dollars.values / 1024)

    made = [
        forecast(bundle, warm_up(bundle, panel))[..., 0]
        for panel in (dollars, thousands)
        for bundle in [train(panel, config_of(6)).bundle]
    ]

    np.testing.assert_allclose(made[0], 1024 * made[1], rtol=0.05, atol=0.05)


def test_quantiles_are_learned_beside_what_the_guard_leaves():
    """Where the last value is trusted and not the network, they are as wide as its errors are."""
    panel = panel_of(np.random.default_rng(0).poisson(20, (20, 400)).astype(float))
    config = replace(config_of(2), train=TrainConfig(max_steps=400, val_size=0))
    config = resolve(config, Calendar(1), panel.lengths)
    examples = examples_of(panel, (), 2)
    network = make_network(config, examples.spec)
    network.point.anchor.zero_()
    network.point.trust.fill_(1e-6)
    yardstick = LossScale.measure(panel, config, window=8)

    progress = fit_network(network, TrainingTask(examples, config, yardstick))

    assert progress.factors is not None
    assert progress.factors.mean() == pytest.approx(1.0, abs=0.1)  # nothing is left to correct

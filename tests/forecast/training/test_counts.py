"""Counts: the usual counts that totals are compared with, within a season and on any scale."""

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
from tests.helpers.training import to_panel

DAY = np.r_[6, 9, 8, 6, 5, 5, 6, 8, 9, 9, 7, 5, 4, 3, 2, 1, np.zeros(7), 2]
"""Mean sales of a shop in each hour, from the morning on; nothing at night."""
DAYS = 30


def hourly_set(panel: Panel, seasons: tuple[int, ...], horizon: int) -> TrainingSet:
    """Return the training set of hourly counts."""
    spec = InputSpec(
        filters=FilterSpec(space="ratio", seasons=seasons, trends=MEANS, unit=None),
        calendar=Calendar(1),
        use_calendar=False,
        annual=False,
        holidays=None,
        static=StaticSpec(),
    )
    static, scale = np.zeros((panel.num_series, 0), np.float32), np.ones(panel.num_series)
    return TrainingSet.build(spec, panel, static, horizon=horizon, scale=scale)


@pytest.fixture(scope="module")
def means() -> np.ndarray:
    """Mean sales of three shops of different size, hour by hour."""
    return np.outer([0.5, 1, 2], np.tile(DAY, DAYS))


@pytest.fixture(scope="module")
def shops(means: np.ndarray) -> Panel:
    """Sales of the three shops: Poisson counts with these means."""
    return to_panel(np.random.default_rng(0).poisson(means).astype(float))


def config_of(horizon: int) -> Config:
    """Return the settings for hourly counts."""
    return Config(
        data=DataConfig(freq=1, kind="count", season_lengths=(24,)),
        model=ModelConfig(hidden_size=16, horizon=horizon),
        train=TrainConfig(max_steps=300),
    )


@pytest.mark.parametrize("horizon", [1, 6, 23])
def test_usual_counts_follow_the_season(means, horizon):
    """If every day is like the one before, they equal the targets, from any hour."""
    training_set = hourly_set(to_panel(means), (24,), horizon)
    earliest = torch.full((3,), 24 * (DAYS - 4))

    for chunk in iter_chunks(training_set.lengths.numpy(), num_lanes=3, chunk_length=12):
        origins = training_set.origins(chunk, torch.arange(12), training_set.lengths, earliest)
        usual = torch.where(origins.known, training_set.usual_counts(origins), 0.0)

        np.testing.assert_allclose(usual, origins.y * origins.known, rtol=0.02, atol=1e-6)


def test_the_daily_season_replaces_the_weekly_one_in_the_first_week(means):
    """Both seasonal forecasts are those of yesterday until there is a last week."""
    training_set = hourly_set(to_panel(means * np.repeat(np.arange(1, DAYS + 1), 24)), (24, 168), 6)
    (chunk,) = iter_chunks(training_set.lengths.numpy(), num_lanes=3, chunk_length=24 * DAYS)
    noons = torch.tensor([3 * 24 + 5, 10 * 24 + 5])

    origins = training_set.origins(
        chunk, noons, training_set.lengths, torch.zeros(3, dtype=torch.int64)
    )
    first_week, second_week = origins.position == noons[0], origins.position == noons[1]
    day, day_usual, week, week_usual = (origins.unit[..., None] * origins.skips[:, -4:]).unbind(1)

    torch.testing.assert_close(week[first_week], day[first_week])
    torch.testing.assert_close(week_usual[first_week], day_usual[first_week])
    y = training_set.y.pick(torch.arange(3 * DAYS * 24)).reshape(3, DAYS, 24)
    torch.testing.assert_close(week[second_week], y[:, 10 - 7, 6:12])
    torch.testing.assert_close(day[second_week], y[:, 10 - 1, 6:12])


def test_forecasts_of_a_part_of_the_day_follow_the_hour(means, shops):
    """Six hours ahead, from any hour, they are closer to the means than yesterday's sales."""
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


def test_forecasts_do_not_depend_on_the_unit(shops):
    """Revenue in dollars and in thousands of dollars gets the same forecasts, scaled."""
    until_noon = shops.head(shops.lengths - 12)
    dollars = replace(until_noon, values=2.5 * until_noon.values)
    thousands = replace(dollars, values=dollars.values / 1024)

    in_dollars, in_thousands = (
        forecast(bundle, warm_up(bundle, panel))[..., 0]
        for panel in (dollars, thousands)
        for bundle in [train(panel, config_of(6)).bundle]
    )

    np.testing.assert_allclose(in_dollars, 1024 * in_thousands, rtol=0.05, atol=0.05)


def test_quantiles_are_learned_around_the_shrunken_forecast():
    """If forecasts are shrunk to the last value, the intervals are as wide as its errors."""
    panel = to_panel(np.random.default_rng(0).poisson(20, (20, 400)).astype(float))
    config = replace(config_of(2), train=TrainConfig(max_steps=400, val_size=0))
    resolved = resolve(config, Calendar(1), panel.lengths)
    training_set = hourly_set(panel, (), 2)
    network = make_network(resolved, training_set.spec)
    network.point.best_skip.zero_()
    network.point.shrinkage.fill_(1e-6)
    loss_scale = LossScale.measure(panel, resolved, window=8)

    progress = fit_network(network, TrainingTask(training_set, resolved, loss_scale))

    assert progress.calibration is not None
    assert progress.calibration.factors.mean() == pytest.approx(1.0, abs=0.1)

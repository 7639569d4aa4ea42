"""Training: when the state is carried and dropped, and which steps are never seen."""

from dataclasses import replace

import numpy as np
import pytest

from forecast.config import Config, DataConfig, ModelConfig, TrainConfig
from forecast.data.panel import Panel
from forecast.errors import (
    TooShort,
)
from forecast.inference.forecasting import forecast
from forecast.inference.observing import warm_up
from forecast.training.train import train
from tests.helpers.training import to_panel, weights


def sines(count: int = 8, length: int = 200, period: int = 12) -> Panel:
    """Return seasonal series of different phase and size, whose amplitude rises and falls."""
    t = np.arange(length)
    phase = np.random.default_rng(0).uniform(0, 2 * np.pi, count)
    size = 10.0 * (1 + np.arange(count))
    swing = 3 * np.sin(2 * np.pi * t / 97)
    return to_panel(size[:, None] * (10 + swing * np.sin(2 * np.pi * t / period + phase[:, None])))


def test_a_small_model_beats_the_seasonal_naive():
    """Within seconds it learns the changing amplitude, which repeating the last season misses."""
    panel = sines()
    config = Config(
        data=DataConfig(freq=1, kind="positive", season_lengths=(12,)),
        model=ModelConfig(hidden_size=16, horizon=12),
        train=TrainConfig(max_steps=150),
    )
    cut = panel.lengths - 12
    y = panel.values.reshape(8, -1)

    bundle = train(panel.head(cut), config).bundle
    y_hat = forecast(bundle, warm_up(bundle, panel.head(cut)))[..., 0]

    ours, naive = np.abs(y[:, -12:] - y_hat).mean(), np.abs(y[:, -12:] - y[:, -24:-12]).mean()
    assert ours < 0.7 * naive


def test_stateful_and_stateless_training_give_different_models(panel, config):
    """The carried state changes what is learned: the stateless mode gives other weights."""
    carried = train(panel, config).bundle
    stateless = train(
        panel, replace(config, train=replace(config.train, stateful=False, shuffle="time"))
    ).bundle

    assert carried.digest != stateless.digest


def test_patience_stops_early_and_restores_the_best_weights(panel, config):
    """With a learning rate far too high, the run ends after its first validations."""
    config = replace(
        config,
        train=TrainConfig(
            max_steps=400,
            val_size=6,
            patience=2,
            check_every=5,
            learning_rate=3.0,
            finish_share=0.0,
        ),
    )

    history = train(panel, config).history

    losses = [event.val_loss for event in history if event.val_loss is not None]
    assert history[-1].step < 400
    assert min(losses) == losses[-3]


def test_the_second_phase_learns_from_the_held_out_steps(panel, config):
    """Other values in the last step give other weights of the recurrent part."""
    config = replace(config, train=replace(config.train, max_steps=100, val_size=12))
    changed = replace(panel, values=panel.values.copy())
    changed.values[panel.indptr[1:] - 1] *= 1.5

    ours, theirs = (weights(train(p, config).bundle) for p in (panel, changed))
    assert ours["embed.weight"] != theirs["embed.weight"]


def test_the_second_phase_leaves_the_intervals_as_wide_as_calibrated(panel, config):
    """Whatever it does to the memory, the mean log width at the same origins stays."""
    blocks = -(-panel.lengths // 12)
    epoch = int(max(blocks.max(), blocks.sum() // panel.num_series))
    sizes = {"val_size": 12, "chunk_length": 12, "batch_size": panel.num_series}

    def log_widths(steps: int, finish_share: float) -> np.ndarray:
        settings = replace(config.train, max_steps=steps, finish_share=finish_share, **sizes)
        bundle = train(panel, replace(config, train=settings)).bundle
        pasts = [panel.head(panel.lengths - held_out) for held_out in range(1, 13)]
        forecasts = np.stack(
            [forecast(bundle, warm_up(bundle, past), quantiles=(0.5, 0.9)) for past in pasts]
        )
        return np.log(np.log(forecasts[..., 2] / forecasts[..., 1])).mean(axis=(0, 1))

    before, after = log_widths(8 * epoch, 0.0), log_widths(10 * epoch, 0.2)
    np.testing.assert_allclose(after, before, atol=1e-3)


def test_series_too_short_to_learn_from_are_refused(panel, config):
    """Nothing is left to learn from when all steps are held out."""
    config = replace(config, train=replace(config.train, val_size=5))

    with pytest.raises(TooShort, match="two steps to learn from"):
        train(panel.head(np.full(panel.num_series, 5)), config)


def test_overlapping_windows_are_possible_without_state(panel, config):
    """The stateless mode, for comparison, may shuffle time and read steps more than once."""
    config = replace(
        config,
        train=TrainConfig(
            max_steps=5, stateful=False, shuffle="time", chunk_length=24, stride=6, batch_size=8
        ),
    )

    assert train(panel, config).history[-1].step == 5

"""Training: what is carried, dropped, repeated and never seen (the promises about training)."""

import json
import signal
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from forecast.bundle import Bundle
from forecast.config import Config, DataConfig, ModelConfig, TrainConfig
from forecast.data.panel import Panel
from forecast.errors import (
    BackwardState,
    CheckpointError,
    ConfigError,
    OverlappingState,
    ShuffledState,
    TooShort,
)
from forecast.inference.forecasting import forecast
from forecast.inference.observing import warm_up
from forecast.models.recurrent import RecurrentStack, State
from forecast.training.checkpoints import NAME
from forecast.training.progress import TrainEvent
from forecast.training.train import train

ROOT = Path(__file__).parents[3]
RUN = """
import json, sys
from pathlib import Path
import pandas, torch
from forecast.config import Config
from forecast.data.validation import check
from forecast.data.panel import Panel
from forecast.training.defaults import resolve
from forecast.training.train import train

torch.set_num_threads(1)
config = Config.from_dict(json.loads(sys.argv[2]))
table = pandas.read_parquet("examples/data/monthly_retail.parquet")[["unique_id", "ds", "y"]]
panel = Panel.from_frame(check(table, config.data)).take([0, 1, 2])
train(panel, config, checkpoint_dir=Path(sys.argv[1]))
"""


def weights(bundle: Bundle) -> dict[str, bytes]:
    """Every weight, as bytes."""
    state = bundle.network.state_dict()
    return {name: value.numpy().tobytes() for name, value in state.items()}


def sines(count: int = 8, length: int = 200, period: int = 12) -> Panel:
    """Seasonal series of different phase and size whose amplitude grows and fades."""
    t = np.arange(length)
    phase = np.random.default_rng(0).uniform(0, 2 * np.pi, count)
    size = 10.0 * (1 + np.arange(count))
    swing = 3 * np.sin(2 * np.pi * t / 97)
    y = size[:, None] * (10 + swing * np.sin(2 * np.pi * t / period + phase[:, None]))
    return Panel(
        ids=tuple(f"s{i}" for i in range(count)),
        indptr=length * np.arange(count + 1, dtype=np.int64),
        ds=np.tile(t, count),
        values=y.ravel(),
        observed=np.ones(y.size, np.bool_),
        known_future=np.zeros((y.size, 0), np.float32),
        past_only=np.zeros((y.size, 0), np.float32),
    )


def test_a_small_model_beats_the_seasonal_naive():
    """Within seconds it learns a modulation that repeating the last season misses."""
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


def test_two_runs_with_one_seed_give_equal_bundles(panel, config):
    """And another seed gives another one."""
    first, second = train(panel, config).bundle, train(panel, config).bundle
    other = train(panel, replace(config, train=replace(config.train, seed=1))).bundle

    assert first.digest == second.digest
    assert other.digest != first.digest


@pytest.mark.parametrize("dropout", [0.0, 0.2])
@pytest.mark.parametrize("stop", [7, 23])
def test_an_interrupted_run_resumes_to_the_same_weights(panel, config, tmp_path, stop, dropout):
    """Stopped in the middle of an epoch, it ends as if it had not been."""
    model = ModelConfig(hidden_size=8, horizon=6, num_layers=2, dropout=dropout)
    config = replace(
        config, model=model, train=replace(config.train, max_steps=30, checkpoint_every=1)
    )
    whole = train(panel, config).bundle

    def stop_there(event: TrainEvent) -> None:
        if event.step == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(panel, config, checkpoint_dir=tmp_path, on_event=stop_there)
    resumed = train(panel, config, checkpoint_dir=tmp_path, resume=True)

    assert weights(resumed.bundle) == weights(whole)
    assert [event.step for event in resumed.history] == list(range(1, 31))


@pytest.mark.parametrize("past", [0, 1])
def test_a_run_that_ended_early_resumes_to_the_same_weights(panel, config, tmp_path, past):
    """Stopped at the check after which its patience is over, or past it: it takes no step more."""
    impatient = replace(
        config.train,
        max_steps=60,
        checkpoint_every=1,
        patience=1,
        check_every=1,
        learning_rate=1.0,
    )
    config = replace(config, train=impatient)
    whole = train(panel, config)
    ended = len([event for event in whole.history if event.val_loss is not None])

    def stop_there(event: TrainEvent) -> None:
        if event.step == ended + past:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(panel, config, checkpoint_dir=tmp_path, on_event=stop_there)
    resumed = train(panel, config, checkpoint_dir=tmp_path, resume=True)

    assert ended < 40
    assert weights(resumed.bundle) == weights(whole.bundle)


def test_a_run_killed_outright_resumes_to_the_same_weights(panel, config, tmp_path):
    """A real process gets SIGKILL at whatever step it is in; its checkpoint is whole."""
    config = replace(config, train=replace(config.train, max_steps=300, checkpoint_every=1))
    short = panel.take([0, 1, 2])
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, str(tmp_path), json.dumps(config.to_dict())], cwd=ROOT
    )
    while not (tmp_path / NAME).exists():
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    with safe_open(tmp_path / NAME, framework="pt") as file:
        step = json.loads(file.metadata()["notes"])["step"]

    resumed, whole = (
        train(short, config, checkpoint_dir=folder, resume=True) for folder in (tmp_path, None)
    )

    assert 0 < step < 300
    assert weights(resumed.bundle) == weights(whole.bundle)


def test_a_checkpoint_of_other_data_or_settings_is_refused(panel, config, tmp_path):
    """Resuming never mixes two runs."""
    config = replace(config, train=replace(config.train, max_steps=4, checkpoint_every=2))
    train(panel, config, checkpoint_dir=tmp_path)
    other = replace(config, train=replace(config.train, learning_rate=1e-3))

    with pytest.raises(CheckpointError, match="other settings or other data"):
        train(panel, other, checkpoint_dir=tmp_path, resume=True)
    with pytest.raises(CheckpointError, match="other settings or other data"):
        train(panel.head(panel.lengths - 1), config, checkpoint_dir=tmp_path, resume=True)


def test_a_checkpoint_of_other_covariates_is_refused(panel, config, tmp_path):
    """Values alone do not tell two runs apart."""
    config = replace(
        config,
        train=replace(config.train, max_steps=4, checkpoint_every=2),
        data=replace(config.data, known_future=("price",)),
    )
    price = np.random.default_rng(0).random((len(panel.values), 1), np.float32)
    train(replace(panel, known_future=price), config, checkpoint_dir=tmp_path)

    revised = replace(panel, known_future=price + np.float32(0.1))
    with pytest.raises(CheckpointError, match="other settings or other data"):
        train(revised, config, checkpoint_dir=tmp_path, resume=True)


def test_a_damaged_checkpoint_is_refused(panel, config, tmp_path):
    """Cut short, it is named, not half read."""
    config = replace(config, train=replace(config.train, max_steps=4, checkpoint_every=2))
    train(panel, config, checkpoint_dir=tmp_path)
    path = tmp_path / NAME
    path.write_bytes(path.read_bytes()[:-100])

    with pytest.raises(CheckpointError, match="cannot be read"):
        train(panel, config, checkpoint_dir=tmp_path, resume=True)


def test_the_state_is_carried_within_an_epoch_and_dropped_at_each_series(panel, config):
    """Carrying changes what is learned; the stateless mode starts every chunk from zero."""
    carried = train(panel, config).bundle
    stateless = train(
        panel, replace(config, train=replace(config.train, stateful=False, shuffle="time"))
    ).bundle

    assert carried.digest != stateless.digest


def test_each_chunk_starts_from_the_state_the_one_before_left(panel, config):
    """Seen from the loop: zero where fresh, detached, and equal to the last result elsewhere."""
    seen: list[tuple[State, State]] = []

    def watch(module: nn.Module, inputs: tuple[Tensor, State], outputs: tuple[Tensor, State]):
        if isinstance(module, RecurrentStack) and torch.is_grad_enabled():
            seen.append((inputs[1], outputs[1]))

    hook = register_module_forward_hook(watch)
    try:
        train(panel, replace(config, train=replace(config.train, max_steps=25, batch_size=5)))
    finally:
        hook.remove()

    carried = 0
    for (_, before), (start, _) in pairwise(seen):
        assert start.hidden.grad_fn is None
        if start.hidden.shape != before.hidden.shape:
            continue
        kept = (start.hidden == before.hidden.detach()).all(-1).all(0)
        zero = (start.hidden == 0).all(-1).all(0)
        assert bool((kept | zero).all())
        carried += int((kept & ~zero).sum())
    assert carried > 50


def test_validation_does_not_touch_what_is_learned(panel, config):
    """With validation at every step the weights are those of a run that never validated."""
    quiet = replace(config, train=replace(config.train, max_steps=10, val_size=6))
    often = replace(quiet, train=replace(quiet.train, check_every=1))

    assert weights(train(panel, quiet).bundle) == weights(train(panel, often).bundle)


def test_patience_stops_early_and_puts_the_best_weights_back(panel, config):
    """A rate far too high never improves: the run ends after its first checks."""
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


def test_scaling_and_calibration_see_nothing_after_the_cutoff(panel, config):
    """Training on what precedes a cutoff gives the same bundle whatever comes after it."""
    cut = panel.lengths - 12
    wild = replace(panel, values=panel.values.copy())
    for begin, end in zip(panel.indptr[:-1] + cut, panel.indptr[1:], strict=True):
        wild.values[begin:end] = 1e9

    assert train(panel.head(cut), config).bundle.digest == (
        train(wild.head(cut), config).bundle.digest
    )


def test_the_validation_tail_is_not_learned_from(panel, config):
    """Without a last leg, what is learned does not depend on the steps kept: only trust does."""
    config = replace(
        config, train=replace(config.train, max_steps=10, val_size=12, finish_share=0.0)
    )
    wild = replace(panel, values=panel.values.copy())
    for end in panel.indptr[1:]:
        wild.values[end - 12 : end] *= 1.5

    ours, theirs = (weights(train(p, config).bundle) for p in (panel, wild))
    ours.pop("point.trust"), theirs.pop("point.trust")
    assert ours == theirs


def test_the_last_leg_learns_from_the_validation_tail(panel, config):
    """What was kept back is used in the end; calibration is of before."""
    config = replace(config, train=replace(config.train, max_steps=100, val_size=12))
    wild = replace(panel, values=panel.values.copy())
    wild.values[panel.indptr[1:] - 1] *= 1.5

    ours, theirs = (weights(train(p, config).bundle) for p in (panel, wild))
    assert ours["embed.weight"] != theirs["embed.weight"]


def test_the_last_leg_leaves_the_widths_as_calibrated(panel, config):
    """Whatever it does to the memory, the intervals stay as wide where they were calibrated."""
    blocks = -(-panel.lengths // 12)
    epoch = int(max(blocks.max(), blocks.sum() // panel.num_series))
    told = {"val_size": 12, "chunk_length": 12, "batch_size": panel.num_series}

    def log_widths(steps: int, finish_share: float) -> np.ndarray:
        settings = replace(config.train, max_steps=steps, finish_share=finish_share, **told)
        bundle = train(panel, replace(config, train=settings)).bundle
        ends = [panel.head(panel.lengths - left) for left in range(1, 13)]
        made = [forecast(bundle, warm_up(bundle, end), quantiles=(0.5, 0.9)) for end in ends]
        return np.log(np.log(np.stack(made)[..., 2] / np.stack(made)[..., 1])).mean(axis=(0, 1))

    before, after = log_widths(8 * epoch, 0.0), log_widths(10 * epoch, 0.2)
    np.testing.assert_allclose(after, before, atol=1e-3)


@pytest.mark.parametrize(
    ("error", "table"),
    [
        (ShuffledState, {"train": {"shuffle": "time"}}),
        (OverlappingState, {"train": {"chunk_length": 24, "stride": 12}}),
        (BackwardState, {"model": {"bidirectional": True}}),
        (ConfigError, {"train": {"patience": 3, "val_size": 0}}),
        (ConfigError, {"model": {"dropout": 0.2}}),
        (ConfigError, {"model": {"quantiles": [0.1, 0.5]}}),
    ],
)
def test_what_cannot_be_is_refused_with_the_way_out(error, table):
    """Said before anything runs, with what to do."""
    with pytest.raises(error) as caught:
        Config.from_dict(table)

    assert caught.value.help


def test_series_too_short_to_learn_from_are_refused(panel, config):
    """Nothing is left once the validation tail is kept."""
    config = replace(config, train=replace(config.train, val_size=5))

    with pytest.raises(TooShort, match="two steps to learn from"):
        train(panel.head(np.full(panel.num_series, 5)), config)


def test_overlapping_windows_are_possible_without_state(panel, config, tmp_path: Path):
    """The stateless mode may shuffle time and overlap, to compare with."""
    config = replace(
        config,
        train=TrainConfig(
            max_steps=5, stateful=False, shuffle="time", chunk_length=24, stride=6, batch_size=8
        ),
    )

    assert train(panel, config).history[-1].step == 5

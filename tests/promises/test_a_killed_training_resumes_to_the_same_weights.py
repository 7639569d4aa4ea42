"""Promise 9: a killed run resumes to the same weights; one seed gives one bundle."""

import json
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
from safetensors import safe_open

from forecast.config import ModelConfig
from forecast.training.checkpoints import NAME
from forecast.training.train import train
from tests.helpers.paths import ROOT
from tests.helpers.training import TRAIN_SCRIPT, train_until, weights


def test_two_runs_with_one_seed_give_equal_bundles(panel, config):
    """The digests of the bundles are equal, and another seed gives another digest."""
    first, second = train(panel, config).bundle, train(panel, config).bundle
    other = train(panel, replace(config, train=replace(config.train, seed=1))).bundle

    assert first.digest == second.digest
    assert other.digest != first.digest


@pytest.mark.parametrize("dropout", [0.0, 0.2])
@pytest.mark.parametrize("stop", [7, 23])
def test_an_interrupted_run_resumes_to_the_same_weights(panel, config, tmp_path, stop, dropout):
    """Stopped in the middle of an epoch, it ends as if it had not been stopped."""
    model = ModelConfig(hidden_size=8, horizon=6, num_layers=2, dropout=dropout)
    config = replace(
        config, model=model, train=replace(config.train, max_steps=30, checkpoint_every=1)
    )
    uninterrupted = train(panel, config).bundle

    train_until(stop, panel, config, tmp_path)
    resumed = train(panel, config, checkpoint_dir=tmp_path, resume=True)

    assert weights(resumed.bundle) == weights(uninterrupted)
    assert [event.step for event in resumed.history] == list(range(1, 31))


def test_a_killed_run_resumes_to_the_same_weights(panel, config, tmp_path):
    """A process that gets SIGKILL at any step leaves a whole checkpoint."""
    config = replace(config, train=replace(config.train, max_steps=300, checkpoint_every=1))
    short = panel.take([0, 1, 2])
    process = subprocess.Popen(
        [sys.executable, "-c", TRAIN_SCRIPT, str(tmp_path), json.dumps(config.to_dict())], cwd=ROOT
    )
    while not (tmp_path / NAME).exists():
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    with safe_open(tmp_path / NAME, framework="pt") as file:
        step = json.loads(file.metadata()["notes"])["step"]

    resumed, uninterrupted = (
        train(short, config, checkpoint_dir=folder, resume=True) for folder in (tmp_path, None)
    )

    assert 0 < step < 300
    assert weights(resumed.bundle) == weights(uninterrupted.bundle)

"""Checkpoints: a run resumes to the same weights, and never from a file of another run."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from forecast.errors import CheckpointError
from forecast.training.checkpoints import NAME
from forecast.training.train import train
from tests.helpers.training import train_until, weights


def read_keys(folder: Path) -> tuple[set[str], set[str]]:
    """Return the names of the tensors and of the notes in a checkpoint."""
    with safe_open(folder / NAME, framework="pt") as file:
        return set(file.keys()), set(json.loads(file.metadata()["notes"]))


NOTES = {
    "key",
    "step",
    "epoch",
    "chunk",
    "leg",
    "leg_begin",
    "correlation",
    "best_loss",
    "bad_checks",
    "history",
}


@pytest.mark.parametrize(
    ("stop", "weight_parts", "others"),
    [
        (20, {"network", "best"}, set()),
        (35, {"network", "settled"}, {"factors", "widths"}),
    ],
)
def test_a_checkpoint_has_the_keys_of_release_0_1(
    panel, config, tmp_path, stop, weight_parts, others
):
    """A run that an earlier release began can be resumed: the names in the file are its format."""
    settings = replace(config.train, max_steps=40, checkpoint_every=1, check_every=3, patience=50)
    train_until(stop, panel, replace(config, train=settings), tmp_path)

    tensors, notes = read_keys(tmp_path)

    names = {name.removeprefix("network.") for name in tensors if name.startswith("network.")}
    optimizer = {name for name in tensors if name.startswith("optimizer.")}
    assert "point.slopes" in names
    assert {name.split(".", 2)[2] for name in optimizer} == {"step", "exp_avg", "exp_avg_sq"}
    assert tensors - optimizer == {
        *(f"{part}.{name}" for part in weight_parts for name in names),
        *others,
        "state.hidden",
        "state.cell",
        "rng",
    }
    assert notes == NOTES


@pytest.mark.parametrize("steps_after", [0, 1])
def test_a_run_that_ended_early_resumes_to_the_same_weights(panel, config, tmp_path, steps_after):
    """Interrupted at or just after the validation that ends the phase, it takes no extra step."""
    impatient = replace(
        config.train,
        max_steps=60,
        checkpoint_every=1,
        patience=1,
        check_every=1,
        learning_rate=1.0,
    )
    config = replace(config, train=impatient)
    uninterrupted = train(panel, config)
    last_check = len([event for event in uninterrupted.history if event.val_loss is not None])

    train_until(last_check + steps_after, panel, config, tmp_path)
    resumed = train(panel, config, checkpoint_dir=tmp_path, resume=True)

    assert last_check < 40
    assert weights(resumed.bundle) == weights(uninterrupted.bundle)


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
    """Runs with the same values and other covariates are different runs."""
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
    """A file that was cut short is refused, not partly read."""
    config = replace(config, train=replace(config.train, max_steps=4, checkpoint_every=2))
    train(panel, config, checkpoint_dir=tmp_path)
    path = tmp_path / NAME
    path.write_bytes(path.read_bytes()[:-100])

    with pytest.raises(CheckpointError, match="cannot be read"):
        train(panel, config, checkpoint_dir=tmp_path, resume=True)

"""
Checkpoints of a training run, from which it resumes exactly where it was.

A checkpoint is one safetensors file with JSON metadata and no pickle:

    network.*                           weights
    best.*, settled.*                   best and calibrated weights
    optimizer.GROUP.*                   state of the optimiser
    state.hidden, state.cell            carried state, unless an epoch begins
    factors, widths                     calibration, once measured
    rng                                 state of torch's random generator
    notes (metadata)                    key of the run, counters and history; `leg` and
                                        `leg_begin` are the phase and the step it began at

A new checkpoint replaces the old one in one step, so that a killed run leaves one of the two.
"""

import dataclasses
import hashlib
import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from forecast.errors import CheckpointError
from forecast.files import replacing
from forecast.models.recurrent import State
from forecast.resolved_config import ResolvedConfig
from forecast.training.calibration import Calibration
from forecast.training.dataset import TrainingSet
from forecast.training.progress import Progress, TrainEvent

NAME = "checkpoint.safetensors"


def exists(directory: Path) -> bool:
    """Return whether the directory holds a checkpoint."""
    return (directory / NAME).is_file()


def save(
    directory: Path,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    key: str,
    progress: Progress,
) -> None:
    """
    Write everything that the next step depends on.

    Args:
        directory: Where the checkpoint goes; it is created if needed.
        network: The network in training.
        optimizer: Its optimiser.
        key: The `key_of` the run.
        progress: Position of the run.

    Raises:
        CheckpointError: The file cannot be written; the last checkpoint is as it was.
    """
    tensors = {f"network.{name}": value for name, value in network.state_dict().items()}
    tensors |= {f"best.{name}": value for name, value in progress.best_weights.items()}
    tensors |= {f"settled.{name}": value for name, value in progress.calibrated_weights.items()}
    for group, parts in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{group}.{name}": value for name, value in parts.items()}
    if progress.state is not None:
        tensors |= {"state.hidden": progress.state.hidden, "state.cell": progress.state.cell}
    correlation = 0.0
    if progress.calibration is not None:
        correlation = progress.calibration.correlation
        tensors["factors"] = torch.from_numpy(progress.calibration.factors)
        if progress.calibration.log_widths is not None:
            tensors["widths"] = torch.from_numpy(progress.calibration.log_widths)
    tensors["rng"] = torch.get_rng_state()
    notes = {
        "key": key,
        "step": progress.step,
        "epoch": progress.epoch,
        "chunk": progress.chunk,
        "leg": progress.phase,
        "leg_begin": progress.phase_start,
        "correlation": correlation,
        "best_loss": progress.best_loss,
        "bad_checks": progress.bad_checks,
        "history": [dataclasses.asdict(event) for event in progress.history],
    }
    directory.mkdir(parents=True, exist_ok=True)
    copies = {name: value.contiguous().clone() for name, value in tensors.items()}
    try:
        with replacing(directory / NAME) as temporary:
            save_file(copies, temporary, metadata={"notes": json.dumps(notes)})
    except SafetensorError as error:  # wraps the OSError of a full disk
        raise CheckpointError(
            f"the checkpoint cannot be written: {error}",
            where=str(directory),
            help="make room; then resume from the last checkpoint",
        ) from error


def load(
    directory: Path,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    key: str,
) -> Progress:
    """
    Restore network, optimiser and random generator, and return the position of the run.

    Raises:
        CheckpointError: The checkpoint cannot be read, or its `key_of` is not `key`: it belongs to
            other settings or other data.
    """
    path = directory / NAME
    try:
        with safe_open(path, framework="pt") as file:
            notes = json.loads(file.metadata()["notes"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise CheckpointError(
            f"the checkpoint cannot be read: {error}",
            where=str(path),
            help="delete it and start the run again",
        ) from error
    if notes["key"] != key:
        raise CheckpointError(
            "the checkpoint belongs to a run with other settings or other data",
            where=str(path),
            help="resume with the settings and data it was started with, or start without resume",
        )
    network.load_state_dict(_part(tensors, "network."))
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in _part(tensors, "optimizer.").items():
        group, _, key = name.partition(".")
        state.setdefault(int(group), {})[key] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    torch.set_rng_state(tensors["rng"])
    return Progress(
        step=notes["step"],
        epoch=notes["epoch"],
        chunk=notes["chunk"],
        phase=notes["leg"],
        phase_start=notes["leg_begin"],
        calibration=_calibration(tensors, notes["correlation"]),
        best_loss=notes["best_loss"],
        bad_checks=notes["bad_checks"],
        state=State(tensors["state.hidden"], tensors["state.cell"])
        if "state.hidden" in tensors
        else None,
        best_weights=_part(tensors, "best."),
        calibrated_weights=_part(tensors, "settled."),
        history=[TrainEvent(**event) for event in notes["history"]],
    )


def _calibration(tensors: dict[str, Tensor], correlation: float) -> Calibration | None:
    if "factors" not in tensors:
        return None
    log_widths = tensors["widths"].numpy() if "widths" in tensors else None
    return Calibration(tensors["factors"].numpy(), log_widths, correlation)


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names begin with `prefix`, without it."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def key_of(config: ResolvedConfig, training_set: TrainingSet) -> str:
    """Return a SHA-256 of settings, values and covariates: what a checkpoint and its run share."""
    digest = hashlib.sha256(json.dumps(config.to_dict(), sort_keys=True).encode())
    for values in (
        training_set.y.padded,
        training_set.lengths,
        training_set.features,
        training_set.dates,
        training_set.static,
    ):
        digest.update(values.contiguous().numpy().data)
    return digest.hexdigest()

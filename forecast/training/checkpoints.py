"""
A training run on disk, so that it goes on exactly where it was: JSON and safetensors, no pickle.

A checkpoint is written beside the old one and moved over it, so that a kill leaves one or the
other, whole.
"""

import dataclasses
import hashlib
import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from forecast.config import Config
from forecast.errors import CheckpointError
from forecast.files import replacing
from forecast.models.recurrent import State
from forecast.training.dataset import TrainingSet
from forecast.training.progress import Progress, TrainEvent

NAME = "checkpoint.safetensors"


def exists(directory: Path) -> bool:
    """Whether there is a checkpoint to resume from."""
    return (directory / NAME).is_file()


def save(
    directory: Path,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    key: str,
    progress: Progress,
) -> None:
    """Write everything the next step depends on, under the `key_of` its run."""
    tensors = {f"network.{name}": value for name, value in network.state_dict().items()}
    for part in ("best", "settled"):
        tensors |= {f"{part}.{name}": value for name, value in getattr(progress, part).items()}
    for group, parts in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{group}.{name}": value for name, value in parts.items()}
    if progress.state is not None:
        tensors |= {"state.hidden": progress.state.hidden, "state.cell": progress.state.cell}
    for name in ("factors", "widths"):
        if (measured := getattr(progress, name)) is not None:
            tensors[name] = torch.from_numpy(measured)
    tensors["rng"] = torch.get_rng_state()
    notes = {
        "key": key,
        "step": progress.step,
        "epoch": progress.epoch,
        "chunk": progress.chunk,
        "leg": progress.leg,
        "leg_begin": progress.leg_begin,
        "correlation": progress.correlation,
        "best_loss": progress.best_loss,
        "bad_checks": progress.bad_checks,
        "history": [dataclasses.asdict(event) for event in progress.history],
    }
    directory.mkdir(parents=True, exist_ok=True)
    copies = {name: value.contiguous().clone() for name, value in tensors.items()}
    try:
        with replacing(directory / NAME) as temporary:
            save_file(copies, temporary, metadata={"notes": json.dumps(notes)})
    except SafetensorError as error:  # it hides the system's error
        raise CheckpointError(
            f"the checkpoint cannot be written: {error}",
            where=str(directory),
            help="make room; the run goes on from the checkpoint before, with resume",
        ) from error


def load(
    directory: Path,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    key: str,
) -> Progress:
    """
    Put weights and optimiser back as they were and return where the run with this `key_of` was.

    Raises:
        CheckpointError: It cannot be read, or belongs to another configuration or data set.
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
        leg=notes["leg"],
        leg_begin=notes["leg_begin"],
        correlation=notes["correlation"],
        **{name: tensors[name].numpy() for name in ("factors", "widths") if name in tensors},
        best_loss=notes["best_loss"],
        bad_checks=notes["bad_checks"],
        state=State(tensors["state.hidden"], tensors["state.cell"])
        if "state.hidden" in tensors
        else None,
        best=_part(tensors, "best."),
        settled=_part(tensors, "settled."),
        history=[TrainEvent(**event) for event in notes["history"]],
    )


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def key_of(config: Config, examples: TrainingSet) -> str:
    """What a run and its checkpoint must share: settings, values, covariates."""
    digest = hashlib.sha256(json.dumps(config.to_dict(), sort_keys=True).encode())
    for values in (
        examples.y.padded,
        examples.lengths,
        examples.features,
        examples.dates,
        examples.static,
    ):
        digest.update(values.contiguous().numpy().data)
    return digest.hexdigest()

"""
Training: truncated back-propagation through time over ordered chunks, with the state carried.

Every step of every lane is an origin from which all horizons are learned at once ("forking
sequences"), so one pass over T observations learns from T origins. The first phase holds the last
steps of each series out: shrinkage and calibration are learned from them. The second phase learns
from all steps.

References:
    Williams & Peng, An efficient gradient-based algorithm for on-line training of recurrent
    network trajectories, Neural Computation 2(4), 1990 (truncated BPTT).
    Wen et al., A multi-horizon quantile recurrent forecaster, 2017 (forking sequences).
"""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from forecast.models.network import Network
from forecast.models.point_head import Future
from forecast.models.recurrent import State
from forecast.models.windowed import WindowedStack
from forecast.resolved_config import ResolvedTrainConfig
from forecast.training import checkpoints
from forecast.training.calibration import calibrate, rescale_widths
from forecast.training.dataset import Origins
from forecast.training.lanes import Chunk, iter_chunks, iter_windows
from forecast.training.losses import masked_mean, pinball, total_deviation
from forecast.training.objective import (
    TrainingTask,
    look_ahead,
    mean_point_loss,
    origin_point_loss,
    to_y,
)
from forecast.training.progress import Progress, RunningMeans, TrainEvent

EVENTS = 100
"""Approximate number of reports in a run."""
BETAS = (0.9, 0.98)
"""Moment decay rates of AdamW."""
TOTAL_WEIGHT = 20.0
"""Weight of the deviation of a chunk's totals, relative to the deviance of one count."""
MAX_VALIDATED = 1000
"""Most series in a validation."""


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of a run with its own learning-rate schedule and its own end of the data."""

    steps: int
    """Optimiser steps."""
    until: Int[Tensor, " series"]
    """Targets at or past this step of their series are not learned from."""


def fit_network(
    network: Network,
    task: TrainingTask,
    *,
    checkpoint_dir: Path | None = None,
    resume: bool = False,
    on_event: Callable[[TrainEvent], None] | None = None,
) -> Progress:
    """
    Train a network in place and calibrate it.

    The carried state is dropped at each epoch and wherever a series begins. Validation runs each
    series from the zero state, so that it does not touch the carried one. With `patience`, the
    first phase ends with the weights of the best validation. Shrinkage and calibration are then
    learned from the held-out steps, and the second phase trains on these steps as well.

    Args:
        network: The network to train.
        task: Data and settings.
        checkpoint_dir: Directory for checkpoints; None writes none. An interrupt leaves the last
            checkpoint as it is.
        resume: Go on from the checkpoint in `checkpoint_dir`, if there is one.
        on_event: Called with each report.

    Raises:
        CheckpointError: The checkpoint is damaged, or belongs to other settings or other data.
    """
    train, training_set = task.train, task.training_set
    optimizer = _optimizer(network, train)
    progress = Progress()
    key = checkpoints.key_of(task.config, training_set) if checkpoint_dir is not None else ""
    if resume and checkpoint_dir is not None and checkpoints.exists(checkpoint_dir):
        progress = checkpoints.load(checkpoint_dir, network, optimizer, key)
    run_phases = phases(task)
    steps = sum(phase.steps for phase in run_phases)
    report_every = max(1, steps // EVENTS)
    means = RunningMeans(train.max_grad_norm)
    if isinstance(network.stack, WindowedStack):
        network.stack.whole = not train.stateful and not network.stack.layers.bidirectional
    for phase in run_phases[progress.phase :]:
        network.train()
        for chunk, origins, rng in _chunks(task, phase, progress):
            if train.patience is not None and progress.bad_checks >= train.patience:
                break
            _learn(network, optimizer, task, phase, chunk, origins, rng, progress, means)
            val_loss = None
            if progress.phase == 0 and train.val_size and progress.step % train.check_every == 0:
                val_loss = _validate(network, task, phase, progress)
            if progress.step % report_every == 0 or val_loss is not None:
                event = means.event(progress, steps, val_loss)
                progress.history.append(event)
                if on_event is not None:
                    on_event(event)
            if checkpoint_dir is not None and progress.step % train.checkpoint_every == 0:
                checkpoints.save(checkpoint_dir, network, optimizer, key, progress)
        if progress.phase == 0:
            if progress.best_weights:
                network.load_state_dict(progress.best_weights)
            progress.calibration = calibrate(network, task, phase.until)
            progress.calibrated_weights = _copy_weights(network)
        elif progress.calibration is not None:
            progress.calibration = rescale_widths(
                network, task, run_phases[0].until, progress.calibration
            )
        progress.next_phase()
    network.eval()
    return progress


def phases(task: TrainingTask) -> list[Phase]:
    """
    Return the phases of a run: one without the held-out steps, then one with them.

    There is only one phase if no steps are held out or `finish_share` is 0.
    """
    train, lengths = task.train, task.training_set.lengths
    last = round(train.finish_share * train.max_steps) if train.val_size else 0
    blocks = -(-lengths // train.chunk_length)
    epoch = max(int(blocks.max()), int(blocks.sum()) // train.batch_size)
    if epoch <= 2 * last:  # whole epochs, since each ends with the held-out steps
        last = max(1, round(last / epoch)) * epoch
    first = Phase(train.max_steps - last, (lengths - train.val_size).clamp(min=0))
    return [first, Phase(last, lengths)] if last else [first]


def _optimizer(network: Network, train: ResolvedTrainConfig) -> torch.optim.Optimizer:
    """Put point and quantile parts into two groups, whose gradients are clipped separately."""
    point = [
        parameter
        for name, parameter in network.named_parameters()
        if not name.startswith("quantiles.")
    ]
    return torch.optim.AdamW(
        [{"params": point}, {"params": list(network.quantiles.parameters())}],
        lr=train.learning_rate,
        betas=BETAS,
        weight_decay=train.weight_decay,
        fused=True,
    )


def _chunks(
    task: TrainingTask, phase: Phase, progress: Progress
) -> Iterator[tuple[Chunk, Origins, np.random.Generator]]:
    """
    Yield the rest of a phase: each chunk, its origins to learn from, and a random generator.

    All draws depend on seed, epoch and chunk alone, so that a resumed run repeats them.
    """
    train, training_set = task.train, task.training_set
    lengths = torch.minimum(training_set.lengths, phase.until).numpy()
    for epoch in itertools.count(progress.epoch):
        rng = np.random.default_rng([train.seed, epoch])
        if train.stateful:
            spread = train.chunk_length // 4
            length = int(rng.integers(train.chunk_length - spread, train.chunk_length + spread + 1))
            order = rng if train.shuffle == "series" else None
            chunks = iter_chunks(
                lengths, num_lanes=train.batch_size, chunk_length=length, rng=order
            )
        else:
            length = train.chunk_length
            chunks = iter_windows(
                lengths,
                num_lanes=train.batch_size,
                chunk_length=length,
                stride=train.stride or length,
                rng=rng,
            )
        num_origins = max(1, round(train.origins_share * length))
        for index, chunk in enumerate(chunks):
            if index < progress.chunk:
                continue
            if progress.step - progress.phase_start >= phase.steps:
                return
            chunk_rng = np.random.default_rng([train.seed, epoch, index])
            steps = torch.from_numpy(np.sort(chunk_rng.choice(length, num_origins, replace=False)))
            earliest = task.loss_scale.earliest
            yield chunk, training_set.origins(chunk, steps, phase.until, earliest), chunk_rng
        progress.epoch, progress.chunk, progress.state = epoch + 1, 0, None


def _learn(
    network: Network,
    optimizer: torch.optim.Optimizer,
    task: TrainingTask,
    phase: Phase,
    chunk: Chunk,
    origins: Origins,
    rng: np.random.Generator,
    progress: Progress,
    means: RunningMeans,
) -> None:
    """Take one optimiser step on a chunk and carry the state on, even if no target is known."""
    train, training_set = task.train, task.training_set
    state = _initial_state(network, chunk, progress, train.stateful)
    static = training_set.static_of(chunk)
    dropout = task.config.model.static_dropout
    if dropout and static.shape[1]:
        static = static * torch.from_numpy(rng.random((len(static), 1)) >= dropout)
    inputs = training_set.inputs(chunk, int(chunk.length.max()))
    memory, state = network.encode(inputs, static, state)
    if bool(origins.known.any()):
        future = look_ahead(network, training_set, chunk, origins)
        losses = _losses(network, memory[origins.lane, origins.step], future, origins, task)
        share_done = (progress.step - progress.phase_start) / phase.steps
        rate = train.learning_rate * _schedule(share_done)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad()
        (losses[0] + losses[1]).backward()
        norms = [
            clip_grad_norm_(group["params"], train.max_grad_norm)
            for group in optimizer.param_groups
        ]
        optimizer.step()
        means.add(losses, norms[0], progress.epoch)
    means.observations += int(chunk.length.sum())
    progress.step += 1
    progress.chunk += 1
    progress.state = state.detach()


def _initial_state(network: Network, chunk: Chunk, progress: Progress, stateful: bool) -> State:
    """Return the state a chunk begins with: the carried one, but zero where a series begins."""
    if progress.state is None or not stateful:
        return network.initial_state(len(chunk.series))
    return progress.state.drop(torch.from_numpy(chunk.fresh))


def _losses(
    network: Network, memory: Tensor, future: Future, origins: Origins, task: TrainingTask
) -> tuple[Tensor, Tensor]:
    """
    Return point loss and quantile loss, whose gradients reach separate parts of the network.

    The quantiles are learned around the shrunken forecast, once the shrinkage is set. Prices train
    no point part, so for them the quantile loss trains the memory as well.
    """
    training_set, loss_scale = task.training_set, task.loss_scale
    relative = network.point(memory, origins.skips, future)
    point = masked_mean(
        origin_point_loss(relative, origins, loss_scale, training_set), origins.known
    )
    kind = task.config.data.kind
    if kind == "count":
        y_hat = to_y(relative, origins, training_set)
        usual = training_set.usual_counts(origins)
        _, group = origins.step.unique(return_inverse=True)
        weight = origins.known / loss_scale.size
        deviation = total_deviation(y_hat * weight, usual * weight, group)
        point = point + TOTAL_WEIGHT * deviation * loss_scale.one / loss_scale.size
    remembered = memory if kind == "price" else memory.detach()
    shrunk = relative.detach()
    if bool((network.point.shrinkage < 1).any()):
        shrunk = network.point.shrink(shrunk, network.point.best_skip_forecast(origins.skips))
    quantiles = network.quantiles(remembered, shrunk)
    loss = pinball(
        origins.relative - quantiles.median,
        quantiles.distances,
        task.upper,
        with_median=network.quantiles.shifted,
    )
    return point, masked_mean(loss, origins.known)


def _schedule(share_done: float) -> float:
    """Return the learning-rate factor: a warm-up over 5 % of the steps, then a cosine to 1 %."""
    warm_up = min(1.0, share_done / 0.05 + 0.02)
    return warm_up * (0.01 + 0.99 * (1 + math.cos(math.pi * share_done)) / 2)


def _validate(network: Network, task: TrainingTask, phase: Phase, progress: Progress) -> float:
    """Return the validation loss and, with `patience`, keep the best weights in `progress`."""
    loss = mean_point_loss(
        network,
        task.training_set,
        task.loss_scale,
        first=phase.until - 1,
        until=task.sample_lengths(MAX_VALIDATED),
    )
    network.train()
    if task.train.patience is not None:
        if loss < progress.best_loss:
            progress.best_loss, progress.bad_checks = loss, 0
            progress.best_weights = _copy_weights(network)
        else:
            progress.bad_checks += 1
    return loss


def _copy_weights(network: Network) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}

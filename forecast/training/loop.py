"""
Training: truncated back-propagation through time over ordered chunks, with the state carried.

Every step of every lane is an origin that learns all horizons at once ("forking sequences"), so
one pass over T observations learns from T origins. The last steps of each series are kept back
at first: guard and calibration are measured on them, then the network finishes on all steps.

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

from forecast.config import TrainConfig
from forecast.models.network import Network
from forecast.models.point_head import Future
from forecast.models.recurrent import State
from forecast.models.windowed import WindowedStack
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
"""How often a run reports."""
BETAS = (0.9, 0.98)
TOTAL_WEIGHT = 20.0
"""Of the totals of a chunk, beside the deviance of one count."""
MAX_VALIDATED = 1000
"""Most series that a validation looks at."""


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of a run with a schedule of its own: learning, then finishing on all steps."""

    steps: int
    until: Int[Tensor, " series"]
    """Targets at or past this step of their series are not learned from."""


def fit_network(
    network: Network,
    lesson: TrainingTask,
    *,
    checkpoint_dir: Path | None = None,
    resume: bool = False,
    on_event: Callable[[TrainEvent], None] | None = None,
) -> Progress:
    """
    Train in place; the state is reset at each epoch and wherever a series begins.

    With `val_size`, validation runs on a state of its own from the beginning of each series, so
    that the carried training state is never touched by it; with `patience`, the weights of the
    best check are put back. Guard and calibration are then measured on the steps kept, and the
    last leg learns from them as well. An interrupt leaves the last checkpoint as it was.

    Raises:
        CheckpointError: `resume` finds a checkpoint of another configuration or data set.
    """
    train, examples = lesson.train, lesson.examples
    assert train.check_every is not None
    optimizer = _optimizer(network, train)
    progress = Progress()
    key = checkpoints.key_of(lesson.config, examples) if checkpoint_dir is not None else ""
    if resume and checkpoint_dir is not None and checkpoints.exists(checkpoint_dir):
        progress = checkpoints.load(checkpoint_dir, network, optimizer, key)
    legs = phases(lesson)
    steps = sum(leg.steps for leg in legs)
    report_every = max(1, steps // EVENTS)
    meter = RunningMeans(train.max_grad_norm)
    if isinstance(network.stack, WindowedStack):
        network.stack.whole = not train.stateful and not network.stack.layers.bidirectional
    for leg in legs[progress.leg :]:
        network.train()
        for chunk, origins, rng in _plan(lesson, leg, progress):
            if train.patience is not None and progress.bad_checks >= train.patience:
                break
            _learn(network, optimizer, lesson, leg, chunk, origins, rng, progress, meter)
            val_loss = None
            if progress.leg == 0 and train.val_size and progress.step % train.check_every == 0:
                val_loss = _validate(network, lesson, leg, progress)
            if progress.step % report_every == 0 or val_loss is not None:
                event = meter.event(progress, steps, val_loss)
                progress.history.append(event)
                if on_event is not None:
                    on_event(event)
            if checkpoint_dir is not None and progress.step % train.checkpoint_every == 0:
                checkpoints.save(checkpoint_dir, network, optimizer, key, progress)
        if progress.leg == 0:
            if progress.best:
                network.load_state_dict(progress.best)
            calibrate(network, lesson, leg.until, progress)
        elif progress.widths is not None:
            rescale_widths(network, lesson, legs[0].until, progress)
        progress.turn()
    network.eval()
    return progress


def phases(lesson: TrainingTask) -> list[Phase]:
    """The last of them, of two, learns from the steps kept back as well."""
    train, lengths = lesson.train, lesson.examples.lengths
    assert train.max_steps is not None
    assert train.val_size is not None
    assert train.batch_size is not None
    assert train.chunk_length is not None
    last = round(train.finish_share * train.max_steps) if train.val_size else 0
    blocks = -(-lengths // train.chunk_length)
    epoch = max(int(blocks.max()), int(blocks.sum()) // train.batch_size)
    if epoch <= 2 * last:  # whole epochs: a begun one would end before the steps that are new
        last = max(1, round(last / epoch)) * epoch
    until = (lengths - train.val_size).clamp(min=0)
    legs = [Phase(train.max_steps - last, until)]
    return [*legs, Phase(last, lengths)] if last else legs


def _optimizer(network: Network, train: TrainConfig) -> torch.optim.Optimizer:
    """Point and quantile parts are clipped apart, so that neither scales the other's step."""
    point = [p for name, p in network.named_parameters() if not name.startswith("quantiles.")]
    return torch.optim.AdamW(
        [{"params": point}, {"params": list(network.quantiles.parameters())}],
        lr=train.learning_rate,
        betas=BETAS,
        weight_decay=train.weight_decay,
        fused=True,
    )


def _plan(
    lesson: TrainingTask, leg: Phase, progress: Progress
) -> Iterator[tuple[Chunk, Origins, np.random.Generator]]:
    """
    The chunks of a leg from where `progress` stands, with the origins to learn from and a stream.

    What is drawn depends on seed, epoch and chunk alone, so that a resumed run draws the same.
    """
    train, examples = lesson.train, lesson.examples
    lengths = torch.minimum(examples.lengths, leg.until).numpy()
    assert train.batch_size is not None
    assert train.chunk_length is not None
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
        share = max(1, round(train.origins_share * length))
        for index, chunk in enumerate(chunks):
            if index < progress.chunk:
                continue
            if progress.step - progress.leg_begin >= leg.steps:
                return
            draw = np.random.default_rng([train.seed, epoch, index])
            steps = torch.from_numpy(np.sort(draw.choice(length, share, replace=False)))
            earliest = lesson.yardstick.earliest
            yield chunk, examples.origins(chunk, steps, leg.until, earliest), draw
        progress.epoch, progress.chunk, progress.state = epoch + 1, 0, None


def _learn(
    network: Network,
    optimizer: torch.optim.Optimizer,
    lesson: TrainingTask,
    leg: Phase,
    chunk: Chunk,
    origins: Origins,
    rng: np.random.Generator,
    progress: Progress,
    meter: RunningMeans,
) -> None:
    """One optimiser step on one chunk; the state goes on even where there is nothing to learn."""
    train, examples = lesson.train, lesson.examples
    state = _start(network, chunk, progress, train.stateful)
    static = examples.take(chunk)
    dropout = lesson.config.model.static_dropout
    if dropout and static.shape[1]:
        static = static * torch.from_numpy(rng.random((len(static), 1)) >= dropout)
    inputs = examples.inputs(chunk, int(chunk.length.max()))
    memory, state = network.encode(inputs, static, state)
    if bool(origins.known.any()):
        future = look_ahead(network, examples, chunk, origins)
        losses = _losses(network, memory[origins.lane, origins.step], future, origins, lesson)
        rate = train.learning_rate * _schedule((progress.step - progress.leg_begin) / leg.steps)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad()
        (losses[0] + losses[1]).backward()
        norms = [
            clip_grad_norm_(group["params"], train.max_grad_norm)
            for group in optimizer.param_groups
        ]
        optimizer.step()
        meter.add(losses, norms[0], progress.epoch)
    meter.observations += int(chunk.length.sum())
    progress.step += 1
    progress.chunk += 1
    progress.state = state.detach()


def _start(network: Network, chunk: Chunk, progress: Progress, stateful: bool) -> State:
    """The state this chunk begins with: carried, and zero where a series begins."""
    if progress.state is None or not stateful:
        return network.initial_state(len(chunk.series))
    return progress.state.drop(torch.from_numpy(chunk.fresh))


def _losses(
    network: Network, memory: Tensor, future: Future, origins: Origins, lesson: TrainingTask
) -> tuple[Tensor, Tensor]:
    """
    Point loss, and quantile loss on what the point part cannot see: they train apart.

    The quantiles are learned beside the forecast that the guard, once it is set, leaves of it. A
    price has no point part to train, so there they own the memory.
    """
    relative = network.point(memory, origins.skips, future)
    point = masked_mean(
        origin_point_loss(relative, origins, lesson.yardstick, lesson.examples), origins.known
    )
    kind = lesson.config.data.kind
    if kind == "count":
        y_hat = to_y(relative, origins, lesson.examples)
        usual = lesson.examples.usual_counts(origins)
        _, group = origins.step.unique(return_inverse=True)
        held = origins.known / lesson.yardstick.size
        guard = total_deviation(y_hat * held, usual * held, group)
        point = point + TOTAL_WEIGHT * guard * lesson.yardstick.one / lesson.yardstick.size
    remembered = memory if kind == "price" else memory.detach()
    guarded = relative.detach()
    if bool((network.point.trust < 1).any()):
        guarded = network.point.guard(guarded, network.point.anchored(origins.skips))
    quantiles = network.quantiles(remembered, guarded)
    loss = pinball(
        origins.relative - quantiles.median,
        quantiles.distances,
        lesson.upper,
        with_median=network.quantiles.shifted,
    )
    return point, masked_mean(loss, origins.known)


def _schedule(share: float) -> float:
    """Warm up over 5 % of the steps, then fall along a cosine to 1 %."""
    return min(1.0, share / 0.05 + 0.02) * (0.01 + 0.99 * (1 + math.cos(math.pi * share)) / 2)


def _validate(network: Network, lesson: TrainingTask, leg: Phase, progress: Progress) -> float:
    """The validation loss; with `patience`, the best weights so far are kept."""
    loss = mean_point_loss(
        network,
        lesson.examples,
        lesson.yardstick,
        first=leg.until - 1,
        until=lesson.some(MAX_VALIDATED),
    )
    network.train()
    if lesson.train.patience is not None:
        if loss < progress.best_loss:
            progress.best_loss, progress.bad_checks = loss, 0
            progress.best = {k: v.clone() for k, v in network.state_dict().items()}
        else:
            progress.bad_checks += 1
    return loss

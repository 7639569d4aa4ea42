"""
Training: truncated back-propagation through time over ordered chunks, with the state carried.

Every step of every lane is an origin that learns all horizons at once ("forking sequences"), so
one pass over T observations learns from T origins.

References:
    Williams & Peng, An efficient gradient-based algorithm for on-line training of recurrent
    network trajectories, Neural Computation 2(4), 1990 (truncated BPTT).
    Wen et al., A multi-horizon quantile recurrent forecaster, 2017 (forking sequences).
"""

import itertools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from forecast import checkpoints
from forecast.bundle import Bundle, make_network, make_spec
from forecast.calendars import Calendar
from forecast.calibration import fit_factors
from forecast.checkpoints import Progress, TrainEvent
from forecast.config import Config, TrainConfig
from forecast.evaluation import (
    Yardstick,
    best_skip,
    evaluate,
    mean_point_loss,
    origin_point_loss,
)
from forecast.examples import Examples, Origins
from forecast.lanes import Chunk, iter_chunks, iter_windows
from forecast.losses import masked_mean, pinball
from forecast.models.network import Network
from forecast.models.recurrent import State
from forecast.panel import Panel
from forecast.presets import resolve
from forecast.statics import StaticSpec

EVENTS = 100
"""How often a run reports."""
BETAS = (0.9, 0.98)
MANY_ZEROS = 0.05
"""Share of zeros from which the log scale would mostly describe its own floor."""
MAX_CALIBRATED = 2000


def fit_network(
    network: Network,
    examples: Examples,
    config: Config,
    yardstick: Yardstick,
    *,
    checkpoint_dir: Path | None = None,
    resume: bool = False,
    on_event: Callable[[TrainEvent], None] | None = None,
) -> list[TrainEvent]:
    """
    Train in place; the state is reset at each epoch and wherever a series begins.

    With `val_size`, validation runs on a state of its own from the beginning of each series, so
    that the carried training state is never touched by it; with `patience`, the weights of the
    best check are put back at the end. An interrupt leaves the last checkpoint as it was.

    Raises:
        CheckpointError: `resume` finds a checkpoint of another configuration or data set.
    """
    train = config.train
    assert train.max_steps is not None
    point = [p for name, p in network.named_parameters() if not name.startswith("quantiles.")]
    optimizer = torch.optim.AdamW(
        [{"params": point}, {"params": list(network.quantiles.parameters())}],
        betas=BETAS, weight_decay=train.weight_decay,
    )  # fmt: skip
    progress = Progress()
    if resume and checkpoint_dir is not None and checkpoints.exists(checkpoint_dir):
        progress = checkpoints.load(checkpoint_dir, network, optimizer, config, examples)
    learn_until = (examples.lengths - train.val_size).clamp(min=0)
    upper = torch.tensor([q for q in config.model.quantiles if q > 0.5])
    report_every = max(1, train.max_steps // EVENTS)
    network.train()
    meter = _Meter()
    for chunk, origins in _plan(examples, train, yardstick, learn_until, progress):
        state = _start(network, chunk, progress, train.stateful)
        steps = int(chunk.length.max())
        memory, state = network.remember(examples.inputs(chunk, steps), state)
        if bool(origins.known.any()):
            seen = memory[origins.lane, origins.step]
            losses = _losses(network, seen, origins, yardstick, upper, examples)
            _set_rate(optimizer, train, progress.step)
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

        val_loss = None
        if train.val_size and progress.step % train.check_every == 0:
            val_loss = mean_point_loss(
                network, examples, yardstick, first=learn_until - 1, until=examples.lengths
            )
            network.train()
            _keep_best(network, progress, val_loss)
        if progress.step % report_every == 0 or val_loss is not None:
            event = meter.event(progress, train.max_steps, val_loss)
            progress.history.append(event)
            if on_event is not None:
                on_event(event)
        if checkpoint_dir is not None and progress.step % train.checkpoint_every == 0:
            checkpoints.save(checkpoint_dir, network, optimizer, config, examples, progress)
        if train.patience is not None and progress.bad_checks >= train.patience:
            break
    if train.patience is not None and progress.best:
        network.load_state_dict(progress.best)
    network.eval()
    return progress.history


def _plan(
    examples: Examples,
    train: TrainConfig,
    yardstick: Yardstick,
    learn_until: Tensor,
    progress: Progress,
) -> Iterator[tuple[Chunk, Origins]]:
    """
    The chunks of all epochs with the origins to learn from, from where `progress` stands.

    What is drawn depends on seed, epoch and chunk alone, so that a resumed run draws the same.
    """
    lengths = examples.lengths.numpy()
    assert train.batch_size is not None
    assert train.chunk_length is not None
    assert train.max_steps is not None
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
                lengths, num_lanes=train.batch_size, chunk_length=length,
                stride=train.stride or length, rng=rng,
            )  # fmt: skip
        share = max(1, round(train.origins_share * length))
        for index, chunk in enumerate(chunks):
            if index < progress.chunk:
                continue
            if progress.step >= train.max_steps:
                return
            draw = np.random.default_rng([train.seed, epoch, index])
            steps = np.sort(draw.choice(length, share, replace=False))
            yield (
                chunk,
                examples.origins(chunk, torch.from_numpy(steps), learn_until, yardstick.earliest),
            )
        progress.epoch, progress.chunk, progress.state = epoch + 1, 0, None


def _start(network: Network, chunk: Chunk, progress: Progress, stateful: bool) -> State:
    """The state this chunk begins with: carried, and zero where a series begins."""
    if progress.state is None or not stateful:
        return network.stack.initial_state(len(chunk.series))
    return progress.state.drop(torch.from_numpy(chunk.fresh))


def _losses(
    network: Network,
    memory: Tensor,
    origins: Origins,
    yardstick: Yardstick,
    upper: Tensor,
    examples: Examples,
) -> tuple[Tensor, Tensor]:
    """Point loss, and quantile loss on what the point part cannot see: they train apart."""
    relative = network.point(memory, origins.skips, network.scale_future(origins.future))
    point = origin_point_loss(relative, origins, yardstick, examples)
    distances = network.quantiles(memory.detach())
    residual = origins.relative - relative.detach()
    return (
        masked_mean(point, origins.known),
        masked_mean(pinball(residual, distances, upper), origins.known),
    )


def _set_rate(optimizer: torch.optim.Optimizer, train: TrainConfig, step: int) -> None:
    """Warm up over 5 % of the steps, then fall along a cosine to 1 %."""
    assert train.max_steps is not None
    share = step / train.max_steps
    rate = min(1.0, share / 0.05 + 0.02) * (0.01 + 0.99 * (1 + math.cos(math.pi * share)) / 2)
    for group in optimizer.param_groups:
        group["lr"] = train.learning_rate * rate


def _keep_best(network: Network, progress: Progress, val_loss: float) -> None:
    if val_loss < progress.best_loss:
        progress.best_loss, progress.bad_checks = val_loss, 0
        progress.best = {name: value.clone() for name, value in network.state_dict().items()}
    else:
        progress.bad_checks += 1


class _Meter:
    """Means since the last report; the last ones again where nothing had a target."""

    def __init__(self) -> None:
        self.begin = self.since = time.perf_counter()
        self.means = (0.0, 0.0, 0.0)
        self.sums, self.count, self.observations = np.zeros(3), 0, 0
        self.epoch, self.of_epoch = -1, list[float]()
        self.epoch_loss: float | None = None

    def add(self, losses: tuple[Tensor, Tensor], norm: Tensor, epoch: int) -> None:
        if epoch != self.epoch:
            if self.of_epoch:
                self.epoch_loss = sum(self.of_epoch) / len(self.of_epoch)
            self.epoch, self.of_epoch = epoch, []
        self.of_epoch.append(losses[0].item())
        self.sums += [losses[0].item(), losses[1].item(), norm.item()]
        self.count += 1

    def event(self, progress: Progress, steps: int, val_loss: float | None) -> TrainEvent:
        now = time.perf_counter()
        if self.count:
            self.means = tuple((self.sums / self.count).tolist())
        loss, quantile_loss, norm = self.means
        if progress.step == steps and self.of_epoch:
            self.epoch_loss = sum(self.of_epoch) / len(self.of_epoch)
        event = TrainEvent(
            step=progress.step, steps=steps, epoch=progress.epoch, loss=loss,
            quantile_loss=quantile_loss, grad_norm=norm,
            epoch_loss=self.epoch_loss, val_loss=val_loss,
            observations_per_s=self.observations / (now - self.since), seconds=now - self.begin,
        )  # fmt: skip
        self.since, self.sums, self.count, self.observations = now, np.zeros(3), 0, 0
        self.epoch_loss = None
        return event


@dataclass(frozen=True, slots=True)
class Trained:
    """What a run leaves: the model, and how it got there."""

    bundle: Bundle
    history: list[TrainEvent]


def train(
    panel: Panel,
    config: Config,
    *,
    checkpoint_dir: Path | None = None,
    resume: bool = False,
    on_event: Callable[[TrainEvent], None] | None = None,
    facts: dict[str, Any] | None = None,
) -> Trained:
    """
    Learn from everything in the panel; what may be known is the caller's choice of panel.

    Args:
        panel: The training series. Scalers, seasons and calibration see nothing else.
        config: Settings; what is left open is chosen from frequency and lengths. `data.freq`
            and `data.kind` are known, as `frames.check` leaves them.
        checkpoint_dir: Where to leave checkpoints.
        resume: Go on from the checkpoint there, if there is one.
        on_event: Called about a hundred times.
        facts: Noted in the bundle beside what training knows itself.
    """
    assert config.data.freq is not None
    calendar = Calendar(config.data.freq)
    config = resolve(config, calendar, panel.lengths)
    spec = make_spec(config, calendar, StaticSpec.learn(panel.static), log=_use_log(panel, config))
    torch.manual_seed(config.train.seed)
    network = make_network(config, spec)
    yardstick = Yardstick.measure(panel, config, window=spec.filters.window)
    assert config.model.horizon is not None
    examples = Examples.build(
        spec, panel, spec.static.encode(panel.static, panel.ids),
        horizon=config.model.horizon, scale=yardstick.scale,
    )  # fmt: skip
    learn_until = (examples.lengths - config.train.val_size).clamp(min=0)
    _fit_scaling(network, examples, learn_until)
    with torch.no_grad():
        network.point.mix.bias[best_skip(examples, yardstick, learn_until)] = 2.0
    history = fit_network(
        network, examples, config, yardstick,
        checkpoint_dir=checkpoint_dir, resume=resume, on_event=on_event,
    )  # fmt: skip
    bundle = Bundle(
        config=config, spec=spec, network=network,
        factors=_calibrate(network, examples, config),
        facts={
            "series": panel.num_series, "rows": len(panel.values),
            "cutoff": calendar.text(panel.ds.max()), "seed": config.train.seed,
            "steps": history[-1].step if history else 0, **(facts or {}),
        },
    )  # fmt: skip
    return Trained(bundle, history)


def _use_log(panel: Panel, config: Config) -> bool:
    """Positive data are learned on the log scale, unless zeros are common."""
    zeros = float((panel.values[panel.observed] <= 0).mean())
    return config.data.kind == "positive" and zeros < MANY_ZEROS


def _fit_scaling(network: Network, examples: Examples, until: Tensor) -> None:
    """Mean and spread of the inputs over the steps that may be learned from."""
    step = torch.arange(len(examples.y)) - examples.begins.repeat_interleave(examples.lengths)
    rows = (step < until.repeat_interleave(examples.lengths)).nonzero()[:, 0]
    rows = rows[:: max(1, len(rows) // 500_000)]
    features, known = examples.features[rows], examples.known_future[rows]
    future = torch.cat([known - examples.means[rows], known, examples.calendar[rows]], dim=1)
    for name, values in (("input", features), ("future", future)):
        if values.shape[1]:
            getattr(network, f"{name}_mean").copy_(values.mean(0))
            getattr(network, f"{name}_scale").copy_(values.std(0, correction=0).clamp(min=1e-3))


def _calibrate(network: Network, examples: Examples, config: Config) -> np.ndarray:
    """
    Factors from the last origins before the cutoff: held out with `val_size`, else of the fit.

    At most 2,000 series take part, drawn by the seed.
    """
    upper = tuple(q for q in config.model.quantiles if q > 0.5)
    held_out = config.train.val_size
    span = held_out or 2 * examples.horizon
    rng = np.random.default_rng(config.train.seed)
    rows = rng.permutation(len(examples.lengths))[:MAX_CALIBRATED]
    until = torch.zeros_like(examples.lengths)
    until[rows] = examples.lengths[rows]
    first = (examples.lengths - span - 1).clamp(min=0)
    residual, distances, known = [], [], []
    with torch.no_grad():
        for origins, memory, relative in evaluate(network, examples, first=first, until=until):
            residual.append((origins.relative - relative).numpy())
            distances.append(network.quantiles(memory).numpy())
            known.append(origins.known.numpy())
    if not residual:
        return np.ones((2, examples.horizon, len(upper)))
    return fit_factors(
        np.concatenate(residual), np.concatenate(distances), np.concatenate(known), upper
    )

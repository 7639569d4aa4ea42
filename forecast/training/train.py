"""Train a model: resolve the settings, fit each member, join the members, make the bundle."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from forecast.bundle import Bundle
from forecast.calendars.calendar import Calendar
from forecast.config import Config
from forecast.data.panel import Panel
from forecast.data.validation import MANY_ZEROS
from forecast.features.filter_spec import Space
from forecast.features.inputs import log_floors, make_spec, shared_covariates
from forecast.features.static import StaticSpec
from forecast.models.contract import ForecastNetwork
from forecast.models.ensemble import Ensemble
from forecast.models.network import Network, make_network
from forecast.resolved_config import ResolvedConfig
from forecast.training.calibration import Calibration, calibrate_ensemble
from forecast.training.combination import choose_best_skip, learn_combination
from forecast.training.dataset import TrainingSet
from forecast.training.defaults import resolve, wants_smoothers
from forecast.training.loop import fit_network, phases
from forecast.training.objective import LossScale, TrainingTask
from forecast.training.parallel import run_all
from forecast.training.progress import Progress, TrainEvent

YEAR = 365 * 86_400 * 10**9
"""Nanoseconds of a year."""
MONTHS = 12
"""Season length of monthly series."""
MAX_SCALED = 500_000
"""Approximate limit on the steps from which the scaling of the inputs is computed."""


@dataclass(frozen=True, slots=True)
class Trained:
    """Result of a training run."""

    bundle: Bundle
    history: list[TrainEvent]
    """Reports of the first member's training."""


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
    Train a model on everything in the panel.

    Args:
        panel: The training series. Scalers, seasons and calibration see nothing else.
        config: Settings with `data.freq` and `data.kind` set. Settings that are None are chosen
            from frequency, kind and lengths.
        checkpoint_dir: Directory for checkpoints; None writes none.
        resume: Go on from the checkpoints in `checkpoint_dir`, if there are any.
        on_event: Called about a hundred times with the progress.
        facts: Further facts to note in the bundle.

    Raises:
        TooShort: No series has two steps to learn from.
        CheckpointError: A checkpoint is damaged, or belongs to other settings or other data.
    """
    assert config.data.freq is not None
    calendar = Calendar(config.data.freq)
    resolved = resolve(config, calendar, panel.lengths)
    task = _make_task(panel, resolved, calendar)
    fits = []
    for i in range(resolved.model.members):
        model = replace(resolved.model, members=1)
        seeded = replace(resolved.train, seed=resolved.train.seed + i)
        member = replace(task, config=replace(resolved, model=model, train=seeded))
        folder = checkpoint_dir and (checkpoint_dir / f"member-{i}" if i else checkpoint_dir)
        torch.manual_seed(seeded.seed)
        network = make_network(member.config, task.training_set.spec)
        fits.append(partial(_fit_member, network, member, folder, resume))
    fitted = run_all(fits, on_event)
    networks, progress = [network for network, _ in fitted], fitted[0][1]
    joined, calibration = _join(fitted, task)
    bundle = Bundle(
        config=resolved,
        spec=task.training_set.spec,
        network=joined,
        factors=calibration.factors,
        correlation=calibration.correlation,
        facts={
            "series": panel.num_series,
            "rows": len(panel.values),
            "cutoff": calendar.text(panel.ds.max()),
            "seed": resolved.train.seed,
            "steps": progress.step,
            "trust": round(float(np.mean([n.point.shrinkage.mean() for n in networks])), 4),
            "spread_trust": round(float(np.mean([n.quantiles.shrinkage for n in networks])), 4),
            **(facts or {}),
        },
    )
    return Trained(bundle, progress.history)


def _join(
    fitted: list[tuple[Network, Progress]], task: TrainingTask
) -> tuple[ForecastNetwork, Calibration]:
    """Return the members as one model, with its calibration."""
    if len(fitted) == 1:
        network, progress = fitted[0]
        assert progress.calibration is not None  # the first phase ends with it
        return network, progress.calibration
    ensemble = Ensemble([network for network, _ in fitted]).eval()
    calibrated = copy.deepcopy(ensemble)
    for member, (_, progress) in zip(calibrated.members, fitted, strict=True):
        member.load_state_dict(progress.calibrated_weights)
    return ensemble, calibrate_ensemble(ensemble, calibrated, task, phases(task)[0].until)


def _fit_member(
    network: Network,
    task: TrainingTask,
    checkpoint_dir: Path | None,
    resume: bool,
    on_event: Callable[[TrainEvent], None] | None,
) -> tuple[Network, Progress]:
    """Train a network and return it: in a worker process it is a copy of the caller's."""
    training_set, config = task.training_set, task.config
    learn_until = (training_set.lengths - config.train.val_size).clamp(min=0)
    _fit_scaling(network, training_set, learn_until)
    _fit_skips(network, task, learn_until)
    torch.manual_seed(config.train.seed)  # for dropout
    progress = fit_network(
        network, task, checkpoint_dir=checkpoint_dir, resume=resume, on_event=on_event
    )
    return network, progress


def _make_task(panel: Panel, config: ResolvedConfig, calendar: Calendar) -> TrainingTask:
    """Make the task that all members share, but for their seeds."""
    spec = make_spec(
        config,
        calendar,
        StaticSpec.learn(panel.static),
        space=_space(panel, config),
        annual=_spans_two_years(panel, calendar),
        floors=(*log_floors(panel.known_future), *log_floors(panel.past_only)),
        common=shared_covariates(panel.known_future, panel.ds, panel.num_series),
        smoothers=wants_smoothers(config.data, panel.lengths),
        changes=MONTHS in config.data.season_lengths,
    )
    loss_scale = LossScale.measure(panel, config, window=spec.filters.window)
    training_set = TrainingSet.build(
        spec,
        panel,
        spec.static.encode(panel.static, panel.ids),
        horizon=config.model.horizon,
        scale=loss_scale.scale,
    )
    return TrainingTask(training_set, config, loss_scale)


def _fit_skips(network: Network, task: TrainingTask, until: Int[Tensor, " series"]) -> None:
    """Start a network from its best simple forecast; a price stays the random walk."""
    with torch.no_grad():
        if task.config.data.kind == "price":
            network.point.shrinkage.zero_()
            return
        learn_combination(network, task.training_set, until)
        choose_best_skip(network, task.training_set, task.loss_scale, until)


def _space(panel: Panel, config: Config) -> Space:
    """Choose the model space: positive data are learned as logs, unless zeros are common."""
    if config.data.kind == "count":
        return "ratio"
    if config.data.kind == "real":
        return "linear"
    zeros = float((panel.values[panel.observed] <= 0).mean())
    return "linear" if config.data.kind == "positive" and zeros >= MANY_ZEROS else "log"


def _spans_two_years(panel: Panel, calendar: Calendar) -> bool:
    """Return whether the median series is at least two years long."""
    if calendar.is_integer or not len(panel.ds):
        return False
    spans = panel.last_ds - panel.ds[panel.indptr[:-1]]
    return bool(np.median(spans) >= 2 * YEAR)


def _fit_scaling(
    network: Network, training_set: TrainingSet, until: Int[Tensor, " series"]
) -> None:
    """Set the scaling of the inputs to their mean and deviation over the steps before `until`."""
    lengths = training_set.lengths.minimum(until)
    ends = lengths.cumsum(0)
    sample = torch.arange(0, int(ends[-1]), max(1, int(ends[-1]) // MAX_SCALED))
    series = torch.searchsorted(ends, sample, right=True)
    rows = training_set.begins[series] + sample - (ends - lengths)[series]
    dates = training_set.dates[training_set.date.pick(rows)]
    for name, values in (("input", training_set.features[rows]), ("date", dates)):
        if values.shape[1]:
            getattr(network, f"{name}_mean").copy_(values.mean(0))
            getattr(network, f"{name}_scale").copy_(values.std(0, correction=0).clamp(min=1e-3))
    amounts = list(training_set.spec.filters.known_amounts)
    if amounts:
        distance = dates[:, amounts] - training_set.means[rows]
        network.distance_scale.copy_(distance.std(0, correction=0).clamp(min=1e-3))

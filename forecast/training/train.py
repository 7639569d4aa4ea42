"""From a panel to a trained model: settings filled in, networks fitted, members joined."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from forecast.bundle import Bundle
from forecast.calendars.calendar import Calendar
from forecast.config import Config
from forecast.data.panel import Panel
from forecast.data.validation import MANY_ZEROS
from forecast.features.filter_spec import Space
from forecast.features.inputs import log_floors, make_spec, shared_covariates
from forecast.features.static import StaticSpec
from forecast.models.ensemble import Ensemble
from forecast.models.network import Network, make_network
from forecast.training.calibration import calibrate_ensemble
from forecast.training.combination import learn_combination, prefer_best
from forecast.training.dataset import TrainingSet
from forecast.training.defaults import resolve, wants_smoothers
from forecast.training.loop import fit_network, phases
from forecast.training.objective import LossScale, TrainingTask
from forecast.training.parallel import run_all
from forecast.training.progress import Progress, TrainEvent

YEAR = 365 * 86_400 * 10**9
MONTHS = 12
"""The season of months."""
MAX_SCALED = 500_000


@dataclass(frozen=True, slots=True)
class Trained:
    """What a run leaves: the model, and how it got there (of the first member)."""

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
    lesson = _lesson(panel, config)
    fits = []
    for i in range(config.model.members or 1):
        alone = replace(config.model, members=1)
        seeded = replace(config.train, seed=config.train.seed + i)
        own = replace(lesson, config=replace(config, model=alone, train=seeded))
        folder = checkpoint_dir and (checkpoint_dir / f"member-{i}" if i else checkpoint_dir)
        torch.manual_seed(seeded.seed)
        fresh = make_network(own.config, own.examples.spec)
        fits.append(partial(_learn, fresh, own, folder, resume))
    learned = run_all(fits, on_event)
    networks, progress = [one for one, _ in learned], learned[0][1]
    network, settled = _joined(learned, lesson)
    assert settled.factors is not None
    bundle = Bundle(
        config=config,
        spec=lesson.examples.spec,
        network=network,
        factors=settled.factors,
        correlation=settled.correlation,
        facts={
            "series": panel.num_series,
            "rows": len(panel.values),
            "cutoff": calendar.text(panel.ds.max()),
            "seed": config.train.seed,
            "steps": progress.step,
            "trust": round(float(np.mean([n.point.trust.mean() for n in networks])), 4),
            "spread_trust": round(float(np.mean([n.quantiles.trust for n in networks])), 4),
            **(facts or {}),
        },
    )
    return Trained(bundle, progress.history)


def _joined(
    learned: list[tuple[Network, Progress]], lesson: TrainingTask
) -> tuple[Network | Ensemble, Progress]:
    """The members as one model, calibrated as that."""
    if len(learned) == 1:
        return learned[0]
    now = Ensemble([network for network, _ in learned]).eval()
    before = copy.deepcopy(now)
    for member, (_, progress) in zip(before.members, learned, strict=True):
        member.load_state_dict(progress.settled)
    return now, calibrate_ensemble(now, before, lesson, phases(lesson)[0].until)


def _learn(
    network: Network,
    lesson: TrainingTask,
    checkpoint_dir: Path | None,
    resume: bool,
    on_event: Callable[[TrainEvent], None] | None,
) -> tuple[Network, Progress]:
    """Train one network; in another process it is a copy, so it is returned."""
    examples, config = lesson.examples, lesson.config
    assert config.train.val_size is not None
    learn_until = (examples.lengths - config.train.val_size).clamp(min=0)
    _fit_scaling(network, examples, learn_until)
    _prepare_skips(network, examples, lesson.yardstick, learn_until, config)
    torch.manual_seed(config.train.seed)  # layers may drop units
    progress = fit_network(
        network, lesson, checkpoint_dir=checkpoint_dir, resume=resume, on_event=on_event
    )
    return network, progress


def _lesson(panel: Panel, config: Config) -> TrainingTask:
    """What all members learn from."""
    assert config.data.freq is not None
    assert config.model.horizon is not None
    calendar = Calendar(config.data.freq)
    spec = make_spec(
        config,
        calendar,
        StaticSpec.learn(panel.static),
        space=_space(panel, config),
        annual=_spans_two_years(panel, calendar),
        floors=(*log_floors(panel.known_future), *log_floors(panel.past_only)),
        common=shared_covariates(panel.known_future, panel.ds, panel.num_series),
        smoothers=wants_smoothers(config.data, panel.lengths),
        changes=MONTHS in (config.data.season_lengths or ()),
    )
    yardstick = LossScale.measure(panel, config, window=spec.filters.window)
    examples = TrainingSet.build(
        spec,
        panel,
        spec.static.encode(panel.static, panel.ids),
        horizon=config.model.horizon,
        scale=yardstick.scale,
    )
    return TrainingTask(examples, config, yardstick)


def _prepare_skips(
    network: Network, examples: TrainingSet, yardstick: LossScale, until: Tensor, config: Config
) -> None:
    """A price stays the random walk; everything else starts from its best simple forecast."""
    with torch.no_grad():
        if config.data.kind == "price":
            network.point.trust.zero_()
            return
        learn_combination(network, examples, until)
        prefer_best(network, examples, yardstick, until)


def _space(panel: Panel, config: Config) -> Space:
    """Positive data are learned on the log scale, unless zeros are common."""
    if config.data.kind == "count":
        return "ratio"
    if config.data.kind == "real":
        return "linear"
    zeros = float((panel.values[panel.observed] <= 0).mean())
    return "linear" if config.data.kind == "positive" and zeros >= MANY_ZEROS else "log"


def _spans_two_years(panel: Panel, calendar: Calendar) -> bool:
    """Whether most series have seen every day of the year twice."""
    if calendar.is_integer or not len(panel.ds):
        return False
    spans = panel.last_ds - panel.ds[panel.indptr[:-1]]
    return bool(np.median(spans) >= 2 * YEAR)


def _fit_scaling(network: Network, examples: TrainingSet, until: Tensor) -> None:
    """Mean and spread of the inputs over the steps that may be learned from."""
    taken = examples.lengths.minimum(until)
    ends = taken.cumsum(0)
    pick = torch.arange(0, int(ends[-1]), max(1, int(ends[-1]) // MAX_SCALED))
    series = torch.searchsorted(ends, pick, right=True)
    rows = examples.begins[series] + pick - (ends - taken)[series]
    dates = examples.dates[examples.date.pick(rows)]
    for name, values in (("input", examples.features[rows]), ("date", dates)):
        if values.shape[1]:
            getattr(network, f"{name}_mean").copy_(values.mean(0))
            getattr(network, f"{name}_scale").copy_(values.std(0, correction=0).clamp(min=1e-3))
    amounts = list(examples.spec.filters.known_amounts)
    if amounts:
        distance = dates[:, amounts] - examples.means[rows]
        network.distance_scale.copy_(distance.std(0, correction=0).clamp(min=1e-3))

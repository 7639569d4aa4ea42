"""From a panel to a trained model: settings filled in, networks fitted, members joined."""

import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from forecast.bundle import Bundle, make_network, make_spec
from forecast.calendars import Calendar
from forecast.checkpoints import TrainEvent
from forecast.config import Config
from forecast.encoding import find_common, find_floors
from forecast.evaluation import Yardstick
from forecast.examples import Examples
from forecast.filters import Space
from forecast.fitting import fit_network
from forecast.frames import MANY_ZEROS
from forecast.lesson import Lesson
from forecast.models.ensemble import Ensemble
from forecast.models.network import Network
from forecast.panel import Panel
from forecast.presets import resolve, wants_smoothers
from forecast.skips import learn_combination, prefer_best
from forecast.statics import StaticSpec

YEAR = 365 * 86_400 * 10**9
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
    members = [
        replace(
            config,
            model=replace(config.model, members=1),
            train=replace(config.train, seed=config.train.seed + i),
        )
        for i in range(config.model.members)
    ]
    folders = [
        checkpoint_dir and (checkpoint_dir / f"member-{i}" if i else checkpoint_dir)
        for i in range(len(members))
    ]
    others: list[Trained] = []
    if len(members) == 1:
        first = _train_one(panel, config, folders[0], resume, on_event)
    else:
        workers = max(1, (os.cpu_count() or 2) - 1)
        with ProcessPoolExecutor(min(workers, len(members) - 1), get_context("spawn")) as pool:
            made = [
                pool.submit(_train_quietly, panel, member, folder, resume)
                for member, folder in zip(members[1:], folders[1:], strict=True)
            ]
            first = _train_one(panel, members[0], folders[0], resume, on_event)
            others = [future.result() for future in made]
    bundles = [first.bundle, *(other.bundle for other in others)]
    networks = [b.network for b in bundles if isinstance(b.network, Network)]
    bundle = Bundle(
        config=config, spec=first.bundle.spec,
        network=networks[0] if len(networks) == 1 else Ensemble(networks).eval(),
        factors=np.mean([b.factors for b in bundles], axis=0),
        correlation=float(np.mean([b.correlation for b in bundles])),
        facts={
            "series": panel.num_series, "rows": len(panel.values),
            "cutoff": calendar.text(panel.ds.max()), "seed": config.train.seed,
            "steps": first.history[-1].step if first.history else 0,
            "trust": round(float(np.mean([n.point.trust.mean() for n in networks])), 4),
            "spread_trust": round(float(np.mean([n.quantiles.trust for n in networks])), 4),
            **(facts or {}),
        },
    )  # fmt: skip
    return Trained(bundle, first.history)


def _train_quietly(
    panel: Panel, config: Config, checkpoint_dir: Path | None, resume: bool
) -> Trained:
    """A member in a process of its own: one thread, no reports."""
    torch.set_num_threads(1)
    return _train_one(panel, config, checkpoint_dir, resume, None)


def _train_one(
    panel: Panel,
    config: Config,
    checkpoint_dir: Path | None,
    resume: bool,
    on_event: Callable[[TrainEvent], None] | None,
) -> Trained:
    calendar = Calendar(config.data.freq or 1)
    covariates = np.hstack([panel.known_future, panel.past_only])
    spec = make_spec(
        config, calendar, StaticSpec.learn(panel.static), space=_space(panel, config),
        annual=_spans_two_years(panel, calendar),
        floors=find_floors(covariates),
        common=find_common(panel.known_future, panel.ds, panel.num_series),
        smoothers=wants_smoothers(config.data, panel.lengths),
    )  # fmt: skip
    torch.manual_seed(config.train.seed)
    network = make_network(config, spec)
    yardstick = Yardstick.measure(panel, config, window=spec.filters.window)
    assert config.model.horizon is not None
    assert config.train.val_size is not None
    examples = Examples.build(
        spec, panel, spec.static.encode(panel.static, panel.ids),
        horizon=config.model.horizon, scale=yardstick.scale,
    )  # fmt: skip
    learn_until = (examples.lengths - config.train.val_size).clamp(min=0)
    _fit_scaling(network, examples, learn_until)
    _prepare_skips(network, examples, yardstick, learn_until, config)
    progress = fit_network(
        network, Lesson(examples, config, yardstick), checkpoint_dir=checkpoint_dir,
        resume=resume, on_event=on_event,
    )  # fmt: skip
    assert progress.factors is not None
    bundle = Bundle(
        config=config, spec=spec, network=network, factors=progress.factors,
        correlation=progress.correlation,
    )  # fmt: skip
    return Trained(bundle, progress.history)


def _prepare_skips(
    network: Network, examples: Examples, yardstick: Yardstick, until: Tensor, config: Config
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


def _fit_scaling(network: Network, examples: Examples, until: Tensor) -> None:
    """Mean and spread of the inputs over the steps that may be learned from."""
    step = torch.arange(len(examples.y)) - examples.begins.repeat_interleave(examples.lengths)
    rows = (step < until.repeat_interleave(examples.lengths)).nonzero()[:, 0]
    rows = rows[:: max(1, len(rows) // MAX_SCALED)]
    dates = examples.dates[rows]
    for name, values in (("input", examples.features[rows]), ("date", dates)):
        if values.shape[1]:
            getattr(network, f"{name}_mean").copy_(values.mean(0))
            getattr(network, f"{name}_scale").copy_(values.std(0, correction=0).clamp(min=1e-3))
    amounts = list(examples.spec.filters.known_amounts)
    if amounts:
        distance = dates[:, amounts] - examples.means[rows]
        network.distance_scale.copy_(distance.std(0, correction=0).clamp(min=1e-3))

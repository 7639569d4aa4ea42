"""From a panel to a trained model: settings filled in, networks fitted, members joined."""

import copy
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from forecast.bundle import Bundle, make_network, make_spec
from forecast.calendars import Calendar
from forecast.checkpoints import Progress, TrainEvent
from forecast.config import Config
from forecast.cores import usable_cores
from forecast.encoding import find_common, find_floors
from forecast.evaluation import Yardstick
from forecast.examples import Examples
from forecast.filters import Space
from forecast.fitting import Stopped, fit_network, legs_of
from forecast.frames import MANY_ZEROS
from forecast.lesson import Lesson
from forecast.models.ensemble import Ensemble
from forecast.models.network import Network
from forecast.panel import Panel
from forecast.presets import resolve, wants_smoothers
from forecast.settling import settle_together
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
    lesson = _lesson(panel, config)
    runs = []
    for i in range(config.model.members or 1):
        alone = replace(config.model, members=1)
        seeded = replace(config.train, seed=config.train.seed + i)
        own = replace(lesson, config=replace(config, model=alone, train=seeded))
        folder = checkpoint_dir and (checkpoint_dir / f"member-{i}" if i else checkpoint_dir)
        torch.manual_seed(seeded.seed)
        runs.append(_Run(make_network(own.config, own.examples.spec), own, folder, resume))
    progress = _fit(runs, on_event)
    networks = [run.network for run in runs]
    network, settled = networks[0] if len(runs) == 1 else Ensemble(networks).eval(), progress[0]
    if isinstance(network, Ensemble):
        before = copy.deepcopy(network)
        for member, one in zip(before.members, progress, strict=True):
            member.load_state_dict(one.settled)
        settled = settle_together(network, before, runs[0].lesson, legs_of(lesson)[0].until)
    assert settled.factors is not None
    bundle = Bundle(
        config=config, spec=lesson.examples.spec, network=network, factors=settled.factors,
        correlation=settled.correlation,
        facts={
            "series": panel.num_series, "rows": len(panel.values),
            "cutoff": calendar.text(panel.ds.max()), "seed": config.train.seed,
            "steps": progress[0].step,
            "trust": round(float(np.mean([n.point.trust.mean() for n in networks])), 4),
            "spread_trust": round(float(np.mean([n.quantiles.trust for n in networks])), 4),
            **(facts or {}),
        },
    )  # fmt: skip
    return Trained(bundle, progress[0].history)


@dataclass(frozen=True, slots=True)
class _Run:
    """A network that is to learn."""

    network: Network
    lesson: Lesson
    folder: Path | None
    resume: bool

    def fit(self, on_event: Callable[[TrainEvent], None] | None, stop: threading.Event) -> Progress:
        examples, config = self.lesson.examples, self.lesson.config
        assert config.train.val_size is not None
        learn_until = (examples.lengths - config.train.val_size).clamp(min=0)
        _fit_scaling(self.network, examples, learn_until)
        _prepare_skips(self.network, examples, self.lesson.yardstick, learn_until, config)
        torch.manual_seed(config.train.seed)
        return fit_network(
            self.network, self.lesson, checkpoint_dir=self.folder, resume=self.resume,
            on_event=on_event, stop=stop,
        )  # fmt: skip


def _fit(runs: list[_Run], on_event: Callable[[TrainEvent], None] | None) -> list[Progress]:
    """
    As many at once as there are cores, on threads: almost all of a step is arithmetic.

    Those whose turn is on this thread report, the second as if it went on from the first. What
    layers drop is drawn from one stream for all threads, so that these take turns.
    """
    dropout = runs[0].lesson.config.model.dropout > 0
    at_once = 1 if dropout else min(len(runs), usable_cores())
    here = range(0, len(runs), at_once)
    before, stop = torch.get_num_threads(), threading.Event()
    torch.set_num_threads(max(1, before // at_once))
    settings = (torch.get_num_threads(),)
    done: dict[int, Progress] = {}

    def fit(i: int, told: Callable[[TrainEvent], None] | None) -> None:
        try:
            done[i] = runs[i].fit(told, stop)
        except BaseException:
            stop.set()
            raise

    try:
        with ThreadPoolExecutor(at_once, "member", torch.set_num_threads, settings) as pool:
            there = [pool.submit(fit, i, None) for i in range(len(runs)) if i not in here]
            with suppress(Stopped):  # whatever it was that failed there is raised below
                for turn, i in enumerate(here):
                    fit(i, _told(on_event, turn, len(here)))
        for error in [future.exception() for future in there]:
            if error is not None and not isinstance(error, Stopped):
                raise error
    finally:
        torch.set_num_threads(before)
    return [done[i] for i in range(len(runs))]


def _told(
    on_event: Callable[[TrainEvent], None] | None, turn: int, turns: int
) -> Callable[[TrainEvent], None] | None:
    """Steps counted through all turns."""
    if on_event is None or turns == 1:
        return on_event
    return lambda event: on_event(
        replace(event, step=turn * event.steps + event.step, steps=turns * event.steps)
    )


def _lesson(panel: Panel, config: Config) -> Lesson:
    """What all members learn from."""
    assert config.data.freq is not None
    assert config.model.horizon is not None
    calendar = Calendar(config.data.freq)
    covariates = np.hstack([panel.known_future, panel.past_only])
    spec = make_spec(
        config, calendar, StaticSpec.learn(panel.static), space=_space(panel, config),
        annual=_spans_two_years(panel, calendar),
        floors=find_floors(covariates),
        common=find_common(panel.known_future, panel.ds, panel.num_series),
        smoothers=wants_smoothers(config.data, panel.lengths),
    )  # fmt: skip
    yardstick = Yardstick.measure(panel, config, window=spec.filters.window)
    examples = Examples.build(
        spec, panel, spec.static.encode(panel.static, panel.ids),
        horizon=config.model.horizon, scale=yardstick.scale,
    )  # fmt: skip
    return Lesson(examples, config, yardstick)


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

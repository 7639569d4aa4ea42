"""
One training job, as a story.

Check the data, learn from what precedes the backtest, score beside the baselines and the champion,
decide, learn from everything, log, register, point the aliases.

A run that is interrupted keeps its checkpoints, and the same job with `resume` goes on in the
same MLflow run: exactly where it was, with what was already done not done again.
"""

import dataclasses
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from forecast.bundle import Bundle, load_bundle, save_bundle
from forecast.config import Config, Kind
from forecast.data import future_covariates, validation
from forecast.data.panel import Panel
from forecast.errors import ModelSourceError
from forecast.redact import redact_url
from forecast.training import train
from forecast.training.progress import TrainEvent
from pipelines.promotion import decision, gate
from pipelines.promotion.baseline_process import BaselineProcess
from pipelines.promotion.champion import Champion, load_champion
from pipelines.promotion.comparison import Evaluation, at_last_cutoffs, evaluate
from pipelines.promotion.plan import Plan, plan
from pipelines.reporting import diagnosis
from pipelines.tracking import flavor, registry
from pipelines.tracking.store import Run, Tracking
from pipelines.workflows import artifacts
from pipelines.workflows.job import Job
from pipelines.workflows.workspace import Stopped, Workspace


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of the job is done: said with its length."""

    name: str
    text: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Step:
    """Where a training is."""

    stage: str
    event: TrainEvent


@dataclass(frozen=True, slots=True)
class Started:
    """A part that takes a while begins."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Warned:
    """Something that the user should know before the work goes on."""

    text: str


Event = Stage | Step | Started | Warned
Tell = Callable[[Event], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run left behind."""

    run_id: str
    model_uri: str
    name: str
    version: int
    verdict: gate.Verdict
    change: registry.Change | None
    scores: dict[str, float]
    facts: dict[str, Any]
    seconds: float


def run(job: Job, tell: Tell = lambda _: None) -> Outcome:
    """
    Do the whole job.

    Raises:
        DataError: The data cannot be used; nothing was logged.
        Stopped: Interrupted; the checkpoints are kept.
        ModelSourceError: MLflow cannot be reached.
    """
    begun = time.perf_counter()
    torch.set_num_threads(job.threads)
    series, panel = _read(job, tell)
    config = replace(job.config, data=series.data)
    horizon = config.model.horizon or series.calendar.default_horizon
    config = replace(config, model=replace(config.model, horizon=horizon))
    cutoffs = plan(
        panel,
        series.calendar,
        horizon=horizon,
        windows=job.windows,
        step_size=job.step_size,
        seasons=config.data.season_lengths,
        chosen=job.baselines,
        kind=series.kind,
    )
    with Workspace.open(job, series.digest, config) as work:
        if work.discarded:
            told = "an interrupted run of this very job was discarded; --resume goes on with it"
            tell(Warned(told))
        outcome = _run_in(work, job, config, series, panel, cutoffs, tell)
        shutil.rmtree(work.folder, ignore_errors=True)
    return replace(outcome, seconds=time.perf_counter() - begun)


def _run_in(
    work: Workspace,
    job: Job,
    config: Config,
    series: validation.CheckedSeries,
    panel: Panel,
    cutoffs: Plan,
    tell: Tell,
) -> Outcome:
    """The run in MLflow, a new one or that of the interrupted job."""
    tracking = Tracking(job.tracking_uri, job.data_dir / "artifacts")
    run_id = work.notes.get("run_id")
    if run_id is not None and not tracking.has_run(run_id):
        run_id = None
    tags = {"seed": str(config.train.seed), "data.digest": series.digest[:16], **artifacts.commit()}
    try:
        with tracking.run(_run_name(job, config), run_id=run_id, tags=tags) as log:
            work.note(run_id=log.id)
            return _learn_and_publish(job, config, series, panel, cutoffs, work, log, tell)
    except KeyboardInterrupt as stop:
        raise Stopped(work) from stop
    except ModelSourceError as error:
        kept = "; what is trained is kept: repeat the command with --resume"
        help = error.help + (kept if "run_id" in work.notes else "")
        raise ModelSourceError(error.message, where=error.where, help=help) from error


def _learn_and_publish(
    job: Job,
    config: Config,
    series: validation.CheckedSeries,
    panel: Panel,
    cutoffs: Plan,
    work: Workspace,
    log: Run,
    tell: Tell,
) -> Outcome:
    tracking = log.tracking
    artifacts.log_setting(job, config, series, panel, log)
    facts = {
        "data_digest": series.digest,
        "filled": series.filled,
        "source": redact_url(job.source),
    }
    champion = load_champion(tracking, job.name, series, panel, cutoffs)
    if champion is not None and champion.warning:
        tell(Warned(champion.warning))
    with BaselineProcess(series, panel, cutoffs, work.folder / "rivals") as rivals:
        held_out, events = _train(
            "learn", cutoffs.split(panel), config, work, log, tell, {**facts, "refit": False}
        )
        begun = time.perf_counter()
        beside = ", ".join(cutoffs.baselines) or "nothing"
        told = f"{len(cutoffs.rows):,} series at {cutoffs.windows} cutoffs, beside {beside}"
        tell(Started("backtest", told))
        found = evaluate(
            held_out,
            series,
            panel,
            cutoffs,
            rivals=rivals.wait(),
            champion=None if champion is None else champion.weights,
        )
    tell(Stage("backtest", _summary(found), time.perf_counter() - begun))
    judged = found
    if champion is not None and 0 < champion.unseen_cutoffs < cutoffs.windows:
        judged = at_last_cutoffs(found, series, panel, cutoffs, champion.unseen_cutoffs)
    verdict = _verdict(judged, champion, job.min_gain, config.data.kind)
    log.metrics(found.flat())
    _note(verdict, log)
    artifacts.log_report(log, held_out, found, series, events, horizon=cutoffs.horizon)
    _diagnose(held_out, found, series, cutoffs.part(panel), cutoffs, events, log, tell)

    bundle = held_out
    if job.refit:
        bundle, _ = _train("refit", panel, config, work, log, tell, {**facts, "refit": True})
    bundle = replace(bundle, scores=found.flat())
    begun = time.perf_counter()
    model_uri = flavor.log_model(log, bundle)
    version = registry.register(
        tracking,
        model_uri,
        job.name,
        log.id,
        data__digest=series.digest[:16],
        data__cutoff=str(bundle.facts["cutoff"]),
        bundle__digest=bundle.digest[:16],
    )
    change = None
    if job.promote:
        against = None if champion is None else champion.version
        verdict, change = decision.decide(tracking, job.name, version, verdict, champion=against)
        _note(verdict, log)
    else:
        tracking.tag_version(job.name, version, {"gate.reason": verdict.reason})
    aliases = "challenger" if change is None else "challenger, champion"
    tell(Stage("register", f"{job.name} v{version} -> {aliases}", time.perf_counter() - begun))
    return Outcome(
        run_id=log.id,
        model_uri=model_uri,
        name=job.name,
        version=version,
        verdict=verdict,
        change=change,
        scores=found.flat(),
        facts=bundle.facts,
        seconds=0.0,
    )


def _read(job: Job, tell: Tell) -> tuple[validation.CheckedSeries, Panel]:
    begun = time.perf_counter()
    history, ahead = future_covariates.read_history(job.source, job.config.data, query=job.query)
    series = validation.validate(history, job.config.data)
    panel = Panel.from_frame(series)
    text = series.calendar.text
    span = f"{text(panel.ds.min())} to {text(panel.ds.max())}"
    filled = f", {series.filled:,} steps filled" if series.filled else ""
    filled += f", {len(ahead):,} rows of the future left out" if len(ahead) else ""
    told = f"{panel.num_series:,} series, {series.rows:,} rows, {span}, freq {series.calendar.freq}"
    tell(Stage("data", f"{told}, {series.kind}{filled}", time.perf_counter() - begun))
    return series, panel


def _train(
    stage: str,
    panel: Panel,
    config: Config,
    work: Workspace,
    log: Run,
    tell: Tell,
    facts: Mapping[str, Any],
) -> tuple[Bundle, list[TrainEvent]]:
    """Train, or read back what an interrupted run has already trained."""
    folder = work.folder / stage
    done = folder / flavor.BUNDLE
    if done.is_dir():
        events = [TrainEvent(**event) for event in work.notes.get(f"{stage}_events", [])]
        tell(Stage(stage, "trained before the interrupt", 0.0))
        return load_bundle(done), events
    begun = time.perf_counter()

    def on_event(event: TrainEvent) -> None:
        tell(Step(stage, event))
        values = {
            "loss": event.loss,
            "quantile_loss": event.quantile_loss,
            "grad_norm": event.grad_norm,
            "observations_per_s": event.observations_per_s,
            "epoch": event.epoch,
        }
        for name in ("epoch_loss", "val_loss"):
            if getattr(event, name) is not None:
                values[name] = getattr(event, name)
        log.metrics({f"{stage}/{name}": v for name, v in values.items()}, step=event.step)

    trained = train.train(
        panel, config, checkpoint_dir=folder, resume=True, on_event=on_event, facts=dict(facts)
    )
    save_bundle(trained.bundle, done, overwrite=True)
    work.note(**{f"{stage}_events": [dataclasses.asdict(event) for event in trained.history]})
    last = trained.history[-1] if trained.history else None
    told = f"{last.step} steps, loss {last.loss:.3f}" if last else "nothing to learn from"
    model = trained.bundle.config.model
    each = f"{model.cell.replace('_', '-')}-{model.hidden_size}"
    text = each if model.members == 1 else f"{model.members} x {each}"
    tell(Stage(stage, f"{text}, {told}", time.perf_counter() - begun))
    return trained.bundle, trained.history


def _diagnose(
    bundle: Bundle,
    found: Evaluation,
    series: validation.CheckedSeries,
    panel: Panel,
    cutoffs: Plan,
    events: list[TrainEvent],
    log: Run,
    tell: Tell,
) -> None:
    """What the scored model remembers and where it is wrong, as artifacts of the run."""
    begun = time.perf_counter()
    made = diagnosis.diagnose(
        bundle, panel, found.cv, series.frame, season_length=cutoffs.season_length, events=events
    )
    with tempfile.TemporaryDirectory() as folder:
        made.save(Path(folder))
        log.folder(Path(folder), "diagnosis")
    reach = made.facts["memory_reach"]
    told = "all that was looked at" if reach is None else f"{reach:,} steps"
    flow = ", ".join(made.facts["gradient"].values()) or "of windows"
    text = f"memory {told}, gradient {flow}"
    tell(Stage("diagnosis", text, time.perf_counter() - begun))


def _verdict(
    found: Evaluation, champion: Champion | None, min_gain: float, kind: Kind
) -> gate.Verdict:
    if champion is not None and champion.refusal is not None:
        return champion.refusal
    if champion is not None and found.incomparable:
        return gate.incomparable(found.incomparable)
    metric = gate.METRICS.get(kind, "mase")
    verdict = gate.judge(
        found.value(metric),
        seasonal_naive=found.value(metric, "SeasonalNaive"),
        champion=None if champion is None else found.value(metric, "champion"),
        min_gain=min_gain,
        metric=metric,
    )
    if champion is not None and champion.note:
        return replace(verdict, reason=f"{verdict.reason}; {champion.note}")
    return verdict


def _note(verdict: gate.Verdict, log: Run) -> None:
    log.tags({"gate.promote": str(verdict.promote).lower(), "gate.reason": verdict.reason})


def _summary(found: Evaluation) -> str:
    models = [str(model) for model in found.scores["model"].unique()]
    return "MASE " + ", ".join(f"{model} {found.value('mase', model):.3f}" for model in models)


def _run_name(job: Job, config: Config) -> str:
    stem = Path(redact_url(job.source)).stem or "data"
    return f"{stem}-{config.model.cell}-{config.model.hidden_size}-seed{config.train.seed}"

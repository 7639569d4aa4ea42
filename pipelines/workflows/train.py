"""
The training job, from the data to the registry.

It checks the data, trains on what precedes the backtest, scores the model beside the baselines and
the champion, decides, trains on all data, logs, registers and moves the aliases.

An interrupted run keeps its checkpoints. The same job with `resume` continues in the same MLflow
run at the step where it was interrupted and does not repeat finished parts.
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
from pipelines.tracking.run import Run
from pipelines.tracking.store import Tracking
from pipelines.workflows import artifacts
from pipelines.workflows.job import Job
from pipelines.workflows.workspace import Stopped, Workspace


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of the job has ended."""

    name: str
    text: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Step:
    """Progress of a training."""

    stage: str
    event: TrainEvent


@dataclass(frozen=True, slots=True)
class Started:
    """A long part of the job begins."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Warned:
    """A warning for the user."""

    text: str


Event = Stage | Step | Started | Warned
OnEvent = Callable[[Event], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """Result of a finished run."""

    run_id: str
    model_uri: str
    name: str
    version: int
    verdict: gate.Verdict
    change: registry.Change | None
    scores: dict[str, float]
    facts: dict[str, Any]
    seconds: float


def run(job: Job, on_event: OnEvent = lambda _: None) -> Outcome:
    """
    Run the whole job.

    Args:
        job: Its options.
        on_event: Called with each event, from this thread.

    Raises:
        DataError: The data cannot be used; nothing was logged.
        Stopped: The job was interrupted; its checkpoints are kept.
        ModelSourceError: MLflow cannot be reached.
    """
    start = time.perf_counter()
    torch.set_num_threads(job.threads)
    series, panel = _read(job, on_event)
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
    with Workspace.open(job, series.digest, config) as workspace:
        if workspace.discarded:
            message = "an interrupted run of this job was discarded; --resume continues it"
            on_event(Warned(message))
        outcome = _run_in(workspace, job, config, series, panel, cutoffs, on_event)
        shutil.rmtree(workspace.folder, ignore_errors=True)
    return replace(outcome, seconds=time.perf_counter() - start)


def _run_in(
    workspace: Workspace,
    job: Job,
    config: Config,
    series: validation.CheckedSeries,
    panel: Panel,
    cutoffs: Plan,
    on_event: OnEvent,
) -> Outcome:
    """Open the MLflow run, a new one or that of the interrupted job, and do the work in it."""
    tracking = Tracking(job.tracking_uri, job.data_dir / "artifacts")
    run_id = workspace.notes.get("run_id")
    if run_id is not None and not tracking.has_run(run_id):
        run_id = None
    tags = {"seed": str(config.train.seed), "data.digest": series.digest[:16], **artifacts.commit()}
    try:
        with tracking.run(_run_name(job, config), run_id=run_id, tags=tags) as log:
            workspace.note(run_id=log.id)
            return _learn_and_publish(job, config, series, panel, cutoffs, workspace, log, on_event)
    except KeyboardInterrupt as stop:
        raise Stopped(workspace) from stop
    except ModelSourceError as error:
        advice = "; what is trained is kept: repeat the command with --resume"
        help = error.help + (advice if "run_id" in workspace.notes else "")
        raise ModelSourceError(error.message, where=error.where, help=help) from error


def _learn_and_publish(
    job: Job,
    config: Config,
    series: validation.CheckedSeries,
    panel: Panel,
    cutoffs: Plan,
    workspace: Workspace,
    log: Run,
    on_event: OnEvent,
) -> Outcome:
    tracking = log.tracking
    artifacts.log_settings(job, config, series, panel, log)
    facts = {
        "data_digest": series.digest,
        "filled": series.filled,
        "source": redact_url(job.source),
    }
    champion = load_champion(tracking, job.name, series, panel, cutoffs)
    if champion is not None and champion.warning:
        on_event(Warned(champion.warning))
    with BaselineProcess(series, panel, cutoffs, workspace.folder / "rivals") as baselines:
        held_out, events = _train(
            "learn",
            cutoffs.split(panel),
            config,
            workspace,
            log,
            on_event,
            {**facts, "refit": False},
        )
        start = time.perf_counter()
        names = ", ".join(cutoffs.baselines) or "no baselines"
        text = f"{len(cutoffs.rows):,} series at {cutoffs.windows} cutoffs, beside {names}"
        on_event(Started("backtest", text))
        evaluation = evaluate(
            held_out,
            series,
            panel,
            cutoffs,
            baselines=baselines.wait(),
            champion=None if champion is None else champion.weights,
        )
    on_event(Stage("backtest", _summary(evaluation), time.perf_counter() - start))
    judged = evaluation
    if champion is not None and 0 < champion.unseen_cutoffs < cutoffs.windows:
        judged = at_last_cutoffs(evaluation, series, panel, cutoffs, champion.unseen_cutoffs)
    verdict = _verdict(judged, champion, job.min_gain, config.data.kind)
    log.metrics(evaluation.flat())
    _tag_verdict(verdict, log)
    artifacts.log_report(log, held_out, evaluation, series, events, horizon=cutoffs.horizon)
    _diagnose(held_out, evaluation, series, cutoffs.part(panel), cutoffs, events, log, on_event)

    bundle = held_out
    if job.refit:
        bundle, _ = _train(
            "refit", panel, config, workspace, log, on_event, {**facts, "refit": True}
        )
    bundle = replace(bundle, scores=evaluation.flat())
    start = time.perf_counter()
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
        _tag_verdict(verdict, log)
    else:
        tracking.tag_version(job.name, version, {"gate.reason": verdict.reason})
    aliases = "challenger" if change is None else "challenger, champion"
    on_event(Stage("register", f"{job.name} v{version} -> {aliases}", time.perf_counter() - start))
    return Outcome(
        run_id=log.id,
        model_uri=model_uri,
        name=job.name,
        version=version,
        verdict=verdict,
        change=change,
        scores=evaluation.flat(),
        facts=bundle.facts,
        seconds=0.0,
    )


def _read(job: Job, on_event: OnEvent) -> tuple[validation.CheckedSeries, Panel]:
    start = time.perf_counter()
    history, ahead = future_covariates.read_history(job.source, job.config.data, query=job.query)
    series = validation.validate(history, job.config.data)
    panel = Panel.from_frame(series)
    text = series.calendar.text
    span = f"{text(panel.ds.min())} to {text(panel.ds.max())}"
    filled = f", {series.filled:,} steps filled" if series.filled else ""
    filled += f", {len(ahead):,} rows of the future left out" if len(ahead) else ""
    size = f"{panel.num_series:,} series, {series.rows:,} rows, {span}, freq {series.calendar.freq}"
    on_event(Stage("data", f"{size}, {series.kind}{filled}", time.perf_counter() - start))
    return series, panel


def _train(
    stage: str,
    panel: Panel,
    config: Config,
    workspace: Workspace,
    log: Run,
    on_event: OnEvent,
    facts: Mapping[str, Any],
) -> tuple[Bundle, list[TrainEvent]]:
    """Train, or load the bundle that an interrupted run has already trained."""
    folder = workspace.folder / stage
    bundle_folder = folder / flavor.BUNDLE
    if bundle_folder.is_dir():
        events = [TrainEvent(**event) for event in workspace.notes.get(f"{stage}_events", [])]
        on_event(Stage(stage, "trained before the interrupt", 0.0))
        return load_bundle(bundle_folder), events
    start = time.perf_counter()

    def log_event(event: TrainEvent) -> None:
        on_event(Step(stage, event))
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
        panel, config, checkpoint_dir=folder, resume=True, on_event=log_event, facts=dict(facts)
    )
    save_bundle(trained.bundle, bundle_folder, overwrite=True)
    workspace.note(**{f"{stage}_events": [dataclasses.asdict(event) for event in trained.history]})
    last = trained.history[-1] if trained.history else None
    result = f"{last.step} steps, loss {last.loss:.3f}" if last else "nothing to learn from"
    model = trained.bundle.config.model
    network = f"{model.cell.replace('_', '-')}-{model.hidden_size}"
    text = network if model.members == 1 else f"{model.members} x {network}"
    on_event(Stage(stage, f"{text}, {result}", time.perf_counter() - start))
    return trained.bundle, trained.history


def _diagnose(
    bundle: Bundle,
    evaluation: Evaluation,
    series: validation.CheckedSeries,
    panel: Panel,
    cutoffs: Plan,
    events: list[TrainEvent],
    log: Run,
    on_event: OnEvent,
) -> None:
    """Log what the scored model remembers and where it is wrong."""
    start = time.perf_counter()
    result = diagnosis.diagnose(
        bundle,
        panel,
        evaluation.cv,
        series.frame,
        season_length=cutoffs.season_length,
        events=events,
    )
    with tempfile.TemporaryDirectory() as folder:
        result.save(Path(folder))
        log.folder(Path(folder), "diagnosis")
    reach = result.facts["memory_reach"]
    memory = "beyond the steps examined" if reach is None else f"{reach:,} steps"
    flow = ", ".join(result.facts["gradient"].values()) or "of windows"
    text = f"memory {memory}, gradient {flow}"
    on_event(Stage("diagnosis", text, time.perf_counter() - start))


def _verdict(
    evaluation: Evaluation, champion: Champion | None, min_gain: float, kind: Kind
) -> gate.Verdict:
    if champion is not None and champion.refusal is not None:
        return champion.refusal
    if champion is not None and evaluation.incomparable:
        return gate.incomparable(evaluation.incomparable)
    metric = gate.METRICS.get(kind, "mase")
    verdict = gate.judge(
        evaluation.value(metric),
        seasonal_naive=evaluation.value(metric, "SeasonalNaive"),
        champion=None if champion is None else evaluation.value(metric, "champion"),
        min_gain=min_gain,
        metric=metric,
    )
    if champion is not None and champion.note:
        return replace(verdict, reason=f"{verdict.reason}; {champion.note}")
    return verdict


def _tag_verdict(verdict: gate.Verdict, log: Run) -> None:
    log.tags({"gate.promote": str(verdict.promote).lower(), "gate.reason": verdict.reason})


def _summary(evaluation: Evaluation) -> str:
    models = [str(model) for model in evaluation.scores["model"].unique()]
    return "MASE " + ", ".join(f"{model} {evaluation.value('mase', model):.3f}" for model in models)


def _run_name(job: Job, config: Config) -> str:
    stem = Path(redact_url(job.source)).stem or "data"
    return f"{stem}-{config.model.cell}-{config.model.hidden_size}-seed{config.train.seed}"

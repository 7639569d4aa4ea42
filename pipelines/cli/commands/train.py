"""`statecast train`."""

import contextlib
import shlex
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from pipelines.workflows.job import Job
    from pipelines.workflows.train import Event, Outcome
    from pipelines.workflows.workspace import Stopped
from forecast.redact import redact_url
from pipelines.cli.command import (
    NO,
    BaselinesOption,
    DataArgument,
    FillOption,
    FreqOption,
    Interrupted,
    KindOption,
    MaxStepsOption,
    QueryOption,
    Session,
    WindowsOption,
    command,
    parse_baselines,
    parse_freq,
)
from pipelines.cli.console import Console, ProgressCallback, format_duration, make_table
from pipelines.cli.project import ResolvedProject, require_source, resolve_project

METRICS = ("mase", "smape", "coverage_80", "coverage_95")
"""Columns of the table of scores."""


def install(app: typer.Typer) -> None:
    """Add the command."""

    @command(app, "train", rich_help_panel="Models")
    def train(
        session: Session,
        data: DataArgument = None,
        h: Annotated[
            int | None, typer.Option("--h", min=1, help="Steps to forecast (the horizon).")
        ] = None,
        freq: FreqOption = None,
        cell: Annotated[
            str | None, typer.Option(help="Recurrent cell: lstm, gru, rnn_tanh or rnn_relu.")
        ] = None,
        hidden_size: Annotated[
            int | None, typer.Option(min=1, help="Size of the hidden state.")
        ] = None,
        max_steps: MaxStepsOption = None,
        seed: Annotated[int | None, typer.Option(min=0, help="Random seed.")] = None,
        members: Annotated[
            int | None, typer.Option(min=1, help="Number of networks in the ensemble.")
        ] = None,
        kind: KindOption = None,
        fill: FillOption = None,
        query: QueryOption = None,
        name: Annotated[str | None, typer.Option(help="Name of the registered model.")] = None,
        windows: WindowsOption = None,
        baselines: BaselinesOption = None,
        threads: Annotated[
            int, typer.Option(min=1, help="CPU threads; more than one helps only large networks.")
        ] = 1,
        resume: Annotated[
            bool, typer.Option("--resume", help="Continue an interrupted run.")
        ] = False,
        promote: Annotated[bool, typer.Option(help="Promote the model if it is better.")] = True,
        refit: Annotated[bool, typer.Option(help="Train on all data after the backtest.")] = True,
    ) -> None:
        """
        Train a model, compare it with the baselines, register it, and promote it if it is better.

        The exit code is 1 if the model was to be promoted and is not better than the seasonal naive
        and the champion.
        """
        settings = resolve_project(
            session.config,
            {
                "project.source": data,
                "project.query": query,
                "project.name": name,
                "project.windows": windows,
                "model.horizon": h,
                "model.cell": cell,
                "model.hidden_size": hidden_size,
                "model.members": members,
                "data.kind": kind,
                "data.freq": parse_freq(freq),
                "data.fill": fill,
                "train.max_steps": max_steps,
                "train.seed": seed,
            },
        )
        job = replace(
            build_job(settings),
            baselines=parse_baselines(baselines),
            threads=threads,
            resume=resume,
            promote=promote,
            refit=refit,
        )
        _print_outcome(session.console, job, run_training(session, job))


def build_job(settings: ResolvedProject) -> "Job":
    """
    Return the training job that the settings describe.

    Raises:
        UsageError: The settings name no data.
    """
    source = require_source(settings)
    from pipelines.workflows.job import Job

    return Job(
        source=source,
        query=settings.project.query,
        config=settings.config,
        name=settings.project.name,
        data_dir=settings.data_dir,
        tracking_uri=settings.tracking_uri,
        windows=settings.project.windows,
        step_size=settings.project.step_size,
        min_gain=settings.project.min_gain,
    )


def run_training(session: Session, job: "Job", resume_command: str | None = None) -> "Outcome":
    """
    Run a training job and show its progress.

    Args:
        session: Where to show the progress.
        job: The job.
        resume_command: Command that resumes the job if it is interrupted; None means the command
            line of this process with `--resume`.

    Raises:
        Interrupted: The job was interrupted.
    """
    from pipelines.workflows import train
    from pipelines.workflows.workspace import Stopped

    with TrainingProgress(session.console) as progress:
        try:
            outcome = train.run(job, progress.show)
        except Stopped as stopped:
            raise _explain_interrupt(stopped, resume_command) from None
    return outcome


class TrainingProgress:
    """Show the events of a training job as progress bars and lines."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = contextlib.ExitStack()
        self._stage = ""
        self._report: ProgressCallback | None = None

    def __enter__(self) -> "TrainingProgress":
        return self

    def __exit__(self, *_: object) -> None:
        self._close_bar()

    def show(self, event: "Event") -> None:
        """Show one event."""
        from pipelines.workflows.train import Stage, Step, Warned

        if isinstance(event, Step):
            if self._report is None or self._stage != event.stage:
                self._close_bar()
                bar = self._console.track_progress(event.stage, event.event.steps)
                self._report = self._bar.enter_context(bar)
                self._stage = event.stage
            self._report(event.event.step, f"loss {event.event.loss:.3f}")
        elif isinstance(event, Warned):
            self._console.warn(event.text)
        elif isinstance(event, Stage):
            self._close_bar()
            self._console.print_step(event.name, event.text, event.seconds)
        else:
            self._close_bar()
            self._console.print_step(event.name, f"{event.text} ...")

    def _close_bar(self) -> None:
        self._bar.close()
        self._report = None


def _explain_interrupt(stopped: "Stopped", resume_command: str | None) -> Interrupted:
    """Return the interrupt with what was saved and how to resume."""
    if resume_command is None:
        arguments = [redact_url(argument) for argument in sys.argv[1:] if argument != "--resume"]
        resume_command = shlex.join(["statecast", *arguments, "--resume"])
    checkpoint = stopped.workspace.saved_step()
    if checkpoint is None:
        return Interrupted(
            f"no checkpoint yet in {stopped.workspace.folder}",
            f"start again with: {resume_command}",
        )
    stage, step = checkpoint
    return Interrupted(
        f"saved: {stage}, step {step}, in {stopped.workspace.folder}",
        f"resume with: {resume_command}",
    )


def _print_outcome(console: Console, job: "Job", outcome: "Outcome") -> None:
    """Print the scores to stdout, and the verdict and the next commands to stderr."""
    promoted = outcome.change is not None
    document = {
        "run_id": outcome.run_id,
        "model": outcome.name,
        "version": outcome.version,
        "model_uri": outcome.model_uri,
        "promoted": promoted,
        "verdict": {"promote": outcome.verdict.promote, "reason": outcome.verdict.reason},
        "scores": outcome.scores,
        "facts": outcome.facts,
        "seconds": round(outcome.seconds, 2),
    }
    console.print_result(document, make_scores_table(outcome.scores))
    status = "is now champion" if promoted else "stays challenger" if job.promote else "registered"
    console.say(f"{outcome.name} version {outcome.version} {status}: {outcome.verdict.reason}")
    console.say(f"trained in {format_duration(outcome.seconds)}")
    if promoted:
        console.suggest(
            "statecast serve",
            f"statecast forecast {shlex.quote(redact_url(job.source))} --level 80",
        )
        return
    console.suggest("statecast runs", f"statecast models promote {outcome.name}/{outcome.version}")
    if job.promote:
        raise typer.Exit(NO)


def make_scores_table(scores: dict[str, float]) -> "Table":
    """
    Return a table of scores with one row per model.

    Args:
        scores: Value by metric (of the trained model) or by metric and model (of the others), such
            as `mase` and `mase_AutoETS`.
    """
    others = [key.removeprefix("mase_") for key in scores if key.startswith("mase_")]
    rows: list[tuple[object, ...]] = []
    for model in ("statecast", *others):
        suffix = "" if model == "statecast" else f"_{model}"
        values = [scores.get(f"{metric}{suffix}") for metric in METRICS]
        rows.append((model, *(None if value is None else f"{value:.3f}" for value in values)))
    return make_table("model", *METRICS, rows=rows, right=METRICS)

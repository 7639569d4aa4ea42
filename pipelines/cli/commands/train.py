"""`statecast train`."""

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
from pipelines.cli import project
from pipelines.cli.command import Interrupted, Refused, Session, command
from pipelines.cli.console import Steps, elapsed, table
from pipelines.errors import UsageError

SHOWN = ("mase", "smape", "coverage_80", "coverage_95")
DataArgument = Annotated[
    str | None,
    typer.Argument(metavar="DATA", help="CSV, Parquet or SQLAlchemy URL; else [project] source."),
]
Horizon = Annotated[int | None, typer.Option("--h", min=1, help="Steps ahead to learn.")]
Ahead = Annotated[
    int | None, typer.Option("--h", min=1, help="Steps ahead; default: all that were learned.")
]
Freq = Annotated[str | None, typer.Option(help="pandas offset, integer, or exchange (XNYS).")]
Fill = Annotated[str | None, typer.Option(help="Missing steps: refuse, zero, forward or mask.")]
Kind = Annotated[str | None, typer.Option(help="auto, positive, count, real, price or volatility.")]
Name = Annotated[str | None, typer.Option(help="Name of the registered model.")]
Baselines = Annotated[
    str | None,
    typer.Option(
        help="Commas between: SeasonalNaive, Drift, AutoETS, AutoTheta, CrostonOptimized, TSB, "
        "HistGradientBoosting."
    ),
]
Windows = Annotated[int | None, typer.Option(min=1, help="Cutoffs of the backtest.")]


def install(app: typer.Typer) -> None:
    """Add the command."""

    @command(app, "train", rich_help_panel="Models")
    def train(
        session: Session,
        data: DataArgument = None,
        h: Horizon = None,
        freq: Freq = None,
        cell: Annotated[str | None, typer.Option(help="lstm, gru, rnn_tanh or rnn_relu.")] = None,
        hidden_size: Annotated[int | None, typer.Option(min=1, help="Width of the state.")] = None,
        max_steps: Annotated[int | None, typer.Option(min=1, help="Optimiser steps.")] = None,
        seed: Annotated[int | None, typer.Option(min=0, help="Of everything random.")] = None,
        members: Annotated[
            int | None, typer.Option(min=1, help="Networks that forecast together.")
        ] = None,
        kind: Kind = None,
        fill: Fill = None,
        query: Annotated[str | None, typer.Option(help="SQL, when DATA is a database.")] = None,
        name: Name = None,
        windows: Windows = None,
        baselines: Baselines = None,
        threads: Annotated[
            int, typer.Option(min=1, help="Of the network; more help large ones only.")
        ] = 1,
        resume: Annotated[
            bool, typer.Option("--resume", help="Go on with an interrupted run.")
        ] = False,
        promote: Annotated[bool, typer.Option(help="Make it champion when it is better.")] = True,
        refit: Annotated[bool, typer.Option(help="Train on everything after the backtest.")] = True,
    ) -> None:
        """
        Train a model, score it beside the baselines, log and register it; promote it if better.

        Exit code 1 when it is not better than the seasonal naive and the champion.
        """
        found = project.find(
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
                "data.freq": as_freq(freq),
                "data.fill": fill,
                "train.max_steps": max_steps,
                "train.seed": seed,
            },
        )
        job = replace(
            job_of(found),
            baselines=named(baselines),
            threads=threads,
            resume=resume,
            promote=promote,
            refit=refit,
        )
        _show(session, job, run_training(session, job))


def job_of(found: project.ResolvedProject) -> "Job":
    """The job that the settings ask for."""
    source = need_source(found)
    from pipelines.workflows.job import Job

    return Job(
        source=source,
        query=found.project.query,
        config=found.config,
        name=found.project.name,
        data_dir=found.data_dir,
        tracking_uri=found.tracking_uri,
        windows=found.project.windows,
        step_size=found.project.step_size,
        min_gain=found.project.min_gain,
    )


def run_training(session: Session, job: "Job", again: str | None = None) -> "Outcome":
    """
    Do a job and show how it goes.

    Args:
        session: Where to show it.
        job: What to do.
        again: The command that resumes it; None is this one with `--resume`.
    """
    from pipelines.workflows import train as training
    from pipelines.workflows.workspace import Stopped

    with Listener(session) as listener:
        try:
            outcome = training.run(job, listener.tell)
        except Stopped as stopped:
            raise _interrupted(stopped, again) from None
    return outcome


class Listener:
    """Turns the events of a job into bars and lines."""

    def __init__(self, session: Session) -> None:
        self.console = session.console
        self._bar: object = None
        self._steps: Steps | None = None
        self._stage = ""

    def __enter__(self) -> "Listener":
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def tell(self, event: "Event") -> None:
        """Show one event."""
        from pipelines.workflows.train import Stage, Step, Warned

        if isinstance(event, Step):
            if self._stage != event.stage:
                self._open(event.stage, event.event.steps)
            assert self._steps is not None
            self._steps(event.event.step, f"loss {event.event.loss:.3f}")
        elif isinstance(event, Stage):
            self._close()
            self.console.step(event.name, event.text, event.seconds)
        elif isinstance(event, Warned):
            self.console.warn(event.text)
        else:
            self._close()
            self.console.step(event.name, f"{event.text} ...")

    def _open(self, stage: str, steps: int) -> None:
        self._close()
        self._bar = self.console.progress(stage, steps)
        self._steps = self._bar.__enter__()
        self._stage = stage

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.__exit__(None, None, None)  # type: ignore[attr-defined]
        self._bar, self._steps, self._stage = None, None, ""


def need_source(found: project.ResolvedProject) -> str:
    """The series to use, or a message that says how to name them."""
    if found.project.source:
        return found.project.source
    raise UsageError(
        "no data: name a file or a database",
        where=str(found.file) if found.file else "no statecast.toml here or above",
        help="statecast train sales.csv\nor: statecast init --from sales.csv, then statecast train",
    )


def named(baselines: str | None) -> tuple[str, ...] | None:
    """
    Baselines by name; the gate always needs the seasonal naive.

    >>> named("Drift"), named(None)
    (('SeasonalNaive', 'Drift'), None)
    """
    if baselines is None:
        return None
    asked = [name.strip() for name in baselines.split(",") if name.strip()]
    return tuple(dict.fromkeys(("SeasonalNaive", *asked)))


def as_freq(text: str | None) -> str | int | None:
    """An option's text as `data.freq`: integers are integer steps."""
    return int(text) if text is not None and text.lstrip("-").isdigit() else text


def _interrupted(stop: "Stopped", again: str | None) -> Interrupted:
    saved = stop.workspace.saved_step()
    again = again or shlex.join(
        ["statecast", *(redact_url(a) for a in sys.argv[1:] if a != "--resume"), "--resume"]
    )
    if saved is None:
        return Interrupted(f"no checkpoint yet in {stop.workspace.folder}", f"start again: {again}")
    stage, step = saved
    return Interrupted(
        f"saved: {stage}, step {step}, in {stop.workspace.folder}", f"go on with: {again}"
    )


def _show(session: Session, job: "Job", outcome: "Outcome") -> None:
    """Scores on stdout; the verdict, and what follows from it, on stderr."""
    console, promoted = session.console, outcome.change is not None
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
    console.result(document, scores_table(outcome.scores))
    became = "is champion" if promoted else "stays challenger" if job.promote else "not promoted"
    console.say(f"version {outcome.version} of {outcome.name!r} {became}: {outcome.verdict.reason}")
    console.say(f"Trained in {elapsed(outcome.seconds)}.")
    if promoted:
        console.then(
            "statecast serve",
            f"statecast forecast {shlex.quote(redact_url(job.source))} --level 80",
        )
        return
    console.then("statecast runs", f"statecast models promote {outcome.name}/{outcome.version}")
    if job.promote:
        raise Refused


def scores_table(scores: dict[str, float]) -> "Table":
    """Scores side by side: a row a model, the best metrics first."""
    models = ["statecast"]
    for key in scores:
        metric, _, model = _split(key)
        if metric == "mase" and model and model not in models:
            models.append(model)
    rows: list[tuple[object, ...]] = []
    for model in models:
        suffix = "" if model == "statecast" else f"_{model}"
        cells = [scores.get(f"{metric}{suffix}") for metric in SHOWN]
        rows.append((model, *(None if cell is None else f"{cell:.3f}" for cell in cells)))
    return table("model", *SHOWN, rows=rows, right=SHOWN)


def _split(key: str) -> tuple[str, str, str]:
    """`mase_AutoETS` -> `mase`, `_`, `AutoETS`; `coverage_80` has no model."""
    metric, mark, model = key.partition("_")
    return (key, "", "") if model.isdigit() else (metric, mark, model)

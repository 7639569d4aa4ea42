"""`statecast backtest`."""

import time
from collections.abc import Sequence
from typing import Annotated

import typer

from pipelines.cli.command import (
    BaselinesOption,
    DataArgument,
    FillOption,
    FreqOption,
    HorizonOption,
    ModelOption,
    Session,
    WindowsOption,
    command,
    parse_baselines,
    parse_freq,
)
from pipelines.cli.commands.train import make_scores_table
from pipelines.cli.console import format_duration
from pipelines.cli.project import ResolvedProject, resolve_project


def install(app: typer.Typer) -> None:
    """Add the command."""

    @command(app, "backtest", rich_help_panel="Models")
    def backtest(
        session: Session,
        data: DataArgument = None,
        model: ModelOption = None,
        h: HorizonOption = None,
        windows: WindowsOption = None,
        step_size: Annotated[
            int | None, typer.Option(min=1, help="Steps between two cutoffs.")
        ] = None,
        freq: FreqOption = None,
        fill: FillOption = None,
        baselines: BaselinesOption = None,
    ) -> None:
        """
        Compare a trained model with the baselines at rolling cutoffs of DATA.

        The model is not retrained. A warning is printed if it was trained on values after the first
        cutoff, because its scores are then too good.
        """
        settings = resolve_project(
            session.config,
            {
                "project.source": data,
                "project.windows": windows,
                "project.step_size": step_size,
                "data.freq": parse_freq(freq),
                "data.fill": fill,
            },
        )
        _backtest(session, settings, model=model, h=h, baselines=parse_baselines(baselines))


def _backtest(
    session: Session,
    settings: ResolvedProject,
    *,
    model: str | None,
    h: int | None,
    baselines: Sequence[str] | None,
) -> None:
    import tempfile
    from pathlib import Path

    from pipelines.cli.evaluation import load_evaluation_inputs
    from pipelines.promotion.baseline_process import BaselineProcess
    from pipelines.promotion.comparison import evaluate
    from pipelines.promotion.plan import not_after

    start = time.perf_counter()
    inputs = load_evaluation_inputs(session, settings, model=model, horizon=h, baselines=baselines)
    bundle, series, panel, cutoffs = inputs.bundle, inputs.series, inputs.panel, inputs.cutoffs
    first_cutoff = series.calendar.text(cutoffs.first_cutoff(panel))
    trained_to = bundle.facts.get("cutoff")
    trained_on_targets = trained_to is not None and not not_after(trained_to, first_cutoff)
    if trained_on_targets:
        session.console.warn(
            f"the model was trained up to {trained_to}, after the first cutoff {first_cutoff}: "
            "these scores are too good (`statecast train` reports honest ones)"
        )
    with (
        tempfile.TemporaryDirectory() as folder,
        BaselineProcess(series, panel, cutoffs, Path(folder)) as process,
    ):
        evaluation = evaluate(bundle, series, panel, cutoffs, baselines=process.wait())
    scores = evaluation.flat()
    session.console.print_result(
        {
            "scores": scores,
            "windows": cutoffs.windows,
            "h": cutoffs.horizon,
            "series": len(cutoffs.rows),
            "first_cutoff": first_cutoff,
            "trained_on_targets": trained_on_targets,
        },
        make_scores_table(scores),
    )
    count = f"{cutoffs.windows} cutoff{'' if cutoffs.windows == 1 else 's'}"
    duration = format_duration(time.perf_counter() - start)
    session.console.say(f"{len(cutoffs.rows):,} series scored at {count} in {duration}")

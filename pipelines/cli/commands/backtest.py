"""`statecast backtest`."""

from typing import Annotated

import typer

from pipelines.cli import project
from pipelines.cli.command import Session, command
from pipelines.cli.commands.train import (
    Ahead,
    Baselines,
    DataArgument,
    Fill,
    Freq,
    Windows,
    as_freq,
    named,
    need_source,
    scores_table,
)
from pipelines.cli.console import elapsed


def install(app: typer.Typer) -> None:
    """Add the command."""

    @command(app, "backtest", rich_help_panel="Models")
    def backtest(
        session: Session,
        data: DataArgument = None,
        model: Annotated[
            str | None,
            typer.Option(help="Bundle directory, ALIAS or VERSION; default: the champion."),
        ] = None,
        h: Ahead = None,
        windows: Windows = None,
        step_size: Annotated[int | None, typer.Option(min=1, help="Between two cutoffs.")] = None,
        freq: Freq = None,
        fill: Fill = None,
        baselines: Baselines = None,
    ) -> None:
        """
        Score a trained model beside the baselines, at rolling cutoffs of DATA.

        The weights stay as they are. When they were trained on values after the first cutoff,
        the scores flatter the model, and a warning says so.
        """
        found = project.find(
            session.config,
            {
                "project.source": data,
                "project.windows": windows,
                "project.step_size": step_size,
                "data.freq": as_freq(freq),
                "data.fill": fill,
            },
        )
        _backtest(session, found, model=model, h=h, baselines=named(baselines))


def _backtest(
    session: Session,
    found: project.ResolvedProject,
    *,
    model: str | None,
    h: int | None,
    baselines: tuple[str, ...] | None,
) -> None:
    import tempfile
    import time
    from dataclasses import replace
    from pathlib import Path

    from forecast.data.future_covariates import read_history
    from forecast.data.panel import Panel
    from forecast.data.validation import validate
    from pipelines.cli.model_choice import choose_bundle, data_settings
    from pipelines.promotion.baseline_process import BaselineProcess
    from pipelines.promotion.comparison import evaluate
    from pipelines.promotion.plan import not_after, plan

    source = need_source(found)
    begun = time.perf_counter()
    bundle, told = choose_bundle(found, model)
    session.console.step("model", told)
    data = data_settings(found, bundle)
    history, _ = read_history(source, data, query=found.project.query)
    series = validate(history, data)
    series = replace(series, data=replace(series.data, kind=bundle.config.data.kind))
    panel = Panel.from_frame(series)
    cutoffs = plan(
        panel,
        series.calendar,
        horizon=h or bundle.horizon,
        windows=found.project.windows,
        step_size=found.project.step_size,
        seasons=bundle.config.data.season_lengths,
        chosen=baselines,
        kind=bundle.config.data.kind,
    )
    first = series.calendar.text(cutoffs.first_cutoff(panel))
    learned = bundle.facts.get("cutoff")
    seen = learned is not None and not not_after(learned, first)
    if seen:
        session.console.warn(
            f"the model was trained up to {learned}, after the first cutoff "
            f"{first}: these scores flatter it (the run of `statecast train` has honest ones)"
        )
    with (
        tempfile.TemporaryDirectory() as folder,
        BaselineProcess(series, panel, cutoffs, Path(folder)) as rivals,
    ):
        result = evaluate(bundle, series, panel, cutoffs, baselines=rivals.wait())
    scores = result.flat()
    session.console.result(
        {
            "scores": scores,
            "windows": cutoffs.windows,
            "h": cutoffs.horizon,
            "series": len(cutoffs.rows),
            "first_cutoff": first,
            "trained_on_targets": seen,
        },
        scores_table(scores),
    )
    session.console.say(
        f"{len(cutoffs.rows):,} series at {cutoffs.windows} cutoffs in "
        f"{elapsed(time.perf_counter() - begun)}."
    )

"""`statecast diagnose`."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from pipelines.reporting.diagnosis import Diagnosis
from pipelines.cli.command import (
    DataArgument,
    FillOption,
    FreqOption,
    ModelOption,
    Session,
    WindowsOption,
    command,
    parse_freq,
)
from pipelines.cli.console import format_duration, make_table
from pipelines.cli.project import ResolvedProject, resolve_project

WORST = 5
"""Number of series with the largest errors to print."""


def install(app: typer.Typer) -> None:
    """Add the command."""

    @command(app, "diagnose", rich_help_panel="Models")
    def diagnose(
        session: Session,
        data: DataArgument = None,
        model: ModelOption = None,
        output: Annotated[
            Path | None,
            typer.Option("-o", "--output", help="Folder for the report and its tables."),
        ] = None,
        windows: WindowsOption = None,
        freq: FreqOption = None,
        fill: FillOption = None,
    ) -> None:
        """
        Show how far back a trained model remembers, and where it is wrong, on DATA.

        The report covers memory, gradients through time, the value of carrying the state, the
        series with the largest errors, and the components of some forecasts. The model is not
        changed.
        """
        settings = resolve_project(
            session.config,
            {
                "project.source": data,
                "project.windows": windows,
                "data.freq": parse_freq(freq),
                "data.fill": fill,
            },
        )
        _diagnose(session, settings, model=model, output=output)


def _diagnose(
    session: Session, settings: ResolvedProject, *, model: str | None, output: Path | None
) -> None:
    from forecast.diagnostics.carry_gain import carry_gain
    from pipelines.cli.evaluation import load_evaluation_inputs
    from pipelines.promotion.comparison import evaluate
    from pipelines.reporting import diagnosis

    start = time.perf_counter()
    inputs = load_evaluation_inputs(session, settings, model=model, horizon=None, baselines=())
    bundle, cutoffs = inputs.bundle, inputs.cutoffs
    panel = cutoffs.part(inputs.panel)
    evaluation = evaluate(bundle, inputs.series, inputs.panel, cutoffs)
    gain = None  # a model of fixed windows carries no state
    if bundle.config.model.window is None:
        gain = carry_gain(bundle, panel, n_windows=cutoffs.windows, step_size=cutoffs.step_size)
    report = diagnosis.diagnose(
        bundle,
        panel,
        evaluation.cv,
        inputs.series.frame,
        season_length=cutoffs.season_length,
        carried=gain,
    )
    if output is not None:
        report.save(output)
    session.console.print_result(
        {"facts": report.facts, "output": None if output is None else str(output)},
        _make_table(report),
    )
    if output is not None:
        session.console.say(f"wrote {output / 'diagnosis.html'}")
    duration = format_duration(time.perf_counter() - start)
    session.console.say(f"{panel.num_series:,} series diagnosed in {duration}")


def _make_table(report: "Diagnosis") -> "Table":
    facts = report.facts
    worst = report.tables["errors_by_series"].head(WORST)
    rows: list[tuple[object, ...]] = [
        ("memory", _format_reach(facts["memory_reach"])),
        ("memory of the network alone", _format_reach(facts["network_memory_reach"])),
        ("gradient by layer", ", ".join(facts["gradient"].values()) or "none: fixed windows"),
        ("gain from carrying the state", _format_gain(facts.get("carry_gain"))),
        (
            "largest errors (MASE)",
            ", ".join(f"{row.unique_id} ({row.mase:.2f})" for row in worst.itertuples()),
        ),
    ]
    return make_table("measure", "result", rows=rows)


def _format_gain(share: float | None) -> str:
    """Return a gain in percent; adding 0.0 turns a rounded -0.0 into 0.0."""
    return "none: fixed windows" if share is None else f"{round(share, 3) + 0.0:.1%} of MASE"


def _format_reach(steps: int | None) -> str:
    if steps is None:
        return "longer than the history"
    return f"influence under 1 % from {steps:,} step{'' if steps == 1 else 's'} back"

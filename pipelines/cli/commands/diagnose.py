"""`statecast diagnose`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from pipelines.reporting.diagnosis import Diagnosis
from pipelines.cli import project
from pipelines.cli.command import Session, command
from pipelines.cli.commands.train import DataArgument, Fill, Freq, Windows, as_freq, need_source
from pipelines.cli.console import elapsed, table

WORST = 5


def install(app: typer.Typer) -> None:
    """Add the command."""

    @command(app, "diagnose", rich_help_panel="Models")
    def diagnose(
        session: Session,
        data: DataArgument = None,
        model: Annotated[
            str | None,
            typer.Option(help="Bundle directory, ALIAS or VERSION; default: the champion."),
        ] = None,
        output: Annotated[
            Path | None, typer.Option("-o", "--output", help="Folder for a page and its tables.")
        ] = None,
        windows: Windows = None,
        freq: Freq = None,
        fill: Fill = None,
    ) -> None:
        """
        Say how far back a trained model remembers, and where it is wrong, on DATA.

        Memory, gradients through time, what carrying the state is worth, the worst series and
        the parts of some forecasts. The weights stay as they are.
        """
        found = project.find(
            session.config,
            {
                "project.source": data,
                "project.windows": windows,
                "data.freq": as_freq(freq),
                "data.fill": fill,
            },
        )
        _diagnose(session, found, model=model, output=output)


def _diagnose(
    session: Session, found: project.ResolvedProject, *, model: str | None, output: Path | None
) -> None:
    import time
    from dataclasses import replace

    from forecast.data.future_covariates import read_history
    from forecast.data.panel import Panel
    from forecast.data.validation import validate
    from forecast.diagnostics.carry_gain import carry_gain
    from pipelines.cli.model_choice import choose_bundle, data_settings
    from pipelines.promotion.comparison import evaluate
    from pipelines.promotion.plan import plan
    from pipelines.reporting import diagnosis as report

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
        horizon=bundle.horizon,
        windows=found.project.windows,
        step_size=found.project.step_size,
        seasons=bundle.config.data.season_lengths,
        chosen=(),
    )
    part = cutoffs.part(panel)
    scored = evaluate(bundle, series, panel, cutoffs)
    carried = None  # windows carry nothing
    if bundle.config.model.window is None:
        carried = carry_gain(bundle, part, n_windows=cutoffs.windows, step_size=cutoffs.step_size)
    made = report.diagnose(
        bundle,
        part,
        scored.cv,
        series.frame,
        season_length=cutoffs.season_length,
        carried=carried,
    )
    if output is not None:
        made.save(output)
    session.console.result(
        {"facts": made.facts, "output": None if output is None else str(output)}, _table(made)
    )
    if output is not None:
        session.console.say(f"written: {output / 'diagnosis.html'}")
    session.console.say(f"{part.num_series:,} series in {elapsed(time.perf_counter() - begun)}.")


def _table(made: "Diagnosis") -> "Table":
    facts = made.facts
    worst = made.tables["errors_by_series"].head(WORST)
    named = ", ".join(f"{row.unique_id} ({row.mase:.2f})" for row in worst.itertuples())
    rows: list[tuple[object, ...]] = [
        ("memory", _reach(facts["memory_reach"])),
        ("memory of the network alone", _reach(facts["network_memory_reach"])),
        ("gradient, by layer", ", ".join(facts["gradient"].values()) or "windows: none"),
        ("gain of the carried state", _gain(facts.get("carry_gain"))),
        ("worst series (MASE)", named),
    ]
    return table("what", "found", rows=rows)


def _gain(share: float | None) -> str:
    """No `-0.0%`: what rounds to nothing is nothing."""
    return "windows: none" if share is None else f"{round(share, 3) + 0.0:.1%} of MASE"


def _reach(steps: int | None) -> str:
    if steps is None:
        return "beyond the history"
    return f"under 1 % from {steps:,} step{'' if steps == 1 else 's'} back"

"""Prepare what `backtest` and `diagnose` need: a trained model, its data and the cutoffs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from forecast.bundle import Bundle
from forecast.data import validation
from forecast.data.future_covariates import read_history
from forecast.data.panel import Panel
from pipelines.cli.command import Session
from pipelines.cli.model_choice import load_chosen_bundle, make_data_config
from pipelines.cli.project import ResolvedProject, require_source
from pipelines.promotion.plan import Plan, plan


@dataclass(frozen=True, slots=True)
class EvaluationInputs:
    """A trained model, the data to evaluate it on, and the cutoffs."""

    bundle: Bundle
    series: validation.CheckedSeries
    panel: Panel
    """The series as arrays."""
    cutoffs: Plan


def load_evaluation_inputs(
    session: Session,
    settings: ResolvedProject,
    *,
    model: str | None,
    horizon: int | None,
    baselines: Sequence[str] | None,
) -> EvaluationInputs:
    """
    Load the model, read and check the data, and plan the cutoffs.

    Args:
        session: Where the choice of model is reported.
        settings: Settings of the command.
        model: Value of `--model`; None means the champion.
        horizon: Steps ahead; None means the horizon of the model.
        baselines: Names of baselines; None means those usual for the kind of data.

    Raises:
        UnknownModel: There is no such model.
        DataError: The data cannot be used.
    """
    source = require_source(settings)
    bundle, description = load_chosen_bundle(settings, model)
    session.console.print_step("model", description)
    data = make_data_config(settings, bundle)
    history, _ = read_history(source, data, query=settings.project.query)
    series = validation.validate(history, data)
    series = replace(series, data=replace(series.data, kind=bundle.config.data.kind))
    panel = Panel.from_frame(series)
    cutoffs = plan(
        panel,
        series.calendar,
        horizon=horizon or bundle.horizon,
        windows=settings.project.windows,
        step_size=settings.project.step_size,
        seasons=bundle.config.data.season_lengths,
        chosen=baselines,
        kind=bundle.config.data.kind,
    )
    return EvaluationInputs(bundle, series, panel, cutoffs)

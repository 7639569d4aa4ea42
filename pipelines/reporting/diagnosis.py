"""Diagnoses a trained model: what it remembers, how it learned and where it is wrong."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from forecast.bundle import Bundle
from forecast.data.panel import Panel
from forecast.diagnostics.attribution import attribution
from forecast.diagnostics.carry_gain import CarryGain
from forecast.diagnostics.error_tables import error_tables
from forecast.diagnostics.gradients import clipping, gradient_profile
from forecast.diagnostics.memory import memory_profile
from forecast.training.progress import TrainEvent
from pipelines.reporting.figures import (
    Figure,
    attribution_chart,
    carry_chart,
    gradient_chart,
    memory_chart,
    sample_series,
    to_html,
    worst_chart,
)

_MEMORY_STEPS = 400_000
"""Steps of all perturbed copies together: a few seconds of computing."""
_LAGS = 32
"""Lags at which a series is perturbed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """Figures, tables and facts of a diagnosis, by name."""

    figures: dict[str, Figure]
    tables: dict[str, pd.DataFrame]
    facts: dict[str, Any]
    """Summary as JSON values."""

    def save(self, root: Path) -> None:
        """Write the figures and a page of them, the tables as Parquet, and `diagnosis.json`."""
        (root / "figures").mkdir(parents=True, exist_ok=True)
        for name, figure in self.figures.items():
            (root / "figures" / f"{name}.json").write_text(json.dumps(figure), encoding="utf-8")
        for name, table in self.tables.items():
            table.to_parquet(root / f"{name}.parquet", index=False)
        (root / "diagnosis.json").write_text(json.dumps(self.facts, indent=1), encoding="utf-8")
        page = to_html(self.figures, title="What the model remembers and where it is wrong")
        (root / "diagnosis.html").write_text(page, encoding="utf-8")


def diagnose(
    bundle: Bundle,
    panel: Panel,
    cv: pd.DataFrame,
    history: pd.DataFrame,
    *,
    season_length: int,
    events: Sequence[TrainEvent] = (),
    carried: CarryGain | None = None,
) -> Diagnosis:
    """
    Compute every diagnosis that takes a few seconds at most, whatever the size of the data.

    Args:
        bundle: The model that made the forecasts of `cv`.
        panel: The series of `cv`, each at least 2 steps longer than the model's horizon.
        cv: The backtest table.
        history: Columns `unique_id`, `ds`, `y`.
        season_length: Season of the scaled errors, in steps.
        events: Events of the training, from which the effect of gradient clipping is read.
        carried: Gain from carrying the state, if it was measured.
    """
    longest = int(panel.lengths.max())
    memory = memory_profile(
        bundle, panel, num_series=int(np.clip(_MEMORY_STEPS // (_LAGS * longest), 1, 16))
    )
    errors = error_tables(cv, history, season_length=season_length, groups=panel.static)
    unique_ids = sample_series(cv)
    parts = attribution(bundle, panel.take(pd.Index(panel.ids).get_indexer(pd.Index(unique_ids))))
    figures = {"memory": memory_chart(memory)}
    facts: dict[str, Any] = {
        "memory_reach": memory.reach,
        "network_memory_reach": memory.network_reach,
        "gradient": {},
        "worst_series": list(errors.worst),
    }
    if events:
        clipped = clipping(events, bundle.config.train.max_grad_norm)
        facts |= {
            "clipped_share": clipped.clipped,
            "clipped_share_late": clipped.clipped_late,
            "max_grad_norm_seen": clipped.max_grad_norm,
        }
    tables = {
        "memory": memory.table,
        "errors_by_series": errors.by_series,
        "errors_by_group": errors.by_group,
        "parts": parts,
    }
    if bundle.config.model.window is None:
        gradient = gradient_profile(bundle, panel)
        tables["gradient"] = gradient.table
        if (gradient.table["ratio"] > 0).any():  # A forecast need not depend on the network.
            figures["gradient"] = gradient_chart(gradient)
        facts["gradient"] = {str(layer): flow for layer, flow in gradient.flow.items()}
    if carried is not None:
        figures["carry"] = carry_chart(carried)
        tables["carry"] = carried.scores
        facts["carry_gain"] = float(carried.scores["gain"].iloc[1])
    figures["worst"] = worst_chart(errors)
    for i, unique_id in enumerate(unique_ids):
        figures[f"parts_{i + 1}"] = attribution_chart(parts, unique_id)
    return Diagnosis(figures=figures, tables=tables, facts=facts)

"""Observations to states."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from forecast.bundle import Bundle
from forecast.data.panel import Panel
from forecast.inference import observing
from forecast.inference.states import States, initial_states
from service.storage.records import Observations


def replayed(
    bundle: Bundle,
    ids: Sequence[str],
    static: Sequence[Mapping[str, Any]],
    rows: Observations,
    bases: Mapping[int, States] | None = None,
) -> States:
    """
    States after the whole history of some series, in one fused pass.

    Args:
        bundle: The model.
        ids: The series.
        static: Of each.
        rows: All that there is of them.
        bases: States before those rows, by their places in `ids`.
    """
    begun = _begin(bundle, ids, static)
    if bases:
        begun = begun.put(list(bases), States.concat(list(bases.values())))
    return observing.observe(bundle, begun, to_panel(bundle, ids, rows))


def to_panel(bundle: Bundle, ids: Sequence[str], rows: Observations) -> Panel:
    """
    Lay rows out for the library; `rows.series` counts through `ids` and is rising.

    Covariates that a step lacks are 0: only steps older than the model's own roles do.
    """
    lengths = np.bincount(rows.series, minlength=len(ids))
    observed = np.isfinite(rows.y)
    covariates = np.nan_to_num(rows.covariates).astype(np.float32)
    known = len(bundle.config.data.known_future)
    return Panel(
        ids=tuple(ids),
        indptr=np.r_[0, np.cumsum(lengths)].astype(np.int64),
        ds=rows.ds,
        values=np.where(observed, rows.y, 0.0),
        observed=observed,
        known_future=covariates[:, :known],
        past_only=covariates[:, known:],
    )


def _begin(bundle: Bundle, ids: Sequence[str], static: Sequence[Mapping[str, Any]]) -> States:
    """States of series of which nothing was observed yet."""
    spec = bundle.spec.static
    table = None
    if spec.columns and any(static):
        names = [column.name for column in spec.columns]
        told = [[facts.get(name) for name in names] for facts in static]
        known = [row for row, values in enumerate(told) if None not in values]
        table = pd.DataFrame(
            [told[row] for row in known], [ids[row] for row in known], columns=names
        )
    return initial_states(bundle, len(ids), spec.encode(table, ids))

"""Computes states from observations."""

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
    Compute the states after the whole history of series in one fused pass.

    Args:
        bundle: The model.
        ids: Names of the series.
        static: Static covariates of each series.
        rows: All observations; `series` indexes `ids`.
        bases: States before these rows, by index in `ids`; other series start from nothing.
    """
    states = _initial_states(bundle, ids, static)
    if bases:
        states = states.put(list(bases), States.concat(list(bases.values())))
    return observing.observe(bundle, states, to_panel(bundle, ids, rows))


def to_panel(bundle: Bundle, ids: Sequence[str], rows: Observations) -> Panel:
    """
    Convert rows to a panel of the library.

    Args:
        bundle: The model.
        ids: Names of the series.
        rows: Observations; `series` indexes `ids` and is increasing. Missing covariates become 0:
            only steps that are older than the model's covariates lack them.
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


def _initial_states(
    bundle: Bundle, ids: Sequence[str], static: Sequence[Mapping[str, Any]]
) -> States:
    """Return the states of series that have observed nothing yet."""
    spec = bundle.spec.static
    table = None
    if spec.columns and any(static):
        names = [column.name for column in spec.columns]
        values = [[facts.get(name) for name in names] for facts in static]
        complete = [row for row, row_values in enumerate(values) if None not in row_values]
        table = pd.DataFrame(
            [values[row] for row in complete], [ids[row] for row in complete], columns=names
        )
    return initial_states(bundle, len(ids), spec.encode(table, ids))

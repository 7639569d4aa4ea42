"""Fill the steps missing between the state of a series and its first new observation."""

from dataclasses import replace

import numpy as np
from jaxtyping import Float, Int

from forecast.bundle import Bundle
from forecast.data.panel import Panel
from forecast.errors import MissingSteps
from forecast.features.filter_state import ScalarViews
from forecast.features.origin import lower_bound
from forecast.inference.forecasting import to_y
from forecast.inference.states import States

MAX_STEPS = 10_000_000
"""Most missing steps that one call fills."""


def last_values(bundle: Bundle, states: States) -> Float[np.ndarray, " series"]:
    """Return the last observed value of each series, in the unit of `y`."""
    filters, spec = states.filters, bundle.spec.filters
    last = ScalarViews.of(spec, filters.scalars).last
    values: np.ndarray = to_y(bundle, last[:, None])[:, 0] * (last >= lower_bound(spec, filters))
    return values


def fill_gap(
    bundle: Bundle,
    panel: Panel,
    last_ds: Int[np.ndarray, " series"],
    last: Float[np.ndarray, " series"],
) -> Panel:
    """
    Put the steps missing between each series' last step and its first new one into the panel.

    The model's fill policy gives them their values, and the first new step its covariates. Under
    the policy `refuse` the panel is returned as it is.

    Args:
        bundle: The model whose states the panel continues.
        panel: New steps; every series has at least one.
        last_ds: Stamp of each series' last step; for a series without one, that of its first new
            step.
        last: Value of that last step.

    Raises:
        MissingSteps: More than 10,000,000 steps are missing.
    """
    fill, calendar = bundle.config.data.fill, bundle.calendar
    begins = panel.indptr[:-1]
    step, phase, _ = calendar.locate(panel.ds[begins])
    before, last_phase, _ = calendar.locate(last_ds)
    between = np.where(phase == last_phase, np.maximum(step - before - 1, 0), 0)
    if fill == "refuse" or not between.any():
        return panel
    if between.sum() > MAX_STEPS:
        worst = int(between.argmax())
        raise MissingSteps(
            f"{between.sum():,} steps are missing before the new ones: at most {MAX_STEPS:,} are "
            "filled at once",
            where=f"series {panel.ids[worst]!r}: {between[worst]:,} steps",
            help="send the steps between, or begin the state anew",
        )
    lengths = panel.lengths + between
    indptr = np.r_[0, np.cumsum(lengths)].astype(np.int64)
    row = np.repeat(np.arange(panel.num_series), lengths)
    at = np.arange(indptr[-1]) - (indptr[:-1] + between)[row]
    flat, made = begins[row] + np.maximum(at, 0), at < 0
    filler = last[row] if fill == "forward" else np.zeros(len(row))
    return replace(
        panel,
        indptr=indptr,
        ds=np.where(made, calendar.stamp_at(step[row] + at, phase[row]), panel.ds[flat]),
        values=np.where(made, filler, panel.values[flat]),
        observed=np.where(made, fill != "mask", panel.observed[flat]),
        known_future=panel.known_future[flat],
        past_only=panel.past_only[flat],
    )

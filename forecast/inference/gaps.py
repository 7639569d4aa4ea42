"""Fill the steps missing between the state of a series and its first new observation."""

from dataclasses import replace

import numpy as np
from jaxtyping import Float, Int

from forecast.bundle import Bundle
from forecast.data.gaps import fill_values, insert_steps, missing_before
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

    They take their values from the model's fill policy and their covariates from the first new
    step. Under the policy `refuse` the panel is returned as it is.

    Args:
        bundle: The model whose states the panel continues.
        panel: New steps; every series has at least one.
        last_ds: Stamp of each series' last step; for a series without one, that of its first new
            step.
        last: Value of that last step.

    Raises:
        MissingSteps: More than 10,000,000 steps are missing.
    """
    policy, calendar = bundle.config.data.fill, bundle.calendar
    begins = panel.indptr[:-1]
    gaps = missing_before(calendar, last_ds, panel.ds[begins])
    if policy == "refuse" or not gaps.any():
        return panel
    if gaps.sum() > MAX_STEPS:
        worst = int(gaps.argmax())
        raise MissingSteps(
            f"{gaps.sum():,} steps are missing before the new ones: at most {MAX_STEPS:,} are "
            "filled at once",
            where=f"series {panel.ids[worst]!r}: {gaps[worst]:,} steps",
            help="send the steps between, or begin the state anew",
        )
    missing = np.zeros(len(panel.ds), np.int64)
    missing[begins] = gaps
    filled = insert_steps(calendar, panel.ds, missing)
    source, inserted = filled.source, filled.inserted
    lengths = panel.lengths + gaps
    # A panel holds 0, not NaN, where nothing was observed.
    values = fill_values("zero" if policy == "mask" else policy, np.repeat(last, lengths))
    return replace(
        panel,
        indptr=np.r_[0, np.cumsum(lengths)].astype(np.int64),
        ds=filled.stamps,
        values=np.where(inserted, values, panel.values[source]),
        observed=np.where(inserted, policy != "mask", panel.observed[source]),
        known_future=panel.known_future[source],
        past_only=panel.past_only[source],
    )

"""Attribution: the parts of a forecast from skips, network, covariates and shrinkage."""

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from forecast.bundle import Bundle
from forecast.data.panel import Panel
from forecast.inference import forecasting, observing
from forecast.inference.forecasting import read_origin
from forecast.inference.output import MODEL, forecast_frame
from forecast.inference.states import States
from forecast.models.ensemble import Ensemble
from forecast.models.network import Network
from forecast.models.point_head import Parts

PARTS = ("skip", "correction", "covariates", "guard")
"""Columns that add up to the forecast."""
_BOUND = 50.0
"""Largest logarithm of a factor: beyond what the heads allow, and still finite."""


def attribution(bundle: Bundle, panel: Panel, *, horizon: int | None = None) -> pd.DataFrame:
    """
    Split a forecast of each series, made `horizon` steps before its end, in the unit of `y`.

    `skip` is the learned mix of simple forecasts by itself. `correction` is what the network adds
    from its memory, `covariates` what it adds from known-future covariates and the date of the
    target. `guard` is the rest: the shrinkage towards the best skip, and bounds. Together they are
    the forecast.

    On the log scale and for counts the effects multiply: `y = skip * exp(a + b)`. The difference
    `y - skip` is split into `L * a + L * b` with the logarithmic mean
    `L = (y - skip) / log(y / skip)`, which is exact and does not depend on the order of effects.

    Args:
        bundle: The model; the parts of an ensemble are the means over its members.
        panel: The series; those with no more than `horizon` steps are left out.
        horizon: Steps ahead; None takes the trained horizon.

    Returns:
        `unique_id`, `ds`, `statecast`, `skip`, `correction`, `covariates`, `guard`.

    References:
        Ang, Decomposition analysis for policymaking in energy, Energy Policy 32(9), 2004 (the
        logarithmic mean Divisia index).
    """
    horizon = bundle.horizon if horizon is None else horizon
    panel = panel.take(np.flatnonzero(panel.lengths > horizon))
    known = panel.lengths - horizon
    target = panel.indptr[:-1, None] + known[:, None] + np.arange(horizon)
    future = panel.known_future[target]
    states = observing.warm_up(bundle, panel.head(known))
    outputs = forecasting.forecast(bundle, states, horizon=horizon, known_future=future)
    table = forecast_frame(panel.ids, panel.ds[target], outputs, (), bundle.calendar)
    parts = _in_unit_of_y(bundle, states, future, horizon)
    for name, values in zip(PARTS, parts, strict=False):
        table[name] = values.ravel()
    table[PARTS[-1]] = table[MODEL] - table[list(PARTS[:-1])].sum(axis=1)
    return table


def _in_unit_of_y(
    bundle: Bundle,
    states: States,
    known: Float[np.ndarray, "series horizon known"],
    horizon: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Skip, correction and covariate effect of each step, before the shrinkage."""
    space = bundle.spec.filters.space
    centre, unit, parts = _relative(bundle, states, known)
    mixed, correction, effect, _ = (part[:, :horizon].double().numpy() for part in parts)
    if space == "linear":
        return centre + unit * mixed, unit * correction, unit * effect
    if space == "log":
        skip = np.exp(centre + unit * mixed)
        correction, effect = unit * correction, unit * effect
    else:
        skip = unit * np.maximum(mixed, 0.0)
    growth = np.clip(correction + effect, -_BOUND, _BOUND)
    small = np.abs(growth) < 1e-9
    mean = skip * np.where(small, 1.0, np.expm1(growth) / np.where(small, 1.0, growth))
    return skip, mean * correction, mean * effect


@torch.inference_mode()
def _relative(
    bundle: Bundle, states: States, known: Float[np.ndarray, "series horizon known"]
) -> tuple[Float[np.ndarray, "series one"], Float[np.ndarray, "series one"], Parts]:
    """Return centre, unit and the parts in units, at all trained horizons; the members' mean."""
    origin = read_origin(bundle, states, known)
    networks = networks_of(bundle)
    memories = origin.memory.chunk(len(networks), dim=-1)
    dates = origin.future.dates.chunk(len(networks), dim=-1)
    member_parts = [
        network.point.parts(memory, origin.skips, origin.future._replace(dates=date))
        for network, memory, date in zip(networks, memories, dates, strict=True)
    ]
    parts = Parts(*(torch.stack(part).mean(0) for part in zip(*member_parts, strict=True)))
    return origin.centre.numpy(), origin.unit.numpy(), parts


def networks_of(bundle: Bundle) -> list[Network]:
    """Return the networks of a model: its members, or the only one."""
    network = bundle.network
    if isinstance(network, Ensemble):
        return [member for member in network.members if isinstance(member, Network)]
    assert isinstance(network, Network)
    return [network]

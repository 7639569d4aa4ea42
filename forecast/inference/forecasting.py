"""
Forecast from states.

A state is a value: `observe` returns a new one, and `forecast` reads one without changing it. The
cost of a forecast does not depend on how many observations a state has seen.
"""

from concurrent.futures import Executor
from numbers import Integral
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from forecast.bundle import Bundle
from forecast.data.panel import Panel
from forecast.errors import MissingFuture, TooShort, UnknownQuantile, UnseenHorizon
from forecast.features.filter_spec import Column
from forecast.features.filter_state import covariate_means
from forecast.features.origin import columns_at_origin, latest_seasons, lower_bound, upper_bound
from forecast.inference.observing import MAX_SERIES, check_digest, map_blocks, observe_unchecked
from forecast.inference.states import States
from forecast.models.conformal import apply_factors, between_quantiles
from forecast.models.point_head import Future
from forecast.models.recurrent import State
from forecast.models.skip import skip_forecasts

MAX_REACH = 10
"""Longest horizon that may be forecast, in trained horizons."""


def forecast(
    bundle: Bundle,
    states: States,
    *,
    horizon: int | None = None,
    known_future: Float[np.ndarray, "series horizon known"] | None = None,
    quantiles: tuple[float, ...] = (),
    pool: Executor | None = None,
) -> Float[np.ndarray, "series horizon output"]:
    """
    Forecast each series from its state, which stays as it is.

    Args:
        bundle: The model that made the states.
        states: Each has seen at least one observation.
        horizon: Steps ahead; None takes the trained horizon. Beyond it, and up to ten times as
            far, the model goes on from its own point forecasts, and its intervals go on widening
            at the rate at which they widened within the trained horizon.
        known_future: Known-future covariates of those steps, if the model has any.
        quantiles: Fractions within the range that the model learned, in any order.
        pool: Threads among which blocks of series are divided; None computes them in turn.

    Returns:
        The point forecast, then one column for each quantile, in the unit of `y`.

    Raises:
        ForeignState: The states were made by another model.
        UnseenHorizon: The horizon is more than ten times the trained one.
        UnknownQuantile: A quantile is outside the range that the model learned.
        MissingFuture: The model has known-future covariates, and they are not all given.
        TooShort: A series has no observation yet.
    """
    check_digest(bundle, states)
    horizon = bundle.horizon if horizon is None else horizon
    _check_request(bundle, states, horizon, known_future, quantiles)
    out = np.empty((1 + len(quantiles), len(states), horizon))

    @torch.inference_mode()
    def forecast_block(begin: int) -> None:
        rows = slice(begin, begin + MAX_SERIES)
        known = None if known_future is None else known_future[rows]
        part = states.between(begin, begin + MAX_SERIES)
        if horizon <= bundle.horizon:
            planes = _forecast(bundle, part, horizon, known, quantiles)
        else:
            planes = _forecast_beyond(bundle, part, horizon, known, quantiles)
        zero_below = lower_bound(bundle.spec.filters, part.filters).astype(planes.dtype)[:, None]
        for target, plane in zip(out, planes, strict=True):  # one by one: each fits the cache
            np.multiply(to_y(bundle, plane), plane >= zero_below, out=target[rows])

    map_blocks(forecast_block, len(states), pool)
    return out.transpose(1, 2, 0)


def to_y(
    bundle: Bundle, outputs: Float[np.ndarray, "*output series horizon"]
) -> Float[np.ndarray, "*output series horizon"]:
    """Convert outputs from model space to the unit of `y`: 0 or more, unless the kind is real."""
    out: np.ndarray = np.exp(outputs) if bundle.spec.filters.space == "log" else outputs
    return out if bundle.config.data.kind == "real" else np.maximum(out, 0.0)


def _forecast_beyond(
    bundle: Bundle,
    states: States,
    horizon: int,
    known: Float[np.ndarray, "series horizon known"] | None,
    quantiles: tuple[float, ...],
) -> Float[np.ndarray, "output series horizon"]:
    """
    Forecast block by block; the point forecasts of a block are observed before the next one.

    The squared distance of a quantile from the median goes on growing by its mean growth per step
    within the first block, as if errors added up independently. Quantiles never cross: each
    distance grows by at least as much as the next one towards the median.

    Returns:
        The point forecast and the quantiles, in model space.
    """
    block, learned = bundle.horizon, bundle.config.model.quantiles
    outward = (*learned[len(learned) // 2 - 1 :: -1], *learned[len(learned) // 2 + 1 :])
    blocks, growth = [], np.zeros(())
    for begin in range(0, horizon, block):
        size = min(block, horizon - begin)
        part = None if known is None else known[:, begin : begin + size]
        outputs = _forecast(bundle, states, size, part, (0.5, *outward))
        point, median = outputs[:2]
        squares = ((outputs[2:] - median) ** 2).reshape(2, -1, len(states), size)
        if begin == 0:
            rise = (squares[..., -1:] - squares[..., :1] * (block > 1)) / max(block - 1, 1)
            growth = np.maximum.accumulate(np.maximum(rise, 0.0), axis=1)
        sides = np.insert(np.sqrt(squares + begin * growth), 0, 0.0, axis=1)
        planes = [point]
        for place, share, sign in between_quantiles(learned, quantiles):
            nearer, further = sides[int(sign > 0), place : place + 2]
            planes.append(median + sign * (share * further + (1 - share) * nearer))
        blocks.append(np.stack(planes))
        if begin + size < horizon:
            observed = _as_observed(bundle, states, to_y(bundle, point), part)
            states = observe_unchecked(bundle, states, observed)
    return np.concatenate(blocks, axis=-1)


def _as_observed(
    bundle: Bundle,
    states: States,
    path: Float[np.ndarray, "series step"],
    known: Float[np.ndarray, "series step known"] | None,
) -> Panel:
    """Return a panel in which each series takes its forecast values, and past-only means."""
    series, steps = path.shape
    past = bundle.spec.usual_past(states.filters)
    return Panel(
        ids=tuple(str(i) for i in range(series)),
        indptr=np.arange(0, series * steps + 1, steps, dtype=np.int64),
        ds=bundle.calendar.after(states.last_ds, steps).ravel(),
        values=path.ravel(),
        observed=np.ones(series * steps, np.bool_),
        known_future=np.zeros((series * steps, 0), np.float32)
        if known is None
        else known.reshape(series * steps, -1).astype(np.float32),
        past_only=np.repeat(past, steps, axis=0).astype(np.float32),
    )


class Origin(NamedTuple):
    """Inputs of the heads at the origin of each series."""

    memory: Float[Tensor, "series memory"]
    """Output of the network at the last step."""
    skips: Float[Tensor, "series skip horizon"]
    """Simple forecasts that the network mixes and corrects, relative to centre and unit."""
    future: Future
    """Known-future covariates and calendar of the steps to forecast."""
    centre: Float[Tensor, "series one"]
    """Where a relative forecast is 0, in model space."""
    unit: Float[Tensor, "series one"]
    """Size of a relative forecast of 1, in model space."""
    upper_bound: Float[Tensor, "series one"]
    """Largest forecast, in model space."""


def read_origin(
    bundle: Bundle, states: States, known: Float[np.ndarray, "series step known"] | None
) -> Origin:
    """
    Return what the heads need to forecast the trained horizon.

    If covariates are given for fewer steps, the last step's are repeated.
    """
    spec, horizon, network = bundle.spec.filters, bundle.horizon, bundle.network
    filter_states = states.filters
    columns = columns_at_origin(spec, filter_states)
    seasons = torch.from_numpy(latest_seasons(spec, filter_states, horizon))
    hidden, cell = (torch.from_numpy(a).transpose(0, 1) for a in (states.hidden, states.cell))
    empty = torch.zeros(len(states), horizon, 0)
    future = Future(empty, empty)
    if bundle.spec.num_dates:
        if known is None:
            known = np.zeros((len(states), horizon, 0), np.float32)
        short = horizon - known.shape[1]
        known = np.concatenate([known, np.repeat(known[:, -1:], short, axis=1)], axis=1)
        last_ds = states.last_ds
        if not spec.num_known and len(last_ds) and (last_ds == last_ds[0]).all():
            known, last_ds = known[:1], last_ds[:1]  # all share the calendar: compute it once
        dates = bundle.spec.dates(known, bundle.calendar.after(last_ds, horizon))
        amounts = list(spec.known_amounts)
        means = covariate_means(spec, filter_states)[:, None, amounts]
        distance = (dates[..., amounts] - means).astype(np.float32)
        future = Future(
            network.embed_future(torch.from_numpy(dates)), network.scale(torch.from_numpy(distance))
        )
    return Origin(
        memory=network.memory_at_end(State(hidden, cell), torch.from_numpy(states.seen)),
        skips=skip_forecasts(spec, torch.from_numpy(columns), seasons, horizon),
        future=future,
        centre=torch.from_numpy(columns[:, Column.CENTRE, None].astype(np.float64)),
        unit=torch.from_numpy(columns[:, Column.UNIT, None].astype(np.float64)),
        upper_bound=torch.from_numpy(upper_bound(spec, filter_states)[:, None]),
    )


def _forecast(
    bundle: Bundle,
    states: States,
    horizon: int,
    known: Float[np.ndarray, "series horizon known"] | None,
    quantiles: tuple[float, ...],
) -> Float[np.ndarray, "output series horizon"]:
    """Forecast one block of at most the trained horizon, in model space."""
    origin = read_origin(bundle, states, known)
    point = bundle.network.point(origin.memory, origin.skips, origin.future)
    # Single precision is enough for counts, which are scaled but not shifted.
    shifted = bundle.spec.filters.space != "ratio"
    planes = torch.empty(
        (1 + len(quantiles), len(states), horizon),
        dtype=torch.float64 if shifted else torch.float32,
    )
    planes[0] = point[:, :horizon]
    if quantiles:
        places = between_quantiles(bundle.config.model.quantiles, quantiles)
        nearest = 1 + max(place for place, _, _ in places)
        spread = bundle.network.quantiles(origin.memory, point, nearest)
        median = spread.median[:, :horizon]
        distances = torch.from_numpy(
            apply_factors(spread.distances.numpy(), bundle.factors[..., :nearest])
        )
        for plane, (place, share, sign) in zip(planes[1:], places, strict=True):
            side = distances[:, int(sign > 0), :horizon]
            torch.mul(side[..., place], sign * share, out=plane)
            if share < 1 and place:
                plane.add_(side[..., place - 1] * (sign * (1 - share)))
            plane.add_(median)
    unit = origin.unit.to(planes.dtype)
    for plane in planes:  # one by one: each fits the cache
        plane.mul_(unit)
        if shifted:  # counts have centre 0 and no upper bound
            torch.minimum(plane.add_(origin.centre), origin.upper_bound, out=plane)
    return planes.numpy()


def check_horizon(bundle: Bundle, horizon: int) -> None:
    """
    Check a horizon before anything is allocated for it.

    Raises:
        UnseenHorizon: The horizon is not a whole number from 1 to ten times the trained one.
    """
    longest = MAX_REACH * bundle.horizon
    if not isinstance(horizon, Integral) or not 1 <= horizon <= longest:
        raise UnseenHorizon(
            f"horizon={horizon} is not possible: the model learned 1 to {bundle.horizon} steps and "
            f"extrapolates to at most {longest}",
            help=f"ask for at most {longest}, or train with a longer horizon",
        )


def _check_request(
    bundle: Bundle,
    states: States,
    horizon: int,
    known_future: Float[np.ndarray, "series horizon known"] | None,
    quantiles: tuple[float, ...],
) -> None:
    check_horizon(bundle, horizon)
    learned = bundle.config.model.quantiles
    for quantile in quantiles:
        if not learned[0] - 1e-9 <= quantile <= learned[-1] + 1e-9:
            raise UnknownQuantile(
                f"quantile {quantile} is not possible: the model learned {learned[0]} to "
                f"{learned[-1]}",
                help=f"ask for a level of at most {100 * (learned[-1] - learned[0]):g}, "
                "or train with wider quantiles",
            )
    if (states.count == 0).any():
        raise TooShort(
            f"{int((states.count == 0).sum())} of {len(states)} series have no observation yet",
            help="observe at least one value first",
        )
    names = bundle.config.data.known_future
    shape = None if known_future is None else known_future.shape
    if names and shape != (len(states), horizon, len(names)):
        raise MissingFuture(
            f"the model needs {', '.join(names)} for each of {horizon} steps: expected an array "
            f"of shape {(len(states), horizon, len(names))}, found {shape}",
            help="give their future values (futr_df, or futr over HTTP)",
        )

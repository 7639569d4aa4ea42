"""
The only inference path: begin a state, observe, forecast. Backtests, service and MLflow use it.

A state is a value. `observe` returns a new one, `forecast` reads one and leaves it as it is. What
a forecast costs does not depend on how much a state has seen.
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
from forecast.features import origin as readout
from forecast.features.filter_spec import Column
from forecast.features.filter_state import covariate_means
from forecast.inference.observing import MAX_SERIES, _check_digest, _in_blocks, _observe
from forecast.inference.states import States
from forecast.models.conformal import apply_factors, between_quantiles
from forecast.models.point_head import Future
from forecast.models.recurrent import State
from forecast.models.skip import skip_forecasts

MAX_REACH = 10
"""How many times the trained horizon may be asked for."""


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
    Forecast each series from where its state stands. Pure: the states stay as they are.

    Args:
        bundle: The model whose states these are.
        states: Each has seen at least one observation.
        horizon: Steps ahead; None takes what the model learned. Up to ten times that, the
            model goes on from its own point forecasts, and its intervals go on widening at the
            rate at which they widened over what it learned.
        known_future: Known-future covariates of those steps, if the model has any.
        quantiles: Fractions, within the range the model learned; any order.
        pool: As of `observe`.

    Returns:
        In the unit of `y`: the point forecast, then one column a quantile.

    Raises:
        ForeignState, UnseenHorizon, UnknownQuantile, MissingFuture, TooShort: As they say.
    """
    _check_digest(bundle, states)
    horizon = bundle.horizon if horizon is None else horizon
    _check_request(bundle, states, horizon, known_future, quantiles)
    out = np.empty((1 + len(quantiles), len(states), horizon))

    @torch.inference_mode()
    def work(begin: int) -> None:
        rows = slice(begin, begin + MAX_SERIES)
        known = None if known_future is None else known_future[rows]
        part = states.between(begin, begin + MAX_SERIES)
        if horizon <= bundle.horizon:
            made = _forecast(bundle, part, horizon, known, quantiles)
        else:
            made = _forecast_beyond(bundle, part, horizon, known, quantiles)
        least = readout.lower_bound(bundle.spec.filters, part.filters).astype(made.dtype)[:, None]
        for finished, plane in zip(out, made, strict=True):  # one by one, each stays in the cache
            np.multiply(to_y(bundle, plane), plane >= least, out=finished[rows])

    _in_blocks(work, len(states), pool)
    return out.transpose(1, 2, 0)


def to_y(
    bundle: Bundle, outputs: Float[np.ndarray, "*output series horizon"]
) -> Float[np.ndarray, "*output series horizon"]:
    """From model space to the unit of `y`."""
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
    Block by block, each from a state that took the block before for observed.

    Squared distances from the median grow by what they grew a step within the first block, as if
    errors added up independently, and by no less than those nearer to it: quantiles never cross.
    """
    whole, learned = bundle.horizon, bundle.config.model.quantiles
    outward = (*learned[len(learned) // 2 - 1 :: -1], *learned[len(learned) // 2 + 1 :])
    blocks, growth = [], np.zeros(())
    for begin in range(0, horizon, whole):
        size = min(whole, horizon - begin)
        part = None if known is None else known[:, begin : begin + size]
        made = _forecast(bundle, states, size, part, (0.5, *outward))
        squares = ((made[2:] - made[1]) ** 2).reshape(2, -1, len(states), size)
        if begin == 0:
            rise = (squares[..., -1:] - squares[..., :1] * (whole > 1)) / max(whole - 1, 1)
            growth = np.maximum.accumulate(np.maximum(rise, 0.0), axis=1)
        sides = np.insert(np.sqrt(squares + begin * growth), 0, 0.0, axis=1)
        planes = [made[0]]
        for place, share, sign in between_quantiles(learned, quantiles):
            nearer, further = sides[int(sign > 0), place : place + 2]
            planes.append(made[1] + sign * (share * further + (1 - share) * nearer))
        blocks.append(np.stack(planes))
        if begin + size < horizon:
            went = _as_observed(bundle, states, to_y(bundle, made[0]), part)
            states = _observe(bundle, states, went)
    return np.concatenate(blocks, axis=-1)


def _as_observed(
    bundle: Bundle,
    states: States,
    path: Float[np.ndarray, "series step"],
    known: Float[np.ndarray, "series step known"] | None,
) -> Panel:
    """A panel in which each series goes on as forecast, past-only covariates as usual."""
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
    """Everything the heads need of where states stand."""

    memory: Float[Tensor, "series memory"]
    skips: Float[Tensor, "series skip horizon"]
    future: Future
    centre: Float[Tensor, "series one"]
    """In model space: a relative forecast is counted from it, in units."""
    unit: Float[Tensor, "series one"]
    most: Float[Tensor, "series one"]
    """In model space: no forecast lies above it."""


def at_origin(
    bundle: Bundle, states: States, known: Float[np.ndarray, "series step known"] | None
) -> Origin:
    """
    Lay out what the heads need to forecast the trained horizon.

    Covariates may be known for fewer steps: the last ones stand for those that follow.
    """
    spec, horizon, network = bundle.spec.filters, bundle.horizon, bundle.network
    kept = states.filters
    columns = readout.columns_at_origin(spec, kept)
    seasons = torch.from_numpy(readout.latest_seasons(spec, kept, horizon))
    hidden, cell = (torch.from_numpy(a).transpose(0, 1) for a in (states.hidden, states.cell))
    nothing = torch.zeros(len(states), horizon, 0)
    future = Future(nothing, nothing)
    if bundle.spec.num_dates:
        if known is None:
            known = np.zeros((len(states), horizon, 0), np.float32)
        short = horizon - known.shape[1]
        known = np.concatenate([known, np.repeat(known[:, -1:], short, axis=1)], axis=1)
        last_ds = states.last_ds
        if not spec.num_known and len(last_ds) and (last_ds == last_ds[0]).all():
            known, last_ds = known[:1], last_ds[:1]  # one calendar for all: read once
        dates = bundle.spec.dates(known, bundle.calendar.after(last_ds, horizon))
        amounts = list(spec.known_amounts)
        means = covariate_means(spec, kept)[:, None, amounts]
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
        most=torch.from_numpy(readout.upper_bound(spec, kept)[:, None]),
    )


def _forecast(
    bundle: Bundle,
    states: States,
    horizon: int,
    known: Float[np.ndarray, "series horizon known"] | None,
    quantiles: tuple[float, ...],
) -> Float[np.ndarray, "output series horizon"]:
    """One block of at most the trained horizon, in model space."""
    origin = at_origin(bundle, states, known)
    point = bundle.network.point(origin.memory, origin.skips, origin.future)
    exact = bundle.spec.filters.space != "ratio"  # a product keeps the digits that a sum loses
    made = torch.empty(
        (1 + len(quantiles), len(states), horizon), dtype=torch.float64 if exact else torch.float32
    )
    made[0] = point[:, :horizon]
    if quantiles:
        asked = between_quantiles(bundle.config.model.quantiles, quantiles)
        nearest = 1 + max(place for place, _, _ in asked)
        spread = bundle.network.quantiles(origin.memory, point, nearest)
        median = spread.median[:, :horizon]
        distances = torch.from_numpy(
            apply_factors(spread.distances.numpy(), bundle.factors[..., :nearest])
        )
        for plane, (place, share, sign) in zip(made[1:], asked, strict=True):
            side = distances[:, int(sign > 0), :horizon]
            torch.mul(side[..., place], sign * share, out=plane)
            if share < 1 and place:
                plane.add_(side[..., place - 1] * (sign * (1 - share)))
            plane.add_(median)
    unit = origin.unit.to(made.dtype)
    for plane in made:  # one by one, each stays in the cache
        plane.mul_(unit)
        if exact:  # the centre of counts is 0, and they have no end
            torch.minimum(plane.add_(origin.centre), origin.most, out=plane)
    return made.numpy()


def check_horizon(bundle: Bundle, horizon: int) -> None:
    """
    Before anything is laid out for it.

    Raises:
        UnseenHorizon: None, or more than ten times what the model learned.
    """
    most = MAX_REACH * bundle.horizon
    if not isinstance(horizon, Integral) or not 1 <= horizon <= most:
        raise UnseenHorizon(
            f"a horizon of {horizon} steps was asked; the model learned 1 to {bundle.horizon} and "
            f"goes on to {most}",
            help=f"ask for at most {most}, or train with a longer horizon",
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
                f"quantile {quantile} was asked; the model learned {learned[0]} to {learned[-1]}",
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

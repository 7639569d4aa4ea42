"""
The only inference path: begin a state, observe, forecast. Backtests, service and MLflow use it.

A state is a value. `observe` returns a new one, `forecast` reads one and leaves it as it is. What
a forecast costs does not depend on how much a state has seen.
"""

import json
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from statistics import NormalDist

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from forecast import filters
from forecast.bundle import Bundle
from forecast.calibration import apply_factors
from forecast.errors import (
    ForeignState,
    LateValues,
    MissingFuture,
    MissingSteps,
    StateError,
    TooShort,
    UnknownQuantile,
    UnseenHorizon,
)
from forecast.filters import FilterState
from forecast.models.heads import skip_forecasts
from forecast.models.recurrent import State
from forecast.panel import Panel

MAX_SERIES, MAX_STEPS = 4096, 256
"""Most series and steps in one call of the network: bounds memory, changes no result."""


@dataclass(frozen=True, slots=True)
class States:
    """What a model remembers of each series, as arrays whose rows are series."""

    digest: str
    """Of the only model that may read it."""
    last_ds: Int[np.ndarray, " series"]
    """Stamp of the last step seen; meaningless where `count` is 0."""
    count: Int[np.ndarray, " series"]
    scalars: Float[np.ndarray, "series scalar"]
    rings: Float[np.ndarray, "series ring"]
    hidden: Float[np.ndarray, "series layer hidden"]
    cell: Float[np.ndarray, "series layer cell"]
    seen: Float[np.ndarray, "series hidden"]
    """The last step as the network embedded it."""
    static: Float[np.ndarray, "series static"]

    def __len__(self) -> int:
        """How many series."""
        return len(self.count)

    def take(self, rows: Sequence[int] | Int[np.ndarray, " row"]) -> "States":
        """The states of these series, in this order, copied."""
        rows = np.asarray(rows, np.int64)
        return type(self)(self.digest, *(array[rows] for array in self._arrays()))

    def put(self, rows: Sequence[int] | Int[np.ndarray, " row"], other: "States") -> "States":
        """A copy in which `rows[i]` is row `i` of `other`."""
        rows = np.asarray(rows, np.int64)
        copies = [array.copy() for array in self._arrays()]
        for copy, array in zip(copies, other._arrays(), strict=True):
            copy[rows] = array
        return type(self)(self.digest, *copies)

    @classmethod
    def concat(cls, parts: Sequence["States"]) -> "States":
        """All series of all parts, in order; the parts are of one model."""
        columns = zip(*(part._arrays() for part in parts), strict=True)
        return cls(parts[0].digest, *(np.concatenate(column) for column in columns))

    def to_bytes(self) -> bytes:
        """Bit for bit, as safetensors with the model's digest in its header."""
        names = (f.name for f in fields(self) if f.name != "digest")
        arrays = dict(zip(names, map(np.ascontiguousarray, self._arrays()), strict=True))
        return save_arrays(arrays, metadata={"digest": self.digest})

    @classmethod
    def from_bytes(cls, data: bytes) -> "States":
        """
        Read what `to_bytes` wrote.

        Raises:
            StateError: The bytes are not a state.
        """
        try:
            arrays = load_arrays(data)
            size = int.from_bytes(data[:8], "little")
            digest = json.loads(data[8 : 8 + size])["__metadata__"]["digest"]
            return cls(digest, *(arrays[f.name] for f in fields(cls) if f.name != "digest"))
        except (SafetensorError, KeyError, ValueError, TypeError) as error:
            raise StateError(
                f"these {len(data)} bytes are not a state: {error}",
                help="rebuild the state from the observations",
            ) from error

    def _arrays(self) -> list[np.ndarray]:
        return [getattr(self, f.name) for f in fields(self) if f.name != "digest"]


def initial_states(
    bundle: Bundle, num_series: int, static: Float[np.ndarray, "series static"] | None = None
) -> States:
    """
    States of series of which nothing was observed yet.

    Args:
        bundle: The model they are for.
        num_series: How many.
        static: As `bundle.spec.static.encode` gives it; None codes every series as unknown.
    """
    model = bundle.config.model
    begun = FilterState.initial(bundle.spec.filters, num_series)
    hidden = np.zeros((num_series, model.num_layers, model.hidden_size), np.float32)
    if static is None:
        static = np.zeros((num_series, bundle.spec.static.width), np.float32)
    return States(
        bundle.digest, np.zeros(num_series, np.int64), begun.count, begun.scalars, begun.rings,
        hidden, hidden.copy() if model.cell == "lstm" else hidden[..., :0].copy(),
        hidden[:, 0].copy(), static,
    )  # fmt: skip


def warm_up(bundle: Bundle, panel: Panel) -> States:
    """Begin a state for each series of the panel and observe all of it."""
    static = bundle.spec.static.encode(panel.static, panel.ids)
    return observe(bundle, initial_states(bundle, panel.num_series, static), panel)


@torch.inference_mode()
def observe(bundle: Bundle, states: States, panel: Panel) -> States:
    """
    Commit new observations: row `i` takes all steps of the panel's series `i`, in order.

    Observing a then b equals observing ab, whatever series share the call.

    Args:
        bundle: The model whose states these are.
        states: One row for each series of the panel.
        panel: Steps that follow each state's last one without a gap; a series may have none.

    Raises:
        ForeignState: The states were made by another model.
        MissingSteps: A series does not go on where its state stopped.
        LateValues: A series begins at or before its state's last step.
    """
    _check_digest(bundle, states)
    _check_continues(bundle, states, panel)
    parts = []
    for begin in range(0, len(states), MAX_SERIES):
        rows = np.arange(begin, min(begin + MAX_SERIES, len(states)))
        part = panel if len(rows) == len(states) else panel.take(rows)
        parts.append(_observe(bundle, states.take(rows), part))
    return States.concat(parts) if parts else states


def _observe(bundle: Bundle, states: States, panel: Panel) -> States:
    before = FilterState(states.count, states.scalars, states.rings)
    after, encoded = bundle.spec.read(before, panel, states.static)
    lengths = panel.lengths
    order = np.argsort(-lengths, kind="stable")
    begins = torch.from_numpy(panel.indptr[:-1][order].copy())
    features = torch.from_numpy(encoded.features)
    hidden = torch.from_numpy(states.hidden[order]).transpose(0, 1).contiguous()
    cell = torch.from_numpy(states.cell[order]).transpose(0, 1).contiguous()
    seen = torch.from_numpy(states.seen[order])
    stops = np.unique(lengths)
    at = 0
    while at < stops.max(initial=0):
        until = min(int(stops[stops > at][0]), at + MAX_STEPS)
        n = int((lengths > at).sum())
        inputs = features[begins[:n, None] + torch.arange(at, until)]
        memory, state = bundle.network.remember(inputs, State(hidden[:, :n], cell[:, :n]))
        hidden[:, :n], cell[:, :n] = state.hidden, state.cell
        seen[:n] = memory[:, -1, hidden.shape[-1] :]
        at = until
    back = np.argsort(order)
    moved = lengths > 0
    last_ds = states.last_ds.copy()
    last_ds[moved] = panel.ds[panel.indptr[1:][moved] - 1]
    return replace(
        states, last_ds=last_ds, count=after.count, scalars=after.scalars, rings=after.rings,
        hidden=hidden.transpose(0, 1).numpy()[back], cell=cell.transpose(0, 1).numpy()[back],
        seen=seen.numpy()[back],
    )  # fmt: skip


@torch.inference_mode()
def forecast(
    bundle: Bundle,
    states: States,
    *,
    horizon: int | None = None,
    known_future: Float[np.ndarray, "series horizon known"] | None = None,
    quantiles: tuple[float, ...] = (),
) -> Float[np.ndarray, "series horizon output"]:
    """
    Forecast each series from where its state stands. Pure: the states stay as they are.

    Args:
        bundle: The model whose states these are.
        states: Each has seen at least one observation.
        horizon: Steps ahead, at most what the model learned, which is also the default.
        known_future: Known-future covariates of those steps, if the model has any.
        quantiles: Fractions, within the range the model learned; any order.

    Returns:
        In the unit of `y`: the point forecast, then one column a quantile.

    Raises:
        ForeignState, UnseenHorizon, UnknownQuantile, MissingFuture, TooShort: As they say.
    """
    _check_digest(bundle, states)
    horizon = bundle.horizon if horizon is None else horizon
    _check_request(bundle, states, horizon, known_future, quantiles)
    out = np.empty((len(states), horizon, 1 + len(quantiles)))
    for begin in range(0, len(states), MAX_SERIES):
        rows = slice(begin, begin + MAX_SERIES)
        known = None if known_future is None else known_future[rows]
        out[rows] = _forecast(bundle, states.take(np.arange(len(states))[rows]), horizon, known,
                              quantiles)  # fmt: skip
    return out


def _forecast(
    bundle: Bundle,
    states: States,
    horizon: int,
    known: Float[np.ndarray, "series horizon known"] | None,
    quantiles: tuple[float, ...],
) -> Float[np.ndarray, "series horizon output"]:
    spec, whole = bundle.spec.filters, bundle.horizon
    kept = FilterState(states.count, states.scalars, states.rings)
    columns = torch.from_numpy(filters.latest_columns(spec, kept))
    seasons = torch.from_numpy(filters.latest_seasons(spec, kept, whole))
    memory = torch.cat(
        [torch.from_numpy(states.hidden[:, -1]), torch.from_numpy(states.seen)], dim=-1
    )
    if bundle.spec.num_future:
        if known is None:
            known = np.zeros((len(states), horizon, 0), np.float32)
        known = np.concatenate([known, np.repeat(known[:, -1:], whole - horizon, axis=1)], axis=1)
        stamps = bundle.calendar.after(states.last_ds, whole)
        future = bundle.spec.future(filters.covariate_means(spec, kept), known, stamps)
    else:
        future = np.zeros((len(states), whole, 0), np.float32)
    relative = bundle.network.point(
        memory, skip_forecasts(columns, seasons, whole),
        bundle.network.scale_future(torch.from_numpy(future)),
    )[:, :horizon].double().numpy()  # fmt: skip
    outputs = relative[..., None]
    if quantiles:
        distances = bundle.network.quantiles(memory).double().numpy()
        distances = apply_factors(distances, bundle.factors)[:, :, :horizon]
        offsets = _interpolate(distances, bundle.config.model.quantiles, quantiles)
        outputs = np.concatenate([outputs, outputs + offsets], axis=-1)
    level, unit = (columns[:, i].double().numpy()[:, None, None] for i in (1, 2))
    y = level + unit * outputs
    out: np.ndarray = np.exp(y) if spec.log else y
    return np.maximum(out, 0.0) if bundle.config.data.kind == "positive" else out


def _interpolate(
    distances: Float[np.ndarray, "series two horizon upper"],
    learned: tuple[float, ...],
    asked: tuple[float, ...],
) -> Float[np.ndarray, "series horizon quantile"]:
    """Offsets from the median; between learned quantiles linear in the normal deviate."""
    normal = NormalDist()
    deviates = [normal.inv_cdf(q) for q in learned if q >= 0.5]
    grid = np.concatenate([np.zeros_like(distances[..., :1]), distances], axis=-1)
    out = np.empty((distances.shape[0], distances.shape[2], len(asked)))
    for i, quantile in enumerate(asked):
        deviate = normal.inv_cdf(max(quantile, 1 - quantile))
        j = min(max(bisect_left(deviates, deviate) - 1, 0), len(deviates) - 2)
        share = (deviate - deviates[j]) / (deviates[j + 1] - deviates[j])
        side = grid[:, int(quantile > 0.5)]
        offset = side[..., j] + share * (side[..., j + 1] - side[..., j])
        out[..., i] = offset if quantile > 0.5 else -offset
    return out


def _check_digest(bundle: Bundle, states: States) -> None:
    if states.digest != bundle.digest:
        raise ForeignState(
            f"the state was made by model {states.digest[:12]}, not by {bundle.digest[:12]}",
            help="rebuild it: warm the series up with this model",
        )


def _check_continues(bundle: Bundle, states: States, panel: Panel) -> None:
    if len(states) != panel.num_series:
        raise StateError(f"{len(states)} states for a panel of {panel.num_series} series")
    rows = np.flatnonzero((states.count > 0) & (panel.lengths > 0))
    if not len(rows):
        return
    found = panel.ds[panel.indptr[:-1][rows]]
    expected = bundle.calendar.after(states.last_ds[rows], 1)[:, 0]
    off = np.flatnonzero(found != expected)
    if len(off):
        i = off[0]
        text = bundle.calendar.text
        kind = LateValues if found[i] < expected[i] else MissingSteps
        raise kind(
            f"{len(off)} of {len(rows)} series do not go on where their state stopped: expected "
            f"{text(expected[i])}, found {text(found[i])}",
            where=f"series '{panel.ids[rows[i]]}' after {text(states.last_ds[rows[i]])}",
            help="send the steps between first, or rebuild the state from all observations",
        )


def _check_request(
    bundle: Bundle,
    states: States,
    horizon: int,
    known_future: Float[np.ndarray, "series horizon known"] | None,
    quantiles: tuple[float, ...],
) -> None:
    if not 1 <= horizon <= bundle.horizon:
        raise UnseenHorizon(
            f"a horizon of {horizon} steps was asked; the model learned 1 to {bundle.horizon}",
            help=f"ask for at most {bundle.horizon}, or train with a longer horizon",
        )
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

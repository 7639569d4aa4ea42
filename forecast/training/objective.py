"""Losses of a network over given origins: what training, validation and calibration share."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from forecast.config import Config, Kind, TrainConfig
from forecast.data.panel import Panel
from forecast.models.ensemble import Ensemble
from forecast.models.network import Network
from forecast.models.point_head import Future
from forecast.training.dataset import Origins, TrainingSet
from forecast.training.lanes import Chunk, iter_chunks
from forecast.training.losses import masked_mean, point_loss, poisson_deviance, qlike

MAX_LANES, MAX_STEPS = 512, 64
"""Size of a batch that is only evaluated."""


@dataclass(frozen=True, slots=True)
class LossScale:
    """What a loss of 1 means: the seasonal naive, scored on the training part."""

    kind: Kind
    relative: float | None
    """Its sMAPE (0 to 200); None when values may be negative."""
    scaled: float
    """Its MASE."""
    size: float
    """Mean of |y| over all series."""
    one: float
    """What counts as one: 1, or the usual size of amounts that are no whole numbers."""
    scale: Float[np.ndarray, " series"]
    """Mean absolute seasonal difference of each series in the training part."""
    earliest: Int[Tensor, " series"]
    """First step of each series from which it is asked to forecast."""

    @classmethod
    def measure(cls, panel: Panel, config: Config, *, window: int) -> "LossScale":
        """Score the seasonal naive on the last horizon of what training may see."""
        horizon, val_size = config.model.horizon, config.train.val_size
        assert horizon is not None
        assert val_size is not None
        seasons = config.data.season_lengths or ()
        season = seasons[0] if seasons and seasons[0] <= 24 else 1
        until = np.maximum(panel.lengths - val_size, 0)
        part = panel.head(until)
        kind = config.data.kind
        y, ptr = part.values, part.indptr
        step = np.arange(len(y)) - np.repeat(ptr[:-1], part.lengths)
        row = np.repeat(np.arange(part.num_series), part.lengths)

        lag = np.maximum(np.arange(len(y)) - season, 0)
        both = (step >= season) & part.observed & part.observed[lag]
        size = _row_mean(np.abs(y), part.observed, row, part.num_series)
        scale = _row_mean(np.abs(y - y[lag]), both, row, part.num_series)
        scale = np.maximum(scale, 0.01 * size + 1e-9)

        ahead = step - (np.repeat(part.lengths, part.lengths) - horizon)
        source = np.maximum(np.arange(len(y)) - season * (ahead // season + 1), 0)
        known = (ahead >= 0) & (step >= season * (ahead // season + 1))
        known &= part.observed & part.observed[source]
        total = float(np.abs(y[part.observed]).mean()) if part.observed.any() else 1.0
        amounts = np.abs(y[part.observed & (y != 0)])
        whole = not (amounts % 1).any()
        one = 1.0 if whole else float(np.median(amounts))
        if not known.any():
            return cls(
                kind,
                100.0 if kind == "positive" else None,
                1.0,
                max(total, 1e-9),
                one,
                scale,
                torch.zeros(part.num_series, dtype=torch.int64),
            )
        error = np.abs(y - y[source])[known]
        scaled = float(np.minimum(error / scale[row[known]], 50).mean())
        relative = float((200 * error / (np.abs(y) + np.abs(y[source]) + 1e-9)[known]).mean())
        earliest = np.minimum(np.minimum(window, 4), np.maximum(until - 2, 0))
        return cls(
            kind,
            max(relative, 0.1) if kind == "positive" else None,
            max(scaled, 0.01),
            max(total, 1e-9),
            one,
            scale,
            torch.from_numpy(earliest),
        )


def _row_mean(
    values: np.ndarray, keep: np.ndarray, row: np.ndarray, num_rows: int
) -> Float[np.ndarray, " series"]:
    total = np.bincount(row[keep], values[keep], minlength=num_rows)
    return total / np.maximum(np.bincount(row[keep], minlength=num_rows), 1)


def to_y(
    relative: Float[Tensor, "origin horizon"], origins: Origins, examples: TrainingSet
) -> Float[Tensor, "origin horizon"]:
    """Relative forecasts in the unit of `y`."""
    y_hat = origins.centre + origins.unit * relative
    return y_hat.exp() if examples.spec.filters.space == "log" else y_hat


def origin_point_loss(
    relative: Float[Tensor, "origin horizon"],
    origins: Origins,
    yardstick: LossScale,
    examples: TrainingSet,
) -> Float[Tensor, "origin horizon"]:
    """The point loss of relative forecasts, taken on the scale of `y`: each kind has its own."""
    y_hat = to_y(relative, origins, examples)
    if yardstick.kind == "count":
        return poisson_deviance(origins.y, y_hat.clamp(min=1e-9)) / yardstick.size
    if yardstick.kind == "volatility":
        loss = qlike(origins.y, y_hat, origins.known)
        weight = 1 / torch.arange(1, loss.shape[1] + 1)  # each doubling of h counts the same
        return loss * weight / weight.mean()
    scale = examples.scale[origins.series, None]
    return point_loss(origins.y, y_hat, scale, relative=yardstick.relative, scaled=yardstick.scaled)


def look_ahead(
    network: Network | Ensemble, examples: TrainingSet, chunk: Chunk, origins: Origins
) -> Future:
    """What the heads see of the steps ahead of each origin; each step is read once."""
    horizon = examples.horizon
    if not examples.dates.shape[1]:
        none = origins.distance.new_zeros((len(origins.lane), horizon, 0))
        return Future(none, none)
    rows = examples.ahead(chunk, int(chunk.length.max()))
    if rows.numel() > len(examples.dates):
        seen = functional.embedding(rows, network.embed_future(examples.dates))
    else:
        seen = network.embed_future(examples.dates[rows])
    return Future(seen, network.scale(origins.distance), (origins.lane, origins.step))


def evaluate(
    network: Network | Ensemble,
    examples: TrainingSet,
    *,
    first: Int[Tensor, " series"],
    until: Int[Tensor, " series"],
) -> Iterator[tuple[Origins, Tensor, Tensor]]:
    """
    Run every series once from the zero state and yield what was forecast at its late origins.

    Args:
        network: Put into evaluation mode; its weights stay as they are.
        examples: All series.
        first: First origin of each series that counts.
        until: Targets at or past this step of their series are not looked at.

    Yields:
        Origins, their memory and their relative point forecasts, chunk by chunk.
    """
    network.eval()
    state = None
    lengths = torch.minimum(examples.lengths, until).numpy()
    first = first.clamp(min=0)
    for chunk in iter_chunks(lengths, num_lanes=MAX_LANES, chunk_length=MAX_STEPS):
        state = state or network.initial_state(len(chunk.series))
        steps = int(chunk.length.max())
        with torch.no_grad():
            memory, state = network.encode(
                examples.inputs(chunk, steps),
                examples.take(chunk),
                state.drop(torch.from_numpy(chunk.fresh)),
            )
            origins = examples.origins(chunk, torch.arange(steps), until, first)
            seen = memory[origins.lane, origins.step]
            future = look_ahead(network, examples, chunk, origins)
            relative = network.point(seen, origins.skips, future)
        if len(origins.lane):
            yield origins, seen, relative


def mean_point_loss(
    network: Network,
    examples: TrainingSet,
    yardstick: LossScale,
    *,
    first: Int[Tensor, " series"],
    until: Int[Tensor, " series"],
) -> float:
    """Mean point loss over the late origins: the validation loss."""
    total = count = 0.0
    for origins, _, relative in evaluate(network, examples, first=first, until=until):
        loss = origin_point_loss(relative, origins, yardstick, examples)
        number = float(origins.known.sum())
        total += float(masked_mean(loss, origins.known)) * number
        count += number
    return total / max(count, 1.0)


@dataclass(frozen=True, slots=True)
class TrainingTask:
    """The examples of a run and how its losses are taken."""

    examples: TrainingSet
    config: Config
    yardstick: LossScale

    @property
    def train(self) -> TrainConfig:
        return self.config.train

    @property
    def upper(self) -> tuple[float, ...]:
        """The quantiles above the median."""
        return tuple(q for q in self.config.model.quantiles if q > 0.5)

    def some(self, most: int) -> Int[Tensor, " series"]:
        """The lengths of some series, drawn by the seed; 0 for the others, which are not read."""
        lengths = self.examples.lengths
        rows = np.random.default_rng(self.train.seed).permutation(len(lengths))[:most]
        until = torch.zeros_like(lengths)
        until[rows] = lengths[rows]
        return until

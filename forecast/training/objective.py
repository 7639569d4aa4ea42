"""Point loss of a network at given origins, shared by training, validation and calibration."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from forecast.config import Kind
from forecast.data.panel import Panel
from forecast.models.contract import ForecastNetwork
from forecast.models.network import Network
from forecast.models.point_head import Future
from forecast.resolved_config import ResolvedConfig, ResolvedTrainConfig
from forecast.training.dataset import Origins, TrainingSet
from forecast.training.lanes import Chunk, iter_chunks
from forecast.training.losses import masked_mean, point_loss, poisson_deviance, qlike

MAX_LANES, MAX_STEPS = 512, 64
"""Largest batch for evaluation without gradients."""


@dataclass(frozen=True, slots=True)
class LossScale:
    """The scale on which a loss of 1 is that of the seasonal naive on the training part."""

    kind: Kind
    relative: float | None
    """sMAPE (0 to 200) of the seasonal naive; None for kinds that do not use it."""
    scaled: float
    """MASE of the seasonal naive."""
    size: float
    """Mean of |y| over all series."""
    one: float
    """Unit of a count: 1, or the median amount if the amounts are not whole numbers."""
    scale: Float[np.ndarray, " series"]
    """Mean absolute seasonal difference of each series in the training part."""
    earliest: Int[Tensor, " series"]
    """First step of each series at which a forecast is learned."""

    @classmethod
    def measure(cls, panel: Panel, config: ResolvedConfig, *, window: int) -> "LossScale":
        """
        Score the seasonal naive on the last horizon of the training part.

        Args:
            panel: All series. The last `val_size` steps of each are not part of training.
            config: Settings of the run.
            window: Steps that the running level averages over.
        """
        horizon, val_size = config.model.horizon, config.train.val_size
        seasons = config.data.season_lengths
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
        all_whole = not (amounts % 1).any()
        one = 1.0 if all_whole else float(np.median(amounts))
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
    values: np.ndarray, mask: np.ndarray, row: np.ndarray, num_rows: int
) -> Float[np.ndarray, " series"]:
    """Return the mean of the masked values of each row, or 0 where there is none."""
    total = np.bincount(row[mask], values[mask], minlength=num_rows)
    return total / np.maximum(np.bincount(row[mask], minlength=num_rows), 1)


def to_y(
    relative: Float[Tensor, "origin horizon"], origins: Origins, training_set: TrainingSet
) -> Float[Tensor, "origin horizon"]:
    """Convert relative forecasts to the unit of `y`."""
    y_hat = origins.centre + origins.unit * relative
    return y_hat.exp() if training_set.spec.filters.space == "log" else y_hat


def origin_point_loss(
    relative: Float[Tensor, "origin horizon"],
    origins: Origins,
    loss_scale: LossScale,
    training_set: TrainingSet,
) -> Float[Tensor, "origin horizon"]:
    """Return the point loss of relative forecasts, on the scale of `y`, as the kind asks for it."""
    y_hat = to_y(relative, origins, training_set)
    if loss_scale.kind == "count":
        return poisson_deviance(origins.y, y_hat.clamp(min=1e-9)) / loss_scale.size
    if loss_scale.kind == "volatility":
        loss = qlike(origins.y, y_hat, origins.known)
        weight = 1 / torch.arange(1, loss.shape[1] + 1)  # each doubling of h has the same weight
        return loss * weight / weight.mean()
    scale = training_set.scale[origins.series, None]
    return point_loss(
        origins.y, y_hat, scale, relative=loss_scale.relative, scaled=loss_scale.scaled
    )


def look_ahead(
    network: ForecastNetwork, training_set: TrainingSet, chunk: Chunk, origins: Origins
) -> Future:
    """Return what the heads may know of the steps ahead of each origin; each step is read once."""
    horizon = training_set.horizon
    if not training_set.dates.shape[1]:
        empty = origins.distance.new_zeros((len(origins.lane), horizon, 0))
        return Future(empty, empty)
    rows = training_set.ahead(chunk, int(chunk.length.max()))
    if rows.numel() > len(training_set.dates):
        embedded = functional.embedding(rows, network.embed_future(training_set.dates))
    else:
        embedded = network.embed_future(training_set.dates[rows])
    return Future(embedded, network.scale(origins.distance), (origins.lane, origins.step))


def evaluate(
    network: ForecastNetwork,
    training_set: TrainingSet,
    *,
    first: Int[Tensor, " series"],
    until: Int[Tensor, " series"],
) -> Iterator[tuple[Origins, Tensor, Tensor]]:
    """
    Run every series once from the zero state and yield the forecasts at its last origins.

    Args:
        network: The network, which is put into evaluation mode.
        training_set: All series.
        first: First origin of each series that is evaluated.
        until: Targets at or past this step of their series are not used. A series with 0 is left
            out.

    Yields:
        Origins, the network's memory at them, and relative point forecasts, chunk by chunk.
    """
    network.eval()
    state = None
    lengths = torch.minimum(training_set.lengths, until).numpy()
    first = first.clamp(min=0)
    for chunk in iter_chunks(lengths, num_lanes=MAX_LANES, chunk_length=MAX_STEPS):
        state = state or network.initial_state(len(chunk.series))
        steps = int(chunk.length.max())
        with torch.no_grad():
            memory, state = network.encode(
                training_set.inputs(chunk, steps),
                training_set.static_of(chunk),
                state.drop(torch.from_numpy(chunk.fresh)),
            )
            origins = training_set.origins(chunk, torch.arange(steps), until, first)
            memory = memory[origins.lane, origins.step]
            future = look_ahead(network, training_set, chunk, origins)
            relative = network.point(memory, origins.skips, future)
        if len(origins.lane):
            yield origins, memory, relative


def mean_point_loss(
    network: Network,
    training_set: TrainingSet,
    loss_scale: LossScale,
    *,
    first: Int[Tensor, " series"],
    until: Int[Tensor, " series"],
) -> float:
    """Return the mean point loss over the origins of `evaluate`: the validation loss."""
    total = count = 0.0
    for origins, _, relative in evaluate(network, training_set, first=first, until=until):
        loss = origin_point_loss(relative, origins, loss_scale, training_set)
        num_known = float(origins.known.sum())
        total += float(masked_mean(loss, origins.known)) * num_known
        count += num_known
    return total / max(count, 1.0)


@dataclass(frozen=True, slots=True)
class TrainingTask:
    """What one network is trained on: data, settings and the scale of its losses."""

    training_set: TrainingSet
    config: ResolvedConfig
    loss_scale: LossScale

    @property
    def train(self) -> ResolvedTrainConfig:
        return self.config.train

    @property
    def upper(self) -> tuple[float, ...]:
        """The quantiles above the median."""
        return tuple(q for q in self.config.model.quantiles if q > 0.5)

    def sample_lengths(self, max_series: int) -> Int[Tensor, " series"]:
        """
        Return the lengths of at most `max_series` series, and 0 for all others.

        The seed draws the series. As `until` of `evaluate`, the result leaves the others out.
        """
        lengths = self.training_set.lengths
        rows = np.random.default_rng(self.train.seed).permutation(len(lengths))[:max_series]
        sampled = torch.zeros_like(lengths)
        sampled[rows] = lengths[rows]
        return sampled

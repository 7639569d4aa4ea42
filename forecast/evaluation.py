"""Losses of a network over given origins: what training, validation and calibration share."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from forecast.config import Config
from forecast.examples import Examples, Origins
from forecast.lanes import iter_chunks
from forecast.losses import masked_mean, point_loss
from forecast.models.network import Network
from forecast.panel import Panel

MAX_LANES, MAX_STEPS = 512, 64
"""Size of a batch that is only evaluated."""


@dataclass(frozen=True, slots=True)
class Yardstick:
    """What a loss of 1 means: the seasonal naive, scored on the training part."""

    relative: float | None
    """Its sMAPE (0 to 200); None when values may be negative."""
    scaled: float
    """Its MASE."""
    scale: Float[np.ndarray, " series"]
    """Mean absolute seasonal difference of each series in the training part."""
    earliest: Int[Tensor, " series"]
    """First step of each series from which it is asked to forecast."""

    @classmethod
    def measure(cls, panel: Panel, config: Config, *, window: int) -> "Yardstick":
        """Score the seasonal naive on the last horizon of what training may see."""
        horizon = config.model.horizon
        assert horizon is not None
        seasons = config.data.season_lengths or ()
        season = seasons[0] if seasons and seasons[0] <= 24 else 1
        until = np.maximum(panel.lengths - config.train.val_size, 0)
        part = panel.head(until)
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
        if not known.any():
            return cls(100.0 if config.data.kind == "positive" else None, 1.0, scale,
                       torch.zeros(part.num_series, dtype=torch.int64))  # fmt: skip
        error = np.abs(y - y[source])[known]
        scaled = float(np.minimum(error / scale[row[known]], 50).mean())
        relative = float((200 * error / (np.abs(y) + np.abs(y[source]) + 1e-9)[known]).mean())
        positive = config.data.kind == "positive"
        earliest = np.minimum(np.minimum(window, 4), np.maximum(until - 2, 0))
        return cls(
            max(relative, 0.1) if positive else None, max(scaled, 0.01), scale,
            torch.from_numpy(earliest),
        )  # fmt: skip


def _row_mean(
    values: np.ndarray, keep: np.ndarray, row: np.ndarray, num_rows: int
) -> Float[np.ndarray, " series"]:
    total = np.bincount(row[keep], values[keep], minlength=num_rows)
    return total / np.maximum(np.bincount(row[keep], minlength=num_rows), 1)


def origin_point_loss(
    relative: Float[Tensor, "origin horizon"],
    origins: Origins,
    yardstick: Yardstick,
    examples: Examples,
) -> Float[Tensor, "origin horizon"]:
    """The point loss of relative forecasts, taken on the scale of `y`."""
    y_hat = origins.level + origins.unit * relative
    if examples.spec.filters.log:
        y_hat = y_hat.exp()
    scale = examples.scale[origins.series, None]
    return point_loss(origins.y, y_hat, scale, relative=yardstick.relative, scaled=yardstick.scaled)


def evaluate(
    network: Network,
    examples: Examples,
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
        state = state or network.stack.initial_state(len(chunk.series))
        steps = int(chunk.length.max())
        with torch.no_grad():
            memory, state = network.remember(
                examples.inputs(chunk, steps), state.drop(torch.from_numpy(chunk.fresh))
            )
            origins = examples.origins(chunk, torch.arange(steps), until, first)
            seen = memory[origins.lane, origins.step]
            relative = network.point(seen, origins.skips, network.scale_future(origins.future))
        if len(origins.lane):
            yield origins, seen, relative


def mean_point_loss(
    network: Network,
    examples: Examples,
    yardstick: Yardstick,
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


@torch.no_grad()
def best_skip(examples: Examples, yardstick: Yardstick, until: Int[Tensor, " series"]) -> int:
    """Which simple forecast does best on the training part: where the mix starts from."""
    lengths = until.numpy()
    rng = np.random.default_rng(0)
    rows = np.sort(rng.choice(len(lengths), min(len(lengths), 256), replace=False))
    subset = np.zeros_like(lengths)
    subset[rows] = lengths[rows]
    total: Tensor | float = 0.0
    for chunk in iter_chunks(subset, num_lanes=len(rows), chunk_length=MAX_STEPS):
        steps = torch.arange(0, int(chunk.length.max()), 8)
        origins = examples.origins(chunk, steps, until, yardstick.earliest)
        loss = torch.stack(
            [
                torch.where(
                    origins.known,
                    origin_point_loss(skip, origins, yardstick, examples),
                    0.0,
                ).sum()
                for skip in origins.skips.clamp(-100, 100).unbind(1)
            ]
        )
        total = total + loss
    return int(torch.as_tensor(total).argmin()) if isinstance(total, Tensor) else 0

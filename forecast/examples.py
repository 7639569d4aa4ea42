"""From chunks to tensors: what one optimiser step sees, gathered from flat arrays."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from forecast.encoding import InputSpec
from forecast.filters import FilterState, season_offsets
from forecast.lanes import Chunk
from forecast.models.heads import skip_forecasts
from forecast.panel import Panel


@dataclass(frozen=True, slots=True)
class Origins:
    """Origins with something to learn from, and everything the heads and losses need of them."""

    lane: Int[Tensor, " origin"]
    step: Int[Tensor, " origin"]
    series: Int[Tensor, " origin"]
    level: Float[Tensor, "origin one"]
    unit: Float[Tensor, "origin one"]
    skips: Float[Tensor, "origin skip horizon"]
    future: Float[Tensor, "origin horizon future"]
    y: Float[Tensor, "origin horizon"]
    relative: Float[Tensor, "origin horizon"]
    """The target's distance from the level at the origin, in units."""
    known: Bool[Tensor, "origin horizon"]


@dataclass(frozen=True, slots=True)
class Examples:
    """A whole training panel as flat tensors, series end to end; chunks point into it."""

    spec: InputSpec
    horizon: int
    begins: Int[Tensor, " series"]
    lengths: Int[Tensor, " series"]
    features: Float[Tensor, "time feature"]
    columns: Float[Tensor, "time column"]
    y: Float[Tensor, " time"]
    observed: Bool[Tensor, " time"]
    means: Float[Tensor, "time known"]
    known_future: Float[Tensor, "time known"]
    calendar: Float[Tensor, "time calendar"]
    scale: Float[Tensor, " series"]
    """Mean absolute seasonal difference of each series in the training part."""

    @classmethod
    def build(
        cls, spec: InputSpec, panel: Panel, static: np.ndarray, *, horizon: int,
        scale: np.ndarray,
    ) -> "Examples":  # fmt: skip
        """Run the filters once over everything; later steps only gather."""
        _, seen = spec.read(FilterState.initial(spec.filters, panel.num_series), panel, static)
        first = spec.filters.num_features - 2 * spec.filters.num_covariates
        apart = seen.features[:, first : first + spec.filters.num_known]
        tensor = torch.from_numpy
        return cls(
            spec, horizon,
            begins=tensor(panel.indptr[:-1].copy()),
            lengths=tensor(panel.lengths),
            features=tensor(seen.features),
            columns=tensor(seen.columns),
            y=tensor(panel.values.astype(np.float32)),
            observed=tensor(panel.observed),
            means=tensor(panel.known_future - apart),
            known_future=tensor(panel.known_future),
            calendar=tensor(spec.calendar_features(panel.ds)),
            scale=tensor(scale.astype(np.float32)),
        )  # fmt: skip

    def inputs(self, chunk: Chunk, steps: int) -> Float[Tensor, "lane step feature"]:
        """Features of the chunk; its padding repeats the last real step."""
        begin = self.begins[torch.from_numpy(chunk.series)] + torch.from_numpy(chunk.start)
        last = torch.from_numpy(chunk.length).clamp(min=1) - 1
        return self.features[begin[:, None] + torch.minimum(torch.arange(steps), last[:, None])]

    def origins(
        self,
        chunk: Chunk,
        steps: Int[Tensor, " step"],
        known_until: Int[Tensor, " series"],
        earliest: Int[Tensor, " series"],
    ) -> Origins:
        """
        The origins at these steps of the chunk that have a target to learn from.

        Args:
            chunk: Where each lane is.
            steps: Steps inside the chunk at which to forecast.
            known_until: Targets at or past this step of their series are not looked at.
            earliest: Origins before this step of their series are left out.
        """
        series, start = torch.from_numpy(chunk.series), torch.from_numpy(chunk.start)
        at = start[:, None] + steps
        real = (steps < torch.from_numpy(chunk.length)[:, None]) & (at >= earliest[series, None])
        real &= at + 1 < known_until[series, None]
        lane, column = real.nonzero(as_tuple=True)
        series, at = series[lane], at[lane, column]
        flat = self.begins[series] + at
        ahead = torch.arange(1, self.horizon + 1)
        known = at[:, None] + ahead < known_until[series, None]
        target = torch.where(known, flat[:, None] + ahead, flat[:, None])
        columns = self.columns[flat]
        level, unit = columns[:, 1:2], columns[:, 2:3]
        future = torch.cat(
            [
                self.known_future[target] - self.means[flat][:, None],
                self.known_future[target],
                self.calendar[target],
            ],
            dim=-1,
        )
        return Origins(
            lane, steps[column], series, level, unit,
            skips=skip_forecasts(columns, self._seasons(flat, at), self.horizon),
            future=future,
            y=self.y[target],
            relative=(self.columns[target, 0] - level) / unit,
            known=known & self.observed[target],
        )  # fmt: skip

    def _seasons(
        self, flat: Int[Tensor, " origin"], at: Int[Tensor, " origin"]
    ) -> Float[Tensor, "origin season two horizon"]:
        seasons = self.spec.filters.seasons
        out = self.columns.new_empty((len(flat), len(seasons), 2, self.horizon))
        first = self.columns.shape[1] - len(seasons)
        for i, season in enumerate(seasons):
            back = torch.from_numpy(season_offsets(season, self.horizon))
            there = at[:, None] + back >= 0
            source = torch.where(there, flat[:, None] + back, flat[:, None])
            for j, column in enumerate((0, first + i)):
                values = self.columns[:, column][source]
                out[:, i, j] = torch.where(there, values, torch.nan)
        return out

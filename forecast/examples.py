"""From chunks to tensors: what one optimiser step sees, gathered from flat arrays."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from forecast.encoding import InputSpec
from forecast.filters import CENTRE, SLOW, UNIT, VALUE, FilterState, steps_since
from forecast.lanes import Chunk
from forecast.models.heads import skip_forecasts
from forecast.panel import Panel
from forecast.readout import season_offsets


@dataclass(frozen=True, slots=True)
class Origins:
    """Origins with something to learn from, and everything the heads and losses need of them."""

    lane: Int[Tensor, " origin"]
    step: Int[Tensor, " origin"]
    series: Int[Tensor, " origin"]
    at: Int[Tensor, " origin"]
    """Step of the series."""
    centre: Float[Tensor, "origin one"]
    unit: Float[Tensor, "origin one"]
    skips: Float[Tensor, "origin skip horizon"]
    distance: Float[Tensor, "origin horizon amount"]
    """Of each known-future amount of the target from its running mean at the origin."""
    y: Float[Tensor, "origin horizon"]
    relative: Float[Tensor, "origin horizon"]
    """The target's distance from the centre at the origin, in units."""
    known: Bool[Tensor, "origin horizon"]


@dataclass(frozen=True, slots=True)
class Examples:
    """A whole training panel as flat tensors, series end to end; chunks point into it."""

    spec: InputSpec
    horizon: int
    begins: Int[Tensor, " series"]
    lengths: Int[Tensor, " series"]
    first: Int[Tensor, " series"]
    """The step with which each series begins, where those before say nothing of it."""
    features: Float[Tensor, "time feature"]
    columns: Float[Tensor, "time column"]
    static: Float[Tensor, "series static"]
    y: Float[Tensor, " time"]
    observed: Bool[Tensor, " time"]
    means: Float[Tensor, "time amount"]
    """Running mean of each known-future amount."""
    dates: Float[Tensor, "row date"]
    """What is known of steps beforehand; the known-future covariates first."""
    date: Int[Tensor, " time"]
    """The row of `dates` that is each step's."""
    scale: Float[Tensor, " series"]
    """Mean absolute seasonal difference of each series in the training part."""

    @classmethod
    def build(
        cls, spec: InputSpec, panel: Panel, static: np.ndarray, *, horizon: int,
        scale: np.ndarray,
    ) -> "Examples":  # fmt: skip
        """Run the filters once over everything; later steps only gather."""
        state, seen = spec.read(FilterState.initial(spec.filters, panel.num_series), panel)
        filters = spec.filters
        dates, date = _dates(spec, panel)
        first = filters.num_features - len(filters.raw) - len(filters.amounts)
        amounts = list(filters.known_amounts)
        apart = seen.features[:, first : first + len(amounts)]
        tensor = torch.from_numpy
        return cls(
            spec, horizon,
            begins=tensor(panel.indptr[:-1].copy()),
            lengths=tensor(panel.lengths),
            first=tensor(state.count - steps_since(filters, state.count, state.scalars)),
            features=tensor(seen.features),
            columns=tensor(seen.columns),
            static=tensor(static),
            y=tensor(panel.values.astype(np.float32)),
            observed=tensor(panel.observed),
            means=tensor(dates[date][:, amounts] - apart),
            dates=tensor(dates),
            date=tensor(date),
            scale=tensor(scale.astype(np.float32)),
        )  # fmt: skip

    def take(self, chunk: Chunk) -> Float[Tensor, "lane static"]:
        """Static covariates of the series that each lane is in."""
        return self.static[torch.from_numpy(chunk.series)]

    def inputs(self, chunk: Chunk, steps: int) -> Float[Tensor, "lane step feature"]:
        """Features of the chunk; its padding repeats the last real step."""
        begin = self.begins[torch.from_numpy(chunk.series)] + torch.from_numpy(chunk.start)
        last = torch.from_numpy(chunk.length).clamp(min=1) - 1
        return self.features[begin[:, None] + torch.minimum(torch.arange(steps), last[:, None])]

    def ahead(self, chunk: Chunk, steps: int) -> Int[Tensor, "lane step"]:
        """Rows of `dates` of the chunk's steps and of a horizon more; the last real one repeats."""
        series = torch.from_numpy(chunk.series)
        at = torch.from_numpy(chunk.start)[:, None] + torch.arange(steps + self.horizon)
        at = at.minimum(self.lengths[series, None] - 1)
        return _pick(self.date, self.begins[series, None] + at)

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
        real &= at >= self.first[series, None]
        real &= at + 1 < known_until[series, None]
        lane, column = real.nonzero(as_tuple=True)
        series, at = series[lane], at[lane, column]
        flat = self.begins[series] + at
        ahead = torch.arange(1, self.horizon + 1)
        known = at[:, None] + ahead < known_until[series, None]
        target = torch.where(known, flat[:, None] + ahead, flat[:, None])
        columns = self.columns[flat]
        centre, unit = columns[:, CENTRE, None], columns[:, UNIT, None]
        amounts = torch.tensor(self.spec.filters.known_amounts, dtype=torch.int64)
        return Origins(
            lane, steps[column], series, at, centre, unit,
            skips=skip_forecasts(
                self.spec.filters, columns, self._seasons(flat, at, series), self.horizon
            ),
            distance=self.dates[self.date[target][..., None], amounts] - self.means[flat][:, None],
            y=_pick(self.y, target),
            relative=(_pick(self.columns[:, VALUE], target) - centre) / unit,
            known=known & _pick(self.observed, target),
        )  # fmt: skip

    def usual_counts(self, origins: Origins) -> Float[Tensor, "origin horizon"]:
        """
        What counts usually come to: their running mean, by the season where less than one is asked.

        The longest season is taken that a series of mean length has seen three times. Its profile
        is read over the profile's own running mean, so that an origin in the evening does not have
        the mean of the day for that of the night.
        """
        filters = self.spec.filters
        mean = origins.unit * origins.skips[:, 2 + SLOW]
        seen = [s for s in filters.seasons if 3 * s * len(self.lengths) <= len(self.y)]
        if not seen or seen[-1] <= self.horizon:
            return mean
        i, gain = len(seen) - 1, filters.trends[SLOW][0]
        ahead = origins.skips[:, filters.first_seasonal + 2 * i + 1]
        back = torch.arange(min(seen[-1], round(5 / gain)))
        at = (origins.at[:, None] - back).clamp(min=0) + self.begins[origins.series, None]
        weight = (1 - gain) ** back
        profile = self.columns[at, filters.num_columns - len(filters.seasons) + i]
        behind = profile @ (weight / weight.sum())[:, None] / origins.unit
        return mean * torch.where(behind > 0, ahead / behind, 1.0)

    def _seasons(
        self,
        flat: Int[Tensor, " origin"],
        at: Int[Tensor, " origin"],
        series: Int[Tensor, " origin"],
    ) -> Float[Tensor, "origin season two horizon"]:
        seasons = self.spec.filters.seasons
        out = self.columns.new_empty((len(flat), len(seasons), 2, self.horizon))
        first = self.columns.shape[1] - len(seasons)
        for i, season in enumerate(seasons):
            back = torch.from_numpy(season_offsets(season, self.horizon))
            there = at[:, None] + back >= self.first[series, None]
            source = torch.where(there, flat[:, None] + back, flat[:, None])
            for j, column in enumerate((VALUE, first + i)):
                values = _pick(self.columns[:, column], source)
                out[:, i, j] = torch.where(there, values, torch.nan)
        return out


def _dates(
    spec: InputSpec, panel: Panel
) -> tuple[Float[np.ndarray, "row date"], Int[np.ndarray, " time"]]:
    """What is known of the steps beforehand, and which row of it is whose; a calendar repeats."""
    if panel.known_future.shape[1]:
        return spec.dates(panel.known_future, panel.ds), np.arange(len(panel.ds))
    stamps, stamp = np.unique(panel.ds, return_inverse=True)
    none = np.zeros((len(stamps), 0), np.float32)
    rows, row = np.unique(spec.dates(none, stamps), axis=0, return_inverse=True)
    return rows, row[stamp]


def _pick(values: Shaped[Tensor, " time"], at: Int[Tensor, "*size"]) -> Shaped[Tensor, "*size"]:
    """As `values[at]`, in a third of the time."""
    return values.index_select(0, at.flatten()).view(at.shape)

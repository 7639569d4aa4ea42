"""From chunks to tensors: what one optimiser step sees, gathered from flat arrays."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor
from torch.nn import functional

from forecast.data.panel import Panel
from forecast.features.filter_spec import CENTRE, SLOW, UNIT, VALUE
from forecast.features.filters import FilterState, steps_since
from forecast.features.inputs import InputSpec
from forecast.models.skip import skip_forecasts
from forecast.training.lanes import Chunk


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
class PaddedSeries:
    """
    One value a step, of which stretches are read whole: ten times as fast as step by step.

    >>> Stretches.over(torch.arange(5), margin=2).read(torch.tensor([-1, 3]), 3).tolist()
    [[0, 0, 1], [3, 4, 0]]
    """

    padded: Shaped[Tensor, " place"]
    margin: int
    """Zeros at either end, which a stretch may reach into."""

    @classmethod
    def over(cls, values: Shaped[Tensor, " time"], margin: int) -> "PaddedSeries":
        """Of the values, which are copied."""
        return cls(functional.pad(values, (margin, margin)), margin)

    def read(self, begin: Int[Tensor, " origin"], steps: int) -> Shaped[Tensor, "origin step"]:
        """The values of so many steps from each of these on."""
        rows = self.padded.as_strided((len(self.padded) - steps + 1, steps), (1, 1))
        return rows.index_select(0, begin + self.margin)

    def pick(self, at: Int[Tensor, "*size"]) -> Shaped[Tensor, "*size"]:
        """The values of single steps."""
        return self.padded.index_select(0, at.flatten() + self.margin).view(at.shape)


@dataclass(frozen=True, slots=True)
class TrainingSet:
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
    y: PaddedSeries
    observed: PaddedSeries
    values: PaddedSeries
    """In model space."""
    profiles: tuple[PaddedSeries, ...]
    """Of each season, its running mean at the phase of the step."""
    means: Float[Tensor, "time amount"]
    """Running mean of each known-future amount."""
    dates: Float[Tensor, "row date"]
    """What is known of steps beforehand; the known-future covariates first."""
    amounts: Float[Tensor, "row amount"]
    """Of them, those that are measured from their running mean."""
    date: PaddedSeries
    """The row of `dates` that is each step's."""
    scale: Float[Tensor, " series"]
    """Mean absolute seasonal difference of each series in the training part."""

    @classmethod
    def build(
        cls,
        spec: InputSpec,
        panel: Panel,
        static: np.ndarray,
        *,
        horizon: int,
        scale: np.ndarray,
    ) -> "TrainingSet":
        """Run the filters once over everything; later steps only gather."""
        state, seen = spec.read(FilterState.initial(spec.filters, panel.num_series), panel)
        filters = spec.filters
        dates, date = _dates(spec, panel)
        first = filters.num_features - len(filters.raw) - len(filters.amounts)
        amounts = list(filters.known_amounts)
        apart = seen.features[:, first : first + len(amounts)]
        tensor, columns = torch.from_numpy, torch.from_numpy(seen.columns)
        margin = max(horizon, *filters.seasons, 0)
        return cls(
            spec,
            horizon,
            begins=tensor(panel.indptr[:-1].copy()),
            lengths=tensor(panel.lengths),
            first=tensor(state.count - steps_since(filters, state.count, state.scalars)),
            features=tensor(seen.features),
            columns=columns,
            static=tensor(static),
            y=PaddedSeries.over(tensor(panel.values.astype(np.float32)), margin),
            observed=PaddedSeries.over(tensor(panel.observed), margin),
            values=PaddedSeries.over(columns[:, VALUE], margin),
            profiles=tuple(
                PaddedSeries.over(columns[:, i], margin)
                for i in range(filters.num_columns - len(filters.seasons), filters.num_columns)
            ),
            means=tensor(dates[:, amounts][date] - apart),
            dates=tensor(dates),
            amounts=tensor(dates[:, amounts]),
            date=PaddedSeries.over(tensor(date), margin),
            scale=tensor(scale.astype(np.float32)),
        )

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
        return self.date.pick(self.begins[series, None] + at)

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
        left = known_until[series] - at
        known = torch.arange(1, self.horizon + 1) < left[:, None]
        columns = self.columns[flat]
        centre, unit = columns[:, CENTRE, None], columns[:, UNIT, None]
        y, values = (part.read(flat + 1, self.horizon) for part in (self.y, self.values))
        relative = (values - centre) / unit
        if not bool(known.all()):  # of what comes after, nothing is looked at
            y, relative = (torch.where(known, part, 0.0) for part in (y, relative))
        return Origins(
            lane,
            steps[column],
            series,
            at,
            centre,
            unit,
            skips=skip_forecasts(
                self.spec.filters, columns, self._seasons(flat, at, series), self.horizon
            ),
            distance=self._distance(flat),
            y=y,
            relative=relative,
            known=known & self.observed.read(flat + 1, self.horizon),
        )

    def usual_counts(self, origins: Origins) -> Float[Tensor, "origin horizon"]:
        """
        What counts usually come to: their running mean, by the season where less than one is asked.

        The longest season is taken that a series of mean length has seen three times. Its profile
        is read over the profile's own running mean, so that an origin in the evening does not have
        the mean of the day for that of the night.
        """
        filters = self.spec.filters
        mean = origins.unit * origins.skips[:, 2 + SLOW]
        seen = [s for s in filters.seasons if 3 * s * len(self.lengths) <= len(self.features)]
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
        """Value and profile at the target's phase of the last season; NaN where unknown."""
        seasons = self.spec.filters.seasons
        out = self.columns.new_empty((len(flat), len(seasons), 2, self.horizon))
        behind = at - self.first[series]
        for i, season in enumerate(seasons):
            steps = min(season, self.horizon)
            whole = bool((behind >= season - 1).all())
            there = torch.arange(season - 1, season - 1 - steps, -1) <= behind[:, None]
            for j, part in enumerate((self.values, self.profiles[i])):
                read = part.read(flat + 1 - season, steps)
                read = read if whole else torch.where(there, read, torch.nan)
                for begin in range(0, self.horizon, season):
                    out[:, i, j, begin : begin + season] = read[:, : self.horizon - begin]
        return out

    def _distance(self, flat: Int[Tensor, " origin"]) -> Float[Tensor, "origin horizon amount"]:
        """Of the known-future amounts ahead from their running means at the origins."""
        if not self.amounts.shape[1]:
            return self.amounts.new_zeros((len(flat), self.horizon, 0))
        rows = self.date.read(flat + 1, self.horizon)
        ahead = self.amounts.index_select(0, rows.flatten())
        return ahead.view(*rows.shape, self.amounts.shape[1]) - self.means[flat][:, None]


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

"""Training data as flat tensors, and the inputs and targets gathered from them for a chunk."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor
from torch.nn import functional

from forecast.data.panel import Panel
from forecast.features.filter_spec import SLOW, Column
from forecast.features.filter_state import FilterState, ScalarViews, steps_since_begin
from forecast.features.inputs import InputSpec
from forecast.models.skip import skip_forecasts
from forecast.training.lanes import Chunk


@dataclass(frozen=True, slots=True)
class Origins:
    """Origins that have targets, with everything that the heads and losses need at them."""

    lane: Int[Tensor, " origin"]
    step: Int[Tensor, " origin"]
    """Step within the chunk."""
    series: Int[Tensor, " origin"]
    position: Int[Tensor, " origin"]
    """Step within the series."""
    centre: Float[Tensor, "origin one"]
    """Centre of the relative values, in model space."""
    unit: Float[Tensor, "origin one"]
    """Unit of the relative values, in model space."""
    skips: Float[Tensor, "origin skip horizon"]
    distance: Float[Tensor, "origin horizon amount"]
    """Known-future amounts at the target steps, minus their running means at the origin."""
    y: Float[Tensor, "origin horizon"]
    """Targets; 0 past the end of the data that may be used."""
    relative: Float[Tensor, "origin horizon"]
    """Targets in model space, as distance from the centre in units."""
    known: Bool[Tensor, "origin horizon"]
    """True where the target is observed and may be used."""


@dataclass(frozen=True, slots=True)
class PaddedSeries:
    """
    One value per step, padded with zeros at both ends, from which runs of steps are read.

    Reading a run is ten times as fast as gathering its steps one by one.

    >>> PaddedSeries.pad(torch.arange(5), margin=2).read(torch.tensor([-1, 3]), 3).tolist()
    [[0, 0, 1], [3, 4, 0]]
    """

    padded: Shaped[Tensor, " padded"]
    margin: int
    """Number of zeros at each end: how far a run may reach beyond the values."""

    @classmethod
    def pad(cls, values: Shaped[Tensor, " time"], margin: int) -> "PaddedSeries":
        """Copy the values and pad them."""
        return cls(functional.pad(values, (margin, margin)), margin)

    def read(self, begin: Int[Tensor, " origin"], steps: int) -> Shaped[Tensor, "origin step"]:
        """Return the values of `steps` consecutive steps from each of `begin` on."""
        runs = self.padded.as_strided((len(self.padded) - steps + 1, steps), (1, 1))
        return runs.index_select(0, begin + self.margin)

    def pick(self, steps: Int[Tensor, "*size"]) -> Shaped[Tensor, "*size"]:
        """Return the values of single steps."""
        return self.padded.index_select(0, steps.flatten() + self.margin).view(steps.shape)


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """A training panel as flat tensors, one series after another; chunks index into them."""

    spec: InputSpec
    horizon: int
    begins: Int[Tensor, " series"]
    """Index of the first step of each series in the flat tensors."""
    lengths: Int[Tensor, " series"]
    """Steps of each series."""
    first: Int[Tensor, " series"]
    """First step of each series that tells something of it, such as the first amount above 0."""
    features: Float[Tensor, "time feature"]
    """Inputs of the network at each step."""
    columns: Float[Tensor, "time column"]
    """Filter columns at each step, from which the skip forecasts are computed."""
    static: Float[Tensor, "series static"]
    y: PaddedSeries
    observed: PaddedSeries
    values: PaddedSeries
    """Values in model space."""
    profiles: tuple[PaddedSeries, ...]
    """For each season, the running mean of the phase that each step is in."""
    means: Float[Tensor, "time amount"]
    """Running mean of each known-future amount at each step."""
    dates: Float[Tensor, "row date"]
    """Distinct rows of known-future covariates and calendar features, the covariates first."""
    amounts: Float[Tensor, "row amount"]
    """Columns of `dates` that enter as distance from their running mean."""
    date: PaddedSeries
    """Row of `dates` of each step."""
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
        """
        Run the filters over the whole panel once; training then only gathers their outputs.

        Args:
            spec: Inputs of the network.
            panel: All series.
            static: Encoded static covariates, one row per series.
            horizon: Steps ahead that are learned.
            scale: Mean absolute seasonal difference of each series.
        """
        state, outputs = spec.read(FilterState.initial(spec.filters, panel.num_series), panel)
        filters = spec.filters
        dates, date = _dates(spec, panel)
        first = filters.num_features - len(filters.raw) - len(filters.amounts)
        amounts = list(filters.known_amounts)
        distances = outputs.features[:, first : first + len(amounts)]
        gap = ScalarViews.of(filters, state.scalars).gap
        tensor, columns = torch.from_numpy, torch.from_numpy(outputs.columns)
        margin = max(horizon, *filters.seasons, 0)
        return cls(
            spec,
            horizon,
            begins=tensor(panel.indptr[:-1].copy()),
            lengths=tensor(panel.lengths),
            first=tensor(state.count - steps_since_begin(filters, state.count, gap)),
            features=tensor(outputs.features),
            columns=columns,
            static=tensor(static),
            y=PaddedSeries.pad(tensor(panel.values.astype(np.float32)), margin),
            observed=PaddedSeries.pad(tensor(panel.observed), margin),
            values=PaddedSeries.pad(columns[:, Column.VALUE], margin),
            profiles=tuple(
                PaddedSeries.pad(columns[:, i], margin)
                for i in range(filters.num_columns - len(filters.seasons), filters.num_columns)
            ),
            means=tensor(dates[:, amounts][date] - distances),
            dates=tensor(dates),
            amounts=tensor(dates[:, amounts]),
            date=PaddedSeries.pad(tensor(date), margin),
            scale=tensor(scale.astype(np.float32)),
        )

    def static_of(self, chunk: Chunk) -> Float[Tensor, "lane static"]:
        """Return the static covariates of the series that each lane is in."""
        return self.static[torch.from_numpy(chunk.series)]

    def inputs(self, chunk: Chunk, steps: int) -> Float[Tensor, "lane step feature"]:
        """Return the features of the chunk's first steps; padding repeats the last real step."""
        begin = self.begins[torch.from_numpy(chunk.series)] + torch.from_numpy(chunk.start)
        last = torch.from_numpy(chunk.length).clamp(min=1) - 1
        return self.features[begin[:, None] + torch.minimum(torch.arange(steps), last[:, None])]

    def ahead(self, chunk: Chunk, steps: int) -> Int[Tensor, "lane step"]:
        """
        Return the rows of `dates` of the chunk's steps and of one horizon beyond them.

        After the end of a series its last row repeats.
        """
        series = torch.from_numpy(chunk.series)
        position = torch.from_numpy(chunk.start)[:, None] + torch.arange(steps + self.horizon)
        position = position.minimum(self.lengths[series, None] - 1)
        return self.date.pick(self.begins[series, None] + position)

    def origins(
        self,
        chunk: Chunk,
        steps: Int[Tensor, " step"],
        known_until: Int[Tensor, " series"],
        earliest: Int[Tensor, " series"],
    ) -> Origins:
        """
        Return the origins at the given steps of the chunk that have a target.

        Args:
            chunk: Position of each lane.
            steps: Steps within the chunk at which to forecast.
            known_until: Targets at or past this step of their series are not used.
            earliest: Origins before this step of their series are left out.
        """
        series, start = torch.from_numpy(chunk.series), torch.from_numpy(chunk.start)
        position = start[:, None] + steps
        valid = steps < torch.from_numpy(chunk.length)[:, None]
        valid &= position >= earliest[series, None]
        valid &= position >= self.first[series, None]
        valid &= position + 1 < known_until[series, None]
        lane, column = valid.nonzero(as_tuple=True)
        series, position = series[lane], position[lane, column]
        row = self.begins[series] + position
        remaining = known_until[series] - position
        known = torch.arange(1, self.horizon + 1) < remaining[:, None]
        columns = self.columns[row]
        centre, unit = columns[:, Column.CENTRE, None], columns[:, Column.UNIT, None]
        y, values = (part.read(row + 1, self.horizon) for part in (self.y, self.values))
        relative = (values - centre) / unit
        if not bool(known.all()):  # the runs reach past `known_until`, or into another series
            y, relative = (torch.where(known, part, 0.0) for part in (y, relative))
        return Origins(
            lane,
            steps[column],
            series,
            position,
            centre,
            unit,
            skips=skip_forecasts(
                self.spec.filters, columns, self._seasons(row, position, series), self.horizon
            ),
            distance=self._distance(row),
            y=y,
            relative=relative,
            known=known & self.observed.read(row + 1, self.horizon),
        )

    def usual_counts(self, origins: Origins) -> Float[Tensor, "origin horizon"]:
        """
        Return the usual counts at the targets: the running mean, adjusted for the season.

        The season is the longest one that a series of mean length covers three times. If the
        horizon covers it whole, the running mean is not adjusted. Otherwise it is multiplied by the
        profile at the target over the profile's own running mean at the origin: else a forecast
        made in the evening would be compared with the mean of the day.
        """
        filters = self.spec.filters
        mean = origins.unit * origins.skips[:, 2 + SLOW]
        seasons = [s for s in filters.seasons if 3 * s * len(self.lengths) <= len(self.features)]
        if not seasons or seasons[-1] <= self.horizon:
            return mean
        i, gain = len(seasons) - 1, filters.trends[SLOW][0]
        profile_ahead = origins.skips[:, filters.first_seasonal + 2 * i + 1]
        back = torch.arange(min(seasons[-1], round(5 / gain)))
        past = (origins.position[:, None] - back).clamp(min=0) + self.begins[origins.series, None]
        weight = (1 - gain) ** back
        profile = self.columns[past, filters.num_columns - len(filters.seasons) + i]
        profile_mean = profile @ (weight / weight.sum())[:, None] / origins.unit
        return mean * torch.where(profile_mean > 0, profile_ahead / profile_mean, 1.0)

    def _seasons(
        self,
        row: Int[Tensor, " origin"],
        position: Int[Tensor, " origin"],
        series: Int[Tensor, " origin"],
    ) -> Float[Tensor, "origin season two horizon"]:
        """
        Return value and profile at the target's phase in the last season, NaN where unknown.

        Args:
            row: Index of each origin in the flat tensors.
            position: Step of each origin within its series.
            series: Series of each origin.
        """
        seasons = self.spec.filters.seasons
        out = self.columns.new_empty((len(row), len(seasons), 2, self.horizon))
        num_before = position - self.first[series]
        for i, season in enumerate(seasons):
            steps = min(season, self.horizon)
            all_known = bool((num_before >= season - 1).all())
            known = torch.arange(season - 1, season - 1 - steps, -1) <= num_before[:, None]
            for j, part in enumerate((self.values, self.profiles[i])):
                last = part.read(row + 1 - season, steps)
                last = last if all_known else torch.where(known, last, torch.nan)
                for begin in range(0, self.horizon, season):
                    out[:, i, j, begin : begin + season] = last[:, : self.horizon - begin]
        return out

    def _distance(self, row: Int[Tensor, " origin"]) -> Float[Tensor, "origin horizon amount"]:
        """Return the known-future amounts ahead, minus their running means at the origins."""
        if not self.amounts.shape[1]:
            return self.amounts.new_zeros((len(row), self.horizon, 0))
        dates = self.date.read(row + 1, self.horizon)
        ahead = self.amounts.index_select(0, dates.flatten())
        return ahead.view(*dates.shape, self.amounts.shape[1]) - self.means[row][:, None]


def _dates(
    spec: InputSpec, panel: Panel
) -> tuple[Float[np.ndarray, "row date"], Int[np.ndarray, " time"]]:
    """
    Return `TrainingSet.dates`, and the row of it that belongs to each step.

    Without known-future covariates, steps with the same calendar features share a row.
    """
    if panel.known_future.shape[1]:
        return spec.dates(panel.known_future, panel.ds), np.arange(len(panel.ds))
    stamps, stamp = np.unique(panel.ds, return_inverse=True)
    no_covariates = np.zeros((len(stamps), 0), np.float32)
    rows, row = np.unique(spec.dates(no_covariates, stamps), axis=0, return_inverse=True)
    return rows, row[stamp]

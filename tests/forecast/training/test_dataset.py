"""Gathering the data of a chunk from the flat tensors of a panel."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from forecast.calendars.calendar import Calendar
from forecast.config import Config, DataConfig, ModelConfig
from forecast.data.panel import Panel
from forecast.features.filter_spec import FilterSpec
from forecast.features.inputs import InputSpec
from forecast.features.static import StaticSpec
from forecast.models.network import make_network
from forecast.training.dataset import PaddedSeries, TrainingSet
from forecast.training.defaults import resolve
from forecast.training.lanes import iter_chunks
from forecast.training.objective import look_ahead

LENGTHS = (400, 250, 90)
BEGINS = ("2024-01-01", "2024-01-03 07:00", "2024-01-09")


@pytest.fixture
def panel() -> Panel:
    """Three hourly series that begin at different times."""
    stamps = [
        pd.date_range(begin, periods=length, freq="h").as_unit("ns").asi8
        for begin, length in zip(BEGINS, LENGTHS, strict=True)
    ]
    size = sum(LENGTHS)
    no_covariates = np.zeros((size, 0), np.float32)
    return Panel(
        ids=("a", "b", "c"),
        indptr=np.cumsum([0, *LENGTHS]),
        ds=np.concatenate(stamps),
        values=np.random.default_rng(0).lognormal(size=size),
        observed=np.ones(size, np.bool_),
        known_future=no_covariates,
        past_only=no_covariates,
    )


def test_steps_with_the_same_calendar_share_a_row_of_dates(panel):
    """The heads get what they would get from a row for each step."""
    config = Config(
        data=DataConfig(freq="h", kind="positive"), model=ModelConfig(hidden_size=8, horizon=24)
    )
    resolved = resolve(config, Calendar("h"), panel.lengths)
    spec = InputSpec(
        filters=FilterSpec(space="log", seasons=(24,)),
        calendar=Calendar("h"),
        use_calendar=True,
        annual=False,
        holidays=None,
        static=StaticSpec(),
    )
    static = spec.static.encode(None, panel.ids)
    training_set = TrainingSet.build(spec, panel, static, horizon=24, scale=np.ones(3))
    steps = torch.arange(len(training_set.features))
    row = training_set.date.pick(steps)
    not_shared = replace(
        training_set,
        dates=training_set.dates[row],
        amounts=training_set.amounts[row],
        date=PaddedSeries.pad(steps, 24),
    )
    torch.manual_seed(0)
    network = make_network(resolved, spec)

    assert len(training_set.dates) == 168  # the hours of a week
    chunks = list(iter_chunks(panel.lengths, num_lanes=3, chunk_length=80))
    for chunk in chunks:
        origins = training_set.origins(
            chunk, torch.arange(80), training_set.lengths, torch.zeros(3, dtype=torch.int64)
        )
        actual, expected = (
            look_ahead(network, data, chunk, origins) for data in (training_set, not_shared)
        )
        torch.testing.assert_close(actual.dates, expected.dates)
    assert len(chunks) > 1

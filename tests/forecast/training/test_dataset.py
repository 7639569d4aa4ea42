"""What training gathers from the flat arrays of a panel."""

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
    """Three series by the hour that begin at different times."""
    stamps = [
        pd.date_range(begin, periods=length, freq="h").as_unit("ns").asi8
        for begin, length in zip(BEGINS, LENGTHS, strict=True)
    ]
    size = sum(LENGTHS)
    none = np.zeros((size, 0), np.float32)
    return Panel(
        ids=("a", "b", "c"),
        indptr=np.cumsum([0, *LENGTHS]),
        ds=np.concatenate(stamps),
        values=np.random.default_rng(0).lognormal(size=size),
        observed=np.ones(size, np.bool_),
        known_future=none,
        past_only=none,
    )


def test_a_date_that_many_series_share_is_read_once(panel):
    """And gives what reading it anew for each of them gives."""
    config = Config(
        data=DataConfig(freq="h", kind="positive"), model=ModelConfig(hidden_size=8, horizon=24)
    )
    config = resolve(config, Calendar("h"), panel.lengths)
    spec = InputSpec(
        filters=FilterSpec(space="log", seasons=(24,)),
        calendar=Calendar("h"),
        use_calendar=True,
        annual=False,
        holidays=None,
        static=StaticSpec(),
    )
    static = spec.static.encode(None, panel.ids)
    examples = TrainingSet.build(spec, panel, static, horizon=24, scale=np.ones(3))
    steps = torch.arange(len(examples.features))
    row = examples.date.pick(steps)
    apart = replace(
        examples,
        dates=examples.dates[row],
        amounts=examples.amounts[row],
        date=PaddedSeries.over(steps, 24),
    )
    torch.manual_seed(0)
    network = make_network(config, spec)

    assert len(examples.dates) == 168  # the hours of a week, whatever the length
    chunks = list(iter_chunks(panel.lengths, num_lanes=3, chunk_length=80))
    for chunk in chunks:
        origins = examples.origins(
            chunk, torch.arange(80), examples.lengths, torch.zeros(3, dtype=torch.int64)
        )
        found, expected = (look_ahead(network, e, chunk, origins) for e in (examples, apart))
        torch.testing.assert_close(found.dates, expected.dates)
    assert len(chunks) > 1

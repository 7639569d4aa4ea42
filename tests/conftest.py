"""Fixtures for several packages of tests: bundled data, and a small model trained on it once."""

from pathlib import Path

import pandas as pd
import pytest
import torch
from hypothesis import settings

from forecast.bundle import Bundle
from forecast.config import Config, DataConfig, ModelConfig, TrainConfig
from forecast.data.panel import Panel
from forecast.data.validation import validate
from forecast.training.train import train

# One thread: results do not depend on the machine's cores, and small tensors are faster.
torch.set_num_threads(1)

# Every run tries the same examples, and a slow machine fails no test.
settings.register_profile("statecast", derandomize=True, deadline=None, print_blob=True)
settings.load_profile("statecast")

EXAMPLES = Path(__file__).parent.parent / "examples" / "data"


@pytest.fixture(scope="session")
def retail() -> pd.DataFrame:
    """Return the monthly turnover of a dozen retailers: real, seasonal and positive values."""
    frame = pd.read_parquet(EXAMPLES / "monthly_retail.parquet")
    ids = sorted(frame["unique_id"].unique())[:12]
    return frame.loc[frame["unique_id"].isin(ids), ["unique_id", "ds", "y"]]


@pytest.fixture(scope="session")
def panel(retail: pd.DataFrame) -> Panel:
    """Return the retail data as a panel."""
    return Panel.from_frame(validate(retail, DataConfig()))


@pytest.fixture(scope="session")
def config() -> Config:
    """Return a configuration that trains within two seconds."""
    return Config(
        data=DataConfig(freq="MS", kind="positive"),
        model=ModelConfig(hidden_size=16, horizon=6),
        train=TrainConfig(max_steps=40),
    )


@pytest.fixture(scope="session")
def bundle(panel: Panel, config: Config) -> Bundle:
    """Return a model trained on all but the last 12 months."""
    return train(panel.head(panel.lengths - 12), config).bundle

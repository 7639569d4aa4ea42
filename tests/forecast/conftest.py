"""Fixtures for tests of the library."""

import pytest

from forecast.config import Config, ModelConfig, TrainConfig


@pytest.fixture(scope="session")
def quick() -> Config:
    """Return settings of a training run of about a second."""
    return Config(model=ModelConfig(hidden_size=16), train=TrainConfig(max_steps=30))

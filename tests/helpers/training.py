"""Helpers for tests of training: a script to kill, tiny panels, and interrupted runs."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import strategies as st

from forecast.bundle import Bundle
from forecast.config import Config
from forecast.data.panel import Panel
from forecast.training.lanes import Chunk
from forecast.training.progress import TrainEvent
from forecast.training.train import train

TRAIN_SCRIPT = """
import json, sys
from pathlib import Path
import pandas, torch
from forecast.config import Config
from forecast.data.panel import Panel
from forecast.data.validation import validate
from forecast.training.train import train

torch.set_num_threads(1)
config = Config.from_dict(json.loads(sys.argv[2]))
table = pandas.read_parquet("examples/data/monthly_retail.parquet")[["unique_id", "ds", "y"]]
panel = Panel.from_frame(validate(table, config.data)).take([0, 1, 2])
train(panel, config, checkpoint_dir=Path(sys.argv[1]))
"""
"""
Trains on three retail series; its arguments are the checkpoint directory and the settings as JSON.

It does not guard its main module, as a user's script may not.
"""


def weights(bundle: Bundle) -> dict[str, bytes]:
    """Return every weight as bytes."""
    state = bundle.network.state_dict()
    return {name: value.numpy().tobytes() for name, value in state.items()}


def to_panel(y: np.ndarray) -> Panel:
    """Return a panel without covariates, with one series for each row of `y`."""
    num_series, length = y.shape
    no_covariates = np.zeros((y.size, 0), np.float32)
    return Panel(
        ids=tuple(f"s{i}" for i in range(num_series)),
        indptr=length * np.arange(num_series + 1, dtype=np.int64),
        ds=np.tile(np.arange(length), num_series),
        values=y.ravel(),
        observed=np.ones(y.size, np.bool_),
        known_future=no_covariates,
        past_only=no_covariates,
    )


lengths = st.lists(st.integers(0, 40), min_size=1, max_size=12).map(np.array)


def steps_of(chunk: Chunk, lane: int) -> list[tuple[int, int]]:
    """Return (series, step) for each real step of a lane."""
    start, length = int(chunk.start[lane]), int(chunk.length[lane])
    return [(int(chunk.series[lane]), start + k) for k in range(length)]


def train_until(step: int, panel: Panel, config: Config, folder: Path) -> None:
    """Train with checkpoints and interrupt the run when it reports `step`."""

    def interrupt(event: TrainEvent) -> None:
        if event.step == step:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(panel, config, checkpoint_dir=folder, on_event=interrupt)

"""Promise 8: settings that contradict carried state are an error that says what to do."""

import pytest

from forecast.config import Config
from forecast.errors import (
    BackwardState,
    ConfigError,
    OverlappingState,
    ShuffledState,
)


@pytest.mark.parametrize(
    ("error", "table"),
    [
        (ShuffledState, {"train": {"shuffle": "time"}}),
        (OverlappingState, {"train": {"chunk_length": 24, "stride": 12}}),
        (BackwardState, {"model": {"bidirectional": True}}),
        (ConfigError, {"train": {"patience": 3, "val_size": 0}}),
        (ConfigError, {"model": {"dropout": 0.2}}),
        (ConfigError, {"model": {"quantiles": [0.1, 0.5]}}),
    ],
)
def test_settings_that_contradict_each_other_are_refused(error, table):
    """The error is raised before anything runs, and its help says what to do."""
    with pytest.raises(error) as caught:
        Config.from_dict(table)

    assert caught.value.help

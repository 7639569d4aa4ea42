"""Tables and assertions shared by the tests of data."""

import numpy as np
import pandas as pd
import pytest

from forecast.config import DataConfig
from forecast.data.validation import validate


def sales(freq="D", steps=6, ids=("oil", "tea", "yeast")):
    """Return increasing series that begin on Monday 2024-03-04."""
    ds = pd.date_range("2024-03-04", periods=steps, freq=freq)
    parts = [
        pd.DataFrame({"unique_id": name, "ds": ds, "y": np.arange(steps) + 1.0 + k})
        for k, name in enumerate(ids)
    ]
    return pd.concat(parts, ignore_index=True)


def refusal(error, table, *, static_df=None, **data):
    """Return the error that `validate` raises for a table."""
    with pytest.raises(error) as caught:
        validate(table, DataConfig(**data), static_df=static_df)
    return caught.value


def assert_message(error, *parts):
    """Check that the text of an error has all parts, and that it says what to do."""
    assert error.help
    for part in parts:
        assert part in str(error)

"""Static columns: one value per series, present for every series."""

import pandas as pd
import pytest

from forecast.config import DataConfig
from forecast.data.validation import validate
from forecast.errors import MissingValues, WrongType
from tests.helpers.tables import assert_message, refusal, sales


def test_static_columns_become_one_row_per_series():
    """They may come from the table or from a table of their own, as numbers or text."""
    stores = pd.DataFrame(
        {"unique_id": ["tea", "oil", "yeast"], "city": list("xyz"), "m2": [1, 2, 3]}
    )
    table = sales().merge(stores, on="unique_id")

    from_table = validate(table, DataConfig(static=("city", "m2")))
    from_static_df = validate(sales(), DataConfig(), static_df=stores)

    assert from_table.static is not None
    assert from_table.static.loc["oil"].tolist() == ["y", 2.0]
    assert from_static_df.data.static == ("city", "m2")
    pd.testing.assert_frame_equal(from_table.static, from_static_df.static)


def test_a_static_column_that_changes_within_a_series_is_refused():
    """The message quotes both values."""
    table = sales().assign(store=list("aaaaab") * 3)

    error = refusal(WrongType, table, static=("store",))

    assert_message(error, "series 'oil' has store=", "'a'", "'b'", "static")


@pytest.mark.parametrize(
    ("stores", "message"),
    [
        ({"unique_id": ["oil"], "store": ["x"]}, "series 'tea' has no row in static_df"),
        ({"unique_id": ["oil", "tea", "yeast"], "store": ["x", None, "y"]}, "has no store"),
    ],
)
def test_every_series_needs_its_static_values(stores, message):
    """A series without a static row, or with a missing value in it, is refused."""
    error = refusal(MissingValues, sales(), static_df=pd.DataFrame(stores))

    assert_message(error, message, "static_df")

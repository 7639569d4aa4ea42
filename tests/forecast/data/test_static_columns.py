"""Static columns: one row a series, the same at each of its stamps, there for every series."""

import pandas as pd
import pytest

from forecast.config import DataConfig
from forecast.data.validation import validate
from forecast.errors import MissingValues, WrongType
from tests.forecast.data.test_validation import assert_tells, refusal, sales


def test_static_columns_become_one_row_a_series():
    """From the table or from a table of their own, numbers and text, in the order of the ids."""
    stores = pd.DataFrame(
        {"unique_id": ["tea", "oil", "yeast"], "city": list("xyz"), "m2": [1, 2, 3]}
    )
    table = sales().merge(stores, on="unique_id")

    inside = validate(table, DataConfig(static=("city", "m2")))
    beside = validate(sales(), DataConfig(), static_df=stores)

    assert inside.static is not None
    assert inside.static.loc["oil"].tolist() == ["y", 2.0]
    assert beside.data.static == ("city", "m2")
    pd.testing.assert_frame_equal(inside.static, beside.static)


def test_static_columns_that_change_are_refused():
    """Two values of a static column within a series are told, both."""
    table = sales().assign(store=list("aaaaab") * 3)

    error = refusal(WrongType, table, static=("store",))

    assert_tells(error, "series 'oil' has store=", "'a'", "'b'", "static")


@pytest.mark.parametrize(
    ("stores", "told"),
    [
        ({"unique_id": ["oil"], "store": ["x"]}, "series 'tea' has no row in static_df"),
        ({"unique_id": ["oil", "tea", "yeast"], "store": ["x", None, "y"]}, "has no store"),
    ],
)
def test_static_values_must_be_there_for_each_series(stores, told):
    """A series without its static row, or with a hole in it, is refused."""
    error = refusal(MissingValues, sales(), static_df=pd.DataFrame(stores))

    assert_tells(error, told, "static_df")

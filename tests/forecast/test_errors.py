"""docs/errors.md has a section for each error code, and its data examples are real messages."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from forecast import errors
from forecast.calendars.calendar import Calendar
from forecast.config import DataConfig
from forecast.data.future_covariates import check_future
from forecast.data.io import read_table
from forecast.data.validation import validate
from forecast.errors import ForecastError
from tests.helpers.tables import sales

PAGE = Path(__file__).parents[2] / "docs" / "errors.md"


def tree(root: type[ForecastError]) -> Iterator[type[ForecastError]]:
    """Yield a class and all its subclasses that `forecast.errors` defines."""
    yield root
    for child in root.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from tree(child)


def from_file(table: pd.DataFrame) -> pd.DataFrame:
    """Mark a table as read from `sales.csv`, for the place in messages."""
    table.attrs = {"source": "sales.csv", "first_line": 2}
    return table


def faulty(column: str, row: int, value: object) -> pd.DataFrame:
    """Return the sales with another value in one row."""
    table = sales().astype({column: object})
    table.loc[row, column] = value
    return from_file(table)


def check_short_future() -> None:
    """Check covariates for four of seven steps."""
    days = pd.date_range("2024-03-10", periods=4)
    check_future(
        pd.DataFrame({"unique_id": "tea", "ds": days, "price": 1.0}),
        ids=["tea"],
        last_ds=np.array([pd.Timestamp("2024-03-09").value]),
        horizon=7,
        calendar=Calendar("D"),
        columns=("price",),
        data=DataConfig(known_future=("price",)),
    )


DAILY, POSITIVE = DataConfig(freq="D"), DataConfig(kind="positive")
FAULTS: dict[str, Callable[[], object]] = {
    "data.unreadable": lambda: read_table("sale_2024.csv"),
    "data.missing_columns": lambda: validate(
        from_file(sales().rename(columns={"ds": "date", "y": "sales"})), DAILY
    ),
    "data.wrong_type": lambda: validate(faulty("y", 7, "12,5"), DAILY),
    "data.bad_stamps": lambda: validate(faulty("ds", 8, "soon"), DAILY),
    "data.duplicate": lambda: validate(
        from_file(pd.concat([sales(), sales().iloc[[4]].assign(y=99.0)])), DAILY
    ),
    "data.gap": lambda: validate(from_file(sales().drop([2, 9, 10])), DAILY),
    "data.frequency": lambda: validate(from_file(sales()), DataConfig(freq="MS")),
    "data.missing_values": lambda: validate(faulty("y", 3, np.nan), DAILY),
    "data.too_short": lambda: validate(from_file(sales().groupby("unique_id").head(1)), DAILY),
    "data.negative": lambda: validate(faulty("y", 9, -2.0), POSITIVE),
    "data.constant": lambda: validate(from_file(sales().assign(y=3.0)), DAILY),
    "data.missing_future": check_short_future,
}


def example(code: str) -> str:
    """Return the message for a table with that fault."""
    with pytest.raises(ForecastError) as caught:
        FAULTS[code]()
    assert caught.value.code == code
    return str(caught.value)


def sections() -> dict[str, str]:
    """Return the sections of the page by heading."""
    parts = re.split(r"^## (\S+)\n", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize("error", [*tree(ForecastError)], ids=lambda error: error.__name__)
def test_every_code_is_documented_with_an_example(error):
    """Each class has its own code, for which the page has a section with an example."""
    section = sections()[error.code]

    assert "```text\n" in section
    assert sum(other.code == error.code for other in tree(ForecastError)) == 1


@pytest.mark.parametrize("code", list(FAULTS))
def test_the_examples_are_real_messages(code):
    """The example of a data code is the message that such a table gets."""
    assert f"```text\n{example(code)}\n```" in sections()[code]

"""docs/errors.md has a section for each error code, and its examples are real messages."""

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

PAGE = Path(__file__).parents[2] / "docs" / "errors.md"


def class_tree(root: type[ForecastError]) -> Iterator[type[ForecastError]]:
    """Yield the class and all its subclasses that `forecast.errors` defines."""
    yield root
    for child in root.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from class_tree(child)


def sales() -> pd.DataFrame:
    """Return three short daily series."""
    ds = pd.date_range("2024-03-04", periods=6)
    names = ("oil", "tea", "yeast")
    parts = [
        pd.DataFrame({"unique_id": name, "ds": ds, "y": np.arange(6) + 1.0 + k})
        for k, name in enumerate(names)
    ]
    return pd.concat(parts, ignore_index=True)


def from_file(table: pd.DataFrame) -> pd.DataFrame:
    """Mark the table as read from a file, which messages then name, and return it."""
    table.attrs = {"source": "sales.csv", "first_line": 2}
    return table


def with_fault(column: str, row: int, value: object) -> pd.DataFrame:
    """Return the sales with one value replaced."""
    table = sales().astype({column: object})
    table.loc[row, column] = value
    return from_file(table)


def check_short_future() -> None:
    """Check future covariates that lack the last three steps."""
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
    "data.wrong_type": lambda: validate(with_fault("y", 7, "12,5"), DAILY),
    "data.bad_stamps": lambda: validate(with_fault("ds", 8, "soon"), DAILY),
    "data.duplicate": lambda: validate(
        from_file(pd.concat([sales(), sales().iloc[[4]].assign(y=99.0)])), DAILY
    ),
    "data.gap": lambda: validate(from_file(sales().drop([2, 9, 10])), DAILY),
    "data.frequency": lambda: validate(from_file(sales()), DataConfig(freq="MS")),
    "data.missing_values": lambda: validate(with_fault("y", 3, np.nan), DAILY),
    "data.too_short": lambda: validate(from_file(sales().groupby("unique_id").head(1)), DAILY),
    "data.negative": lambda: validate(with_fault("y", 9, -2.0), POSITIVE),
    "data.constant": lambda: validate(from_file(sales().assign(y=3.0)), DAILY),
    "data.missing_future": check_short_future,
}


def message_of(code: str) -> str:
    """Return the message of the error that the fault with this code raises."""
    with pytest.raises(ForecastError) as caught:
        FAULTS[code]()
    assert caught.value.code == code
    return str(caught.value)


def sections() -> dict[str, str]:
    """Return the text of each section of the page by its heading."""
    parts = re.split(r"^## (\S+)\n", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize("error", [*class_tree(ForecastError)], ids=lambda error: error.__name__)
def test_every_code_is_documented_with_an_example(error):
    """No two classes share a code, and the section of each code has an example."""
    section = sections()[error.code]

    assert "```text\n" in section
    assert sum(other.code == error.code for other in class_tree(ForecastError)) == 1


@pytest.mark.parametrize("code", list(FAULTS))
def test_the_examples_of_data_errors_are_real_messages(code):
    """The section of a data error quotes the message that the fault raises."""
    assert f"```text\n{message_of(code)}\n```" in sections()[code]

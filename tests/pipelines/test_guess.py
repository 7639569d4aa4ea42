"""`statecast init --from`: what a table seems to be."""

import tomllib

import pandas as pd
import pytest

from forecast import frames
from forecast.config import Config
from pipelines.guess import blank, guess, to_toml


def test_guessed_settings_can_be_trained_on(examples, tmp_path):
    """Columns, roles and frequency of a table with other names are found; the check passes."""
    table = pd.read_parquet(examples / "weekly_sales.parquet")
    names = {"unique_id": "product", "ds": "week", "y": "units"}
    table.rename(columns=names).to_csv(tmp_path / "My Sales.csv", index=False)

    found = guess(str(tmp_path / "My Sales.csv"))

    data = found.values["data"]
    assert found.values["project"]["name"] == "my_sales"
    assert (data["id_col"], data["time_col"], data["target_col"]) == ("product", "week", "units")
    assert data["known_future"] == ["price", "deal", "feat"]
    assert data["static"] == ["store", "brand"]
    assert data["freq"] == "W-THU"
    tables = tomllib.loads(to_toml(found))
    config = Config.from_dict({name: tables[name] for name in ("data", "model", "train")})
    assert frames.report(frames.read_table(tmp_path / "My Sales.csv"), config.data)[
        "problems"
    ] == []  # fmt: skip


def test_column_that_repeats_stamps_is_not_taken_for_the_series(tmp_path):
    """`store` sounds like a name, but only `sku` tells the rows apart."""
    days = ["2024-01-01", "2024-01-02", "2024-01-03"]
    table = pd.DataFrame({
        "store": ["s"] * 6, "sku": ["a"] * 3 + ["b"] * 3, "date": days * 2, "sales": range(6),
    })  # fmt: skip
    table.to_csv(tmp_path / "t.csv", index=False)

    assert guess(str(tmp_path / "t.csv")).values["data"]["id_col"] == "sku"


def test_doubt_is_said(tmp_path):
    """Where no single column names the series, the reason says what to do."""
    table = pd.DataFrame({
        "store": ["s", "s", "t", "t"], "item": ["a", "b", "a", "b"],
        "date": ["2024-01-01"] * 4, "sales": range(4),
    })  # fmt: skip
    table.to_csv(tmp_path / "t.csv", index=False)

    assert "join columns" in guess(str(tmp_path / "t.csv")).reasons["id_col"]


@pytest.mark.parametrize(
    ("column", "values", "kind", "why"),
    [
        ("sales", [0, 0, 3, 5], "count", "50.0% are 0"),
        ("sales", [1, 2, 3, 5], "positive", "0.0% are 0"),
        ("sales", [-1, 2, 3, 5], "real", "negative"),
        ("close", [10.5, 10.25, 10.75, 11], "price", "last value"),
        ("close", [10.5, 0, 0, 11], "count", "50.0% are 0"),
    ],
)
def test_the_kind_follows_from_the_values_and_the_name(tmp_path, column, values, kind, why):
    """Many zeros are counts, a close is a price, and the reason is told."""
    days = pd.date_range("2024-01-01", periods=4)
    table = pd.DataFrame({"sku": "a", "date": days, column: values})
    table.to_csv(tmp_path / "t.csv", index=False)

    found = guess(str(tmp_path / "t.csv"))

    assert found.values["data"]["kind"] == kind
    assert why in found.reasons["kind"]


def test_blank_file_is_valid_and_all_comment():
    """Without data every setting is there as a comment, and the defaults hold."""
    tables = tomllib.loads(to_toml(blank()))

    assert tables == {"project": {}, "data": {}, "model": {}, "train": {}}

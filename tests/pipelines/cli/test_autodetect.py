"""`statecast init --from`: what a table seems to be."""

import tomllib

import pandas as pd
import pytest

from forecast.config import Config
from forecast.data import io as _io
from forecast.data import validation as frames
from pipelines.cli.autodetect import blank, detect, to_toml


def test_guessed_settings_can_be_trained_on(examples, tmp_path):
    """Columns, roles and frequency of a table with other names are found; the check passes."""
    table = pd.read_parquet(examples / "weekly_sales.parquet")
    names = {"unique_id": "product", "ds": "week", "y": "units"}
    table.rename(columns=names).to_csv(tmp_path / "My Sales.csv", index=False)

    found = detect(str(tmp_path / "My Sales.csv"))

    data = found.values["data"]
    assert found.values["project"]["name"] == "my_sales"
    assert (data["id_col"], data["time_col"], data["target_col"]) == ("product", "week", "units")
    assert data["known_future"] == ["price", "deal", "feat"]
    assert data["static"] == ["store", "brand"]
    assert data["freq"] == "W-THU"
    tables = tomllib.loads(to_toml(found))
    config = Config.from_dict({name: tables[name] for name in ("data", "model", "train")})
    assert frames.report(_io.read_table(tmp_path / "My Sales.csv"), config.data)["problems"] == []


def test_column_that_repeats_stamps_is_not_taken_for_the_series(tmp_path):
    """`store` sounds like a name, but only `sku` tells the rows apart."""
    days = ["2024-01-01", "2024-01-02", "2024-01-03"]
    table = pd.DataFrame(
        {
            "store": ["s"] * 6,
            "sku": ["a"] * 3 + ["b"] * 3,
            "date": days * 2,
            "sales": range(6),
        }
    )
    table.to_csv(tmp_path / "t.csv", index=False)

    assert detect(str(tmp_path / "t.csv")).values["data"]["id_col"] == "sku"


def test_columns_that_name_the_series_together_are_found(tmp_path):
    """Store and item together, as shops keep their sales; the number of the row is no name."""
    table = pd.DataFrame({
        "id": range(8), "store_nbr": [7, 7, 8, 8] * 2, "family": ["a", "b", "a", "b"] * 2,
        "date": ["2024-01-01"] * 4 + ["2024-01-02"] * 4, "sales": range(8),
    })  # fmt: skip
    table.to_csv(tmp_path / "t.csv", index=False)

    found = detect(str(tmp_path / "t.csv"))

    data = found.values["data"]
    assert (data["id_from"], data["static"]) == (["store_nbr", "family"],) * 2
    assert data["freq"] == "D"
    assert "past_only" not in data


def test_dates_are_found_by_what_they_hold_and_their_format_is_told(tmp_path):
    """As a spreadsheet of another country writes them, under a name that says nothing here."""
    days = pd.date_range("2024-01-01", periods=40).strftime("%d.%m.%Y")
    table = pd.DataFrame({"Filiale": ["Mitte"] * 40, "Datum": days, "Umsatz": 1.5})
    table["Umsatz"] += range(40)
    table["week"] = table.index // 7
    table.to_csv(tmp_path / "t.csv", sep=";", decimal=",", index=False)

    found = detect(str(tmp_path / "t.csv"))

    data = found.values["data"]
    assert (data["time_col"], data["time_format"]) == ("Datum", "%d.%m.%Y")
    assert (data["target_col"], data["freq"]) == ("Umsatz", "D")
    assert found.reasons["time_format"] == "'%d.%m.%Y': as in 01.01.2024"
    assert 'time_format = "%d.%m.%Y"' in to_toml(found)


def test_doubt_is_said(tmp_path):
    """Rows that nothing tells apart are repeats, or lack a column: the reason says so."""
    table = pd.DataFrame({"item": ["a"] * 4, "date": ["2024-01-01"] * 4, "sales": range(4)})
    table.to_csv(tmp_path / "t.csv", index=False)

    assert "share stamps" in detect(str(tmp_path / "t.csv")).reasons["id_col"]


def test_table_without_names_is_one_series(tmp_path):
    """What brokers export: no column names the series, and the settings make it one."""
    days = pd.bdate_range("2024-01-01", periods=9)
    table = pd.DataFrame(
        {"Date": days, "Open": range(1, 10), "Close": range(2, 11), "Volume": range(9)}
    )
    table.to_csv(tmp_path / "AAPL.csv", index=False)

    found = detect(str(tmp_path / "AAPL.csv"))

    data = found.values["data"]
    assert (data["only_series"], data["target_col"], data["freq"]) == ("aapl", "Close", "B")
    assert data["past_only"] == ["Open", "Volume"]
    config = Config.from_dict({"data": tomllib.loads(to_toml(found))["data"]})
    report = frames.report(str(tmp_path / "AAPL.csv"), config.data)
    assert (report["longest"], report["problems"]) == ({"unique_id": "aapl", "rows": 9}, [])


def test_series_in_each_column_is_doubted(tmp_path):
    """A wide table is taken for one series, and the reason says how to make it long."""
    days = pd.date_range("2024-01-01", periods=9)
    pd.DataFrame({"date": days, "tea": 1.0, "rum": 2.0}).to_csv(tmp_path / "t.csv", index=False)

    assert "df.melt('date'" in detect(str(tmp_path / "t.csv")).reasons["target_col"]


def test_stamps_that_repeat_need_names(tmp_path):
    """Without a column that names the series, repeated stamps are not one series."""
    days = ["2024-01-01", "2024-01-02"] * 2
    pd.DataFrame({"date": days, "sales": range(4)}).to_csv(tmp_path / "t.csv", index=False)

    found = detect(str(tmp_path / "t.csv"))

    assert "stamps repeat" in found.reasons["id_col"]
    assert "only_series" not in found.values["data"]


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

    found = detect(str(tmp_path / "t.csv"))

    assert found.values["data"]["kind"] == kind
    assert why in found.reasons["kind"]


def test_blank_file_is_valid_and_all_comment():
    """Without data every setting is there as a comment, and the defaults hold."""
    tables = tomllib.loads(to_toml(blank()))

    assert tables == {"project": {}, "data": {}, "model": {}, "train": {}}

"""`statecast init --from` detects the settings of a table."""

import tomllib

import pandas as pd
import pytest

from forecast.config import Config
from forecast.data import io, validation
from pipelines.cli.autodetect import DetectedSettings, detect


def test_detected_settings_pass_the_data_check(examples, tmp_path):
    """Columns, roles and frequency of a table with unusual names are detected."""
    table = pd.read_parquet(examples / "weekly_sales.parquet")
    names = {"unique_id": "product", "ds": "week", "y": "units"}
    table.rename(columns=names).to_csv(tmp_path / "My Sales.csv", index=False)

    detected = detect(str(tmp_path / "My Sales.csv"))

    data = detected.values["data"]
    assert detected.values["project"]["name"] == "my_sales"
    assert (data["id_col"], data["time_col"], data["target_col"]) == ("product", "week", "units")
    assert data["known_future"] == ["price", "deal", "feat"]
    assert data["static"] == ["store", "brand"]
    assert data["freq"] == "W-THU"
    tables = tomllib.loads(detected.to_toml())
    config = Config.from_dict({name: tables[name] for name in ("data", "model", "train")})
    assert (
        validation.report(io.read_table(tmp_path / "My Sales.csv"), config.data)["problems"] == []
    )


def test_a_column_with_repeated_timestamps_does_not_identify_the_series(tmp_path):
    """`store` is a usual name, but only `sku` and the date make rows unique."""
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


def test_columns_that_identify_the_series_together_are_detected(tmp_path):
    """Store and family identify a series; the row number does not."""
    table = pd.DataFrame({
        "id": range(8), "store_nbr": [7, 7, 8, 8] * 2, "family": ["a", "b", "a", "b"] * 2,
        "date": ["2024-01-01"] * 4 + ["2024-01-02"] * 4, "sales": range(8),
    })  # fmt: skip
    table.to_csv(tmp_path / "t.csv", index=False)

    detected = detect(str(tmp_path / "t.csv"))

    data = detected.values["data"]
    assert (data["id_from"], data["static"]) == (["store_nbr", "family"],) * 2
    assert data["freq"] == "D"
    assert "past_only" not in data


def test_dates_under_an_unknown_name_are_detected_with_their_format(tmp_path):
    """The table is a CSV export of a German spreadsheet."""
    days = pd.date_range("2024-01-01", periods=40).strftime("%d.%m.%Y")
    table = pd.DataFrame({"Filiale": ["Mitte"] * 40, "Datum": days, "Umsatz": 1.5})
    table["Umsatz"] += range(40)
    table["week"] = table.index // 7
    table.to_csv(tmp_path / "t.csv", sep=";", decimal=",", index=False)

    detected = detect(str(tmp_path / "t.csv"))

    data = detected.values["data"]
    assert (data["time_col"], data["time_format"]) == ("Datum", "%d.%m.%Y")
    assert (data["target_col"], data["freq"]) == ("Umsatz", "D")
    assert detected.reasons["time_format"] == "'%d.%m.%Y': as in 01.01.2024"
    assert 'time_format = "%d.%m.%Y"' in detected.to_toml()


def test_duplicate_rows_are_mentioned_in_the_reason(tmp_path):
    """The rows are duplicates, or a column that identifies the series is missing."""
    table = pd.DataFrame({"item": ["a"] * 4, "date": ["2024-01-01"] * 4, "sales": range(4)})
    table.to_csv(tmp_path / "t.csv", index=False)

    assert "share timestamps" in detect(str(tmp_path / "t.csv")).reasons["id_col"]


def test_a_table_without_series_names_is_one_series(tmp_path):
    """Brokers export one table per stock, without a column that names it."""
    days = pd.bdate_range("2024-01-01", periods=9)
    table = pd.DataFrame(
        {"Date": days, "Open": range(1, 10), "Close": range(2, 11), "Volume": range(9)}
    )
    table.to_csv(tmp_path / "AAPL.csv", index=False)

    detected = detect(str(tmp_path / "AAPL.csv"))

    data = detected.values["data"]
    assert (data["only_series"], data["target_col"], data["freq"]) == ("aapl", "Close", "B")
    assert data["past_only"] == ["Open", "Volume"]
    config = Config.from_dict({"data": tomllib.loads(detected.to_toml())["data"]})
    report = validation.report(str(tmp_path / "AAPL.csv"), config.data)
    assert (report["longest"], report["problems"]) == ({"unique_id": "aapl", "rows": 9}, [])


def test_a_wide_table_gets_advice_to_make_it_long(tmp_path):
    """It is treated as one series, and the reason says how to reshape it."""
    days = pd.date_range("2024-01-01", periods=9)
    pd.DataFrame({"date": days, "tea": 1.0, "rum": 2.0}).to_csv(tmp_path / "t.csv", index=False)

    assert "df.melt('date'" in detect(str(tmp_path / "t.csv")).reasons["target_col"]


def test_repeated_timestamps_need_series_names(tmp_path):
    """A table with repeated timestamps and no names is not taken for one series."""
    days = ["2024-01-01", "2024-01-02"] * 2
    pd.DataFrame({"date": days, "sales": range(4)}).to_csv(tmp_path / "t.csv", index=False)

    detected = detect(str(tmp_path / "t.csv"))

    assert "timestamps repeat" in detected.reasons["id_col"]
    assert "only_series" not in detected.values["data"]


@pytest.mark.parametrize(
    ("column", "values", "kind", "reason"),
    [
        ("sales", [0, 0, 3, 5], "count", "50.0% are 0"),
        ("sales", [1, 2, 3, 5], "positive", "0.0% are 0"),
        ("sales", [-1, 2, 3, 5], "real", "negative"),
        ("close", [10.5, 10.25, 10.75, 11], "price", "last value"),
        ("close", [10.5, 0, 0, 11], "count", "50.0% are 0"),
    ],
)
def test_the_kind_follows_from_the_values_and_the_name(tmp_path, column, values, kind, reason):
    """Data with many zeros are counts, and a column named close is a price."""
    days = pd.date_range("2024-01-01", periods=4)
    table = pd.DataFrame({"sku": "a", "date": days, column: values})
    table.to_csv(tmp_path / "t.csv", index=False)

    detected = detect(str(tmp_path / "t.csv"))

    assert detected.values["data"]["kind"] == kind
    assert reason in detected.reasons["kind"]


def test_a_file_without_data_has_only_comments():
    """Every setting is a comment, so that the defaults hold."""
    tables = tomllib.loads(DetectedSettings().to_toml())

    assert tables == {"project": {}, "data": {}, "model": {}, "train": {}}

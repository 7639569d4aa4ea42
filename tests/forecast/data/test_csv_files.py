"""CSV files: names, headers, line numbers and the dialects of spreadsheets."""

import pandas as pd
import pytest

from forecast.config import DataConfig
from forecast.data.io import read_table
from forecast.data.validation import validate
from forecast.errors import MissingColumns, MissingSteps, MissingValues
from tests.helpers.tables import sales


def test_names_of_series_stay_as_they_are_written(tmp_path):
    """Leading zeros, `NA` and `1E10` are kept; a comma at the end of a row shifts no column."""
    names = ["007", "7", "NA", "1E10", "1.50"]
    lines = [f"{name},{step},{step}.5," for name in names for step in (1, 2)]
    path = tmp_path / "sales.csv"
    path.write_text("\n".join(["unique_id,ds,y", *lines]))

    checked = validate(path, DataConfig(freq=1))

    assert sorted(checked.frame["unique_id"].unique()) == sorted(names)
    assert checked.frame["y"].tolist() == [1.5, 2.5] * 5
    static = tmp_path / "static.csv"
    static.write_text("unique_id,size\n" + "\n".join(f"{name},1" for name in names))
    assert len(validate(path, DataConfig(freq=1), static_df=static).static) == 5
    path.write_text("unique_id,ds,y\na,1,2\n,2,3\n")
    with pytest.raises(MissingValues, match="expected the name of a series"):
        validate(path, DataConfig(freq=1))


def test_two_columns_with_the_same_name_are_refused(tmp_path):
    """Pandas would rename the second one to `y.1`, and it would be ignored unnoticed."""
    path = tmp_path / "sales.csv"
    path.write_text("unique_id,ds,y,y\na,1,2,3\na,2,3,4\n")

    with pytest.raises(MissingColumns, match="2 columns named 'y'"):
        validate(path, DataConfig(freq=1))


def test_an_error_names_the_line_of_the_file(tmp_path):
    """Lines are counted as an editor does, with the header as line 1."""
    path = tmp_path / "sales.csv"
    sales(freq="MS").drop([2]).to_csv(path, index=False)

    with pytest.raises(MissingSteps) as caught:
        validate(path, DataConfig(freq="MS"))

    assert caught.value.where == f"{path}, line 4"
    assert path.read_text().splitlines()[3].startswith("oil,2024-07-01")


@pytest.mark.parametrize(
    ("content", "name", "y"),
    [
        ("unique_id;ds;y\n007;1.2.2024;1,5\n007;2.2.2024;-2\n", "007", [1.5, -2]),
        ("unique_id;ds;y\n1,5;1.2.2024;1.5\n1,5;2.2.2024;2\n", "1,5", [1.5, 2]),
        ("unique_id\tds\ty\na\t1.2.2024\t1.5\na\t2.2.2024\t2\n", "a", [1.5, 2]),
        ('unique_id,ds,y\n"a;b",1.2.2024,1.5\na;b,2.2.2024,2\n', "a;b", [1.5, 2]),
    ],
)
def test_the_dialects_of_spreadsheets_are_read(content, name, y, tmp_path):
    """Semicolons with decimal commas or points, and tabs, are recognised; names are kept."""
    (tmp_path / "sales.csv").write_text(content)

    table = read_table(tmp_path / "sales.csv", data=DataConfig(time_format="%d.%m.%Y"))

    assert table["unique_id"].tolist() == [name] * 2
    assert table["y"].tolist() == y
    assert table["ds"].tolist() == [pd.Timestamp("2024-02-01"), pd.Timestamp("2024-02-02")]

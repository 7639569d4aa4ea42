"""Reading: the same table from any file, library or database; what is none is refused in words."""

import gzip

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import sqlalchemy

from forecast.config import DataConfig
from forecast.data.io import read_table, to_native
from forecast.data.validation import validate
from forecast.errors import (
    ConfigError,
    MissingColumns,
    MissingSteps,
    MissingValues,
    UnreadableSource,
)


def sales():
    """Two series of four months with a price."""
    ds = pd.date_range("2024-01-01", periods=4, freq="MS")
    table = {"unique_id": ["a"] * 4 + ["b"] * 4, "ds": [*ds, *ds], "y": [1.0, 2.0, 4.0, 8.0] * 2}
    return pd.DataFrame(table).assign(price=[0.5, 0.25] * 4)


class Capsule:
    """A table of some other library, known by the Arrow capsule alone."""

    def __init__(self, table):
        self.table = table

    def __arrow_c_stream__(self, requested_schema=None):
        return self.table.__arrow_c_stream__(requested_schema)


def database(folder):
    url = f"sqlite:///{folder / 'sales.db'}"
    engine = sqlalchemy.create_engine(url)
    sales().to_sql("sales", engine, index=False)
    engine.dispose()
    return url


@pytest.mark.parametrize(
    "form",
    [
        "pandas",
        "dict",
        "polars",
        "lazy",
        "arrow",
        "capsule",
        "csv",
        "csv.gz",
        "tsv",
        "parquet",
        "text path",
        "sql",
    ],
)
def test_every_source_gives_the_same_series(form, tmp_path):
    """CSV, Parquet, SQL and every table library give one digest."""
    table = sales()
    query = None
    match form:
        case "pandas":
            source = table
        case "dict":
            source = table.to_dict("list")
        case "polars":
            source = pl.from_pandas(table)
        case "lazy":
            source = pl.from_pandas(table).lazy()
        case "arrow":
            source = pa.Table.from_pandas(table, preserve_index=False)
        case "capsule":
            source = Capsule(pa.Table.from_pandas(table, preserve_index=False))
        case "sql":
            source, query = database(tmp_path), "select * from sales"
        case "parquet":
            source = tmp_path / "sales.parquet"
            table.to_parquet(source)
        case "text path":
            source = str(tmp_path / "sales.csv")
            table.to_csv(source, index=False)
        case _:
            source = tmp_path / f"sales.{form}"
            text = table.to_csv(index=False, sep="\t" if form == "tsv" else ",").encode()
            source.write_bytes(gzip.compress(text) if form == "csv.gz" else text)

    data = DataConfig(past_only=("price",))
    checked = validate(read_table(source, query=query), data)

    assert checked.digest == validate(table, data).digest


def test_names_of_series_in_a_csv_stay_as_they_are_written(tmp_path):
    """Article numbers with zeros in front, `NA`, `1E10`; a comma at the end shifts nothing."""
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


def test_columns_that_name_a_series_together(tmp_path):
    """Their texts as written, joined; a hole in one of them is told, and so is one not there."""
    path = tmp_path / "sales.csv"
    path.write_text("shop,sku,ds,y\n007,a,1,2\n007,a,2,3\n7,b,1,4\n7,b,2,5\n")
    data = DataConfig(freq=1, id_from=("shop", "sku"), static=("shop",))

    checked = validate(path, data)

    assert checked.frame["unique_id"].tolist() == ["007/a"] * 2 + ["7/b"] * 2
    assert checked.static["shop"].tolist() == ["007", "7"]
    frame = pd.DataFrame({"shop": [7.0, 7.0, np.nan], "sku": "a", "ds": [1, 2, 3], "y": [1, 2, 3]})
    assert validate(frame.iloc[:2], data).frame["unique_id"].unique() == ["7/a"]
    with pytest.raises(MissingValues, match="'unique_id' is empty in 1 of 3 rows"):
        validate(frame, data)
    with pytest.raises(MissingColumns, match=r"'sku' \(id_from\)"):
        validate(frame.drop(columns="sku"), data)


def test_table_of_one_series_needs_no_names():
    """Only when it is said: a name that was forgotten would mix series."""
    data, sales_of_one = DataConfig(only_series="tea"), sales().head(4).drop(columns="unique_id")

    assert validate(sales_of_one, data).frame["unique_id"].unique() == ["tea"]
    with pytest.raises(MissingColumns, match="'unique_id'") as caught:
        validate(sales_of_one, DataConfig())
    assert 'only_series = "sales"' in caught.value.help
    with pytest.raises(ConfigError, match="only_series is empty"):
        DataConfig(only_series="")
    with pytest.raises(ConfigError, match="cannot both be"):
        DataConfig(only_series="tea", id_from=("shop", "sku"))


def test_two_columns_of_one_name_in_a_csv_are_told(tmp_path):
    """Pandas would call the second one `y.1`, and nobody would know that it is not read."""
    path = tmp_path / "sales.csv"
    path.write_text("unique_id,ds,y,y\na,1,2,3\na,2,3,4\n")

    with pytest.raises(MissingColumns, match="'y' is there 2 times"):
        validate(path, DataConfig(freq=1))


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda t: t, pd.DataFrame),
        (pl.from_pandas, pl.DataFrame),
        (pa.Table.from_pandas, pa.Table),
        (lambda t: pl.from_pandas(t).lazy(), pl.LazyFrame),
        (lambda t: Capsule(pa.Table.from_pandas(t)), pa.Table),
        (lambda _: "sales.csv", pd.DataFrame),
    ],
)
def test_frames_go_back_as_the_kind_that_came_in(make, kind):
    """A forecast leaves in the library that the history came from."""
    like = make(sales())

    back = to_native(sales(), like)

    assert isinstance(back, kind)
    pd.testing.assert_frame_equal(read_table(back), sales())


def test_a_fault_in_a_csv_file_is_told_with_its_line(tmp_path):
    """The line is the one an editor shows, the header being line 1."""
    path = tmp_path / "sales.csv"
    sales().drop([2]).to_csv(path, index=False)

    with pytest.raises(MissingSteps) as caught:
        validate(path, DataConfig(freq="MS"))

    assert caught.value.where == f"{path}, line 4"
    assert path.read_text().splitlines()[3].startswith("a,2024-04-01")


@pytest.mark.parametrize(
    ("content", "name", "y"),
    [
        ("unique_id;ds;y\n007;1.2.2024;1,5\n007;2.2.2024;-2\n", "007", [1.5, -2]),
        ("unique_id;ds;y\n1,5;1.2.2024;1.5\n1,5;2.2.2024;2\n", "1,5", [1.5, 2]),
        ("unique_id\tds\ty\na\t1.2.2024\t1.5\na\t2.2.2024\t2\n", "a", [1.5, 2]),
        ('unique_id,ds,y\n"a;b",1.2.2024,1.5\na;b,2.2.2024,2\n', "a;b", [1.5, 2]),
    ],
)
def test_a_csv_of_a_spreadsheet_is_read(content, name, y, tmp_path):
    """Semicolons with decimal commas or points, and tabs; names stay as they are written."""
    (tmp_path / "sales.csv").write_text(content)

    table = read_table(tmp_path / "sales.csv", data=DataConfig(time_format="%d.%m.%Y"))

    assert table["unique_id"].tolist() == [name] * 2
    assert table["y"].tolist() == y
    assert table["ds"].tolist() == [pd.Timestamp("2024-02-01"), pd.Timestamp("2024-02-02")]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("sale.csv", None, "did you mean"),
        ("sales.xlsx", b"", "'.xlsx' are not known"),
        ("empty.csv", b"", "cannot read the file"),
        ("bad.parquet", b"PK", "cannot read the file"),
        ("ragged.csv", b"a,b\n1,2\n1,2,3,4\n", "cannot read the file"),
        ("wide.csv", b"unique_id,ds,y\na,1,2,9\na,2,3,9\n", "more fields than the header"),
        ("latin.csv", b"unique_id,ds,y\n\xe9,1,2\n", "cannot read the file"),
    ],
)
def test_a_file_that_is_no_table_is_refused_by_name(name, content, told, tmp_path):
    """The file is named and the way out is said."""
    sales().to_csv(tmp_path / "sales.csv", index=False)
    if content is not None:
        (tmp_path / name).write_bytes(content)

    with pytest.raises(UnreadableSource) as caught:
        read_table(tmp_path / name)

    assert caught.value.where == str(tmp_path / name)
    assert told in str(caught.value)
    assert caught.value.help


@pytest.mark.parametrize(
    ("url", "query", "told"),
    [
        ("sqlite://", None, "needs a query"),
        ("sqlite://", "select * from sales", "no such table"),
        ("nosql://u:secret@h/db", "select 1", "not a database address"),
        ("postgresql+psycopg://u:secret@127.0.0.1:1/db", "select 1", "the query fails"),
    ],
)
def test_a_failing_query_is_told_without_the_password(url, query, told):
    """The database's own words, its address, and no secret."""
    with pytest.raises(UnreadableSource) as caught:
        read_table(url, query=query)

    assert told in str(caught.value)
    assert "secret" not in str(caught.value)


def test_what_is_no_table_is_refused():
    """A number has no rows; a file has no query."""
    with pytest.raises(UnreadableSource, match="int is not a table"):
        read_table(3)
    with pytest.raises(UnreadableSource, match="query needs a database"):
        read_table("sales.csv", query="select 1")

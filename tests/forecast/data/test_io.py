"""Reading: the same table from any file, library or database, or an error that says why not."""

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
    MissingValues,
    UnreadableSource,
)


def sales():
    """Return two series of four months with a price."""
    ds = pd.date_range("2024-01-01", periods=4, freq="MS")
    table = {"unique_id": ["a"] * 4 + ["b"] * 4, "ds": [*ds, *ds], "y": [1.0, 2.0, 4.0, 8.0] * 2}
    return pd.DataFrame(table).assign(price=[0.5, 0.25] * 4)


class Capsule:
    """A table of another library that only has the Arrow capsule."""

    def __init__(self, table):
        self.table = table

    def __arrow_c_stream__(self, requested_schema=None):
        return self.table.__arrow_c_stream__(requested_schema)


def database(folder):
    """Write the sales to an SQLite file and return its URL."""
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
    """CSV, Parquet, SQL and every dataframe library give the same digest."""
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


def test_several_columns_may_name_a_series_together(tmp_path):
    """Their texts are joined as written; a missing value or column is refused."""
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


def test_a_table_of_one_series_needs_only_series():
    """Without the setting, a forgotten `id_col` would mix series, so it is refused."""
    data, table = DataConfig(only_series="tea"), sales().head(4).drop(columns="unique_id")

    assert validate(table, data).frame["unique_id"].unique() == ["tea"]
    with pytest.raises(MissingColumns, match="'unique_id'") as caught:
        validate(table, DataConfig())
    assert 'only_series = "sales"' in caught.value.help
    with pytest.raises(ConfigError, match="only_series is empty"):
        DataConfig(only_series="")
    with pytest.raises(ConfigError, match="cannot both be"):
        DataConfig(only_series="tea", id_from=("shop", "sku"))


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
def test_frames_are_converted_back_to_the_library_of_the_input(make, kind):
    """A forecast has the type of the table that the history came in."""
    like = make(sales())

    back = to_native(sales(), like)

    assert isinstance(back, kind)
    pd.testing.assert_frame_equal(read_table(back), sales())


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("sale.csv", None, "did you mean"),
        ("sales.xlsx", b"", "'.xlsx' are not supported"),
        ("empty.csv", b"", "cannot read the file"),
        ("bad.parquet", b"PK", "cannot read the file"),
        ("ragged.csv", b"a,b\n1,2\n1,2,3,4\n", "cannot read the file"),
        ("wide.csv", b"unique_id,ds,y\na,1,2,9\na,2,3,9\n", "more fields than the header"),
        ("latin.csv", b"unique_id,ds,y\n\xe9,1,2\n", "cannot read the file"),
    ],
)
def test_a_file_that_is_not_a_table_is_refused(name, content, message, tmp_path):
    """The error names the file and says what to do."""
    sales().to_csv(tmp_path / "sales.csv", index=False)
    if content is not None:
        (tmp_path / name).write_bytes(content)

    with pytest.raises(UnreadableSource) as caught:
        read_table(tmp_path / name)

    assert caught.value.where == str(tmp_path / name)
    assert message in str(caught.value)
    assert caught.value.help


@pytest.mark.parametrize(
    ("url", "query", "message"),
    [
        ("sqlite://", None, "needs a query"),
        ("sqlite://", "select * from sales", "no such table"),
        ("nosql://u:secret@h/db", "select 1", "not a usable database address"),
        ("postgresql+psycopg://u:secret@127.0.0.1:1/db", "select 1", "the query failed"),
    ],
)
def test_the_error_of_a_query_does_not_show_the_password(url, query, message):
    """It has the message of the database and the address without secrets."""
    with pytest.raises(UnreadableSource) as caught:
        read_table(url, query=query)

    assert message in str(caught.value)
    assert "secret" not in str(caught.value)


def test_an_object_that_is_not_a_table_is_refused():
    """A number is not a table, and a file takes no query."""
    with pytest.raises(UnreadableSource, match="int is not a table"):
        read_table(3)
    with pytest.raises(UnreadableSource, match="query needs a database"):
        read_table("sales.csv", query="select 1")

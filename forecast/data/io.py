"""Reading of tables from files, databases and dataframe libraries, and conversion back."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import narwhals as nw
import numpy as np
import pandas as pd
import pyarrow as pa

from forecast.config import DataConfig
from forecast.data.csv_files import read_csv
from forecast.data.locator import Locator
from forecast.errors import BadStamps, UnreadableSource, nearest
from forecast.redact import redact_url

_CSV = (".csv", ".csv.gz", ".csv.zst", ".csv.bz2", ".csv.xz", ".tsv", ".txt")
_PARQUET = (".parquet", ".pq", ".parq")
_KINDS = "CSV (.csv, .csv.gz, .tsv) or Parquet (.parquet)"


def read_table(
    source: Any, *, query: str | None = None, data: DataConfig | None = None
) -> pd.DataFrame:
    """
    Read a table as it is: its content is not checked, renamed or sorted.

    Args:
        source: Path of a CSV or Parquet file; SQLAlchemy URL (with `query`); pandas, polars or
            pyarrow table; or any object with an Arrow capsule (`__arrow_c_stream__`).
        query: SQL that yields one row per series and stamp.
        data: Names of the columns. Names of series in a CSV file stay as they are written, `007`
            and `NA` too. A missing `id_col` is made from `id_from` or `only_series`. Stamps are
            parsed by `time_format` if it is set.

    Raises:
        UnreadableSource: The source is not a table, or it cannot be read.
        BadStamps: A stamp does not match `time_format`.

    >>> read_table({"unique_id": ["a"], "ds": [1], "y": [2.0]})
      unique_id  ds    y
    0         a   1  2.0
    >>> read_table({"shop": [7], "sku": ["tea"]}, data=DataConfig(id_from=("shop", "sku")))
       shop  sku unique_id
    0     7  tea     7/tea
    """
    if isinstance(source, Path) or (isinstance(source, str) and "://" not in source):
        texts = () if data is None else (data.id_col, *data.id_from)
        frame = _read_file(Path(source), query, texts)
    elif isinstance(source, str):
        frame = _read_sql(source, query)
    else:
        frame = _read_native(source)
    return frame if data is None else _with_stamps(_with_names(frame, data), data)


def _with_names(frame: pd.DataFrame, data: DataConfig) -> pd.DataFrame:
    """Return the frame with `id_col`; if it is missing, make it from `only_series` or `id_from`."""
    if data.id_col in (*frame, frame.index.name):
        return frame
    if data.only_series is not None:
        return frame.assign(**{data.id_col: data.only_series})
    parts = list(data.id_from)
    if not parts or not {*parts} <= {*frame} or frame.columns.duplicated().any():
        return frame
    codes = frame.groupby(parts, sort=False, dropna=False, observed=True).ngroup().to_numpy()
    _, rows = np.unique(codes, return_index=True)
    keys = frame[parts].iloc[rows].itertuples(index=False, name=None)
    names = ["/".join(map(series_name, key)) if all(map(pd.notna, key)) else None for key in keys]
    return frame.assign(**{data.id_col: np.array(names, object)[codes]})


def _with_stamps(frame: pd.DataFrame, data: DataConfig) -> pd.DataFrame:
    """Return the frame with `time_col` parsed by `time_format`; a column of dates is left as is."""
    name, time_format = data.time_col, data.time_format
    if time_format is None or name not in frame or frame.columns.duplicated().any():
        return frame
    codes, unique = pd.factorize(frame[name])
    if not len(unique) or not isinstance(unique[0], str | int | np.integer):
        return frame
    stamps = pd.to_datetime(pd.Series(unique).astype(str), format=time_format, errors="coerce")
    failed = stamps.isna().to_numpy()[codes] & (codes >= 0)
    if failed.any():
        place = Locator(frame, data.id_col if data.id_col in frame else name)
        row = int(failed.argmax())
        raise BadStamps(
            f"{place.series(row)} has {name}={str(frame[name].iat[row])!r}: expected "
            f"time_format={time_format!r} {place.extent(np.flatnonzero(failed))}",
            where=place.where(row),
            help="correct these rows or time_format",
        )
    return frame.assign(**{name: stamps.reindex(codes).to_numpy()})


def series_name(value: object) -> str:
    """
    Return the name of a series as text.

    A whole number is written without a decimal point: pandas reads integers as floats if some are
    missing.

    >>> series_name(7.0), series_name("007")
    ('7', '007')
    """
    return str(int(value) if isinstance(value, float) and value.is_integer() else value)


def to_native(frame: pd.DataFrame, like: Any) -> Any:
    """
    Return the frame as a table of the same library as `like`: pandas, polars or Arrow.

    >>> import pyarrow as pa
    >>> type(to_native(pd.DataFrame({"y": [1.0]}), pa.table({"y": [2.0]}))).__name__
    'Table'
    """
    if isinstance(like, pd.DataFrame | dict | str | Path):
        return frame
    module = type(like).__module__.partition(".")[0]
    eager = nw.from_native(frame, eager_only=True)
    if module == "polars":
        table = eager.to_polars()
        return table.lazy() if type(like).__name__ == "LazyFrame" else table
    if module == "pyarrow" or hasattr(like, "__arrow_c_stream__"):
        return eager.to_arrow()
    return frame


def _read_file(path: Path, query: str | None, texts: Sequence[str]) -> pd.DataFrame:
    if query is not None:
        raise UnreadableSource(
            "a query needs a database, but this is a file",
            where=str(path),
            help="give a SQLAlchemy URL such as sqlite:///sales.db, or leave the query out",
        )
    name = path.name.lower()
    if not path.exists():
        nearby = sorted(p.name for p in path.parent.glob("*")) if path.parent.is_dir() else []
        near = nearest(path.name, nearby)
        raise UnreadableSource(
            "no such file",
            where=str(path),
            help=f"did you mean {path.parent / near}?" if near else "check the path",
        )
    try:
        if name.endswith(_PARQUET) or path.is_dir():
            frame = _read_parquet(path)
        elif name.endswith(_CSV):
            frame = read_csv(path, texts)
        else:
            raise UnreadableSource(
                f"files ending in {path.suffix!r} are not supported: expected {_KINDS}",
                where=str(path),
                help="convert the file",
            )
    except (OSError, ValueError) as error:  # pandas' and pyarrow's errors are ValueErrors
        raise UnreadableSource(
            f"cannot read the file: {_first_line(error)}",
            where=str(path),
            help=f"expected {_KINDS}, CSV with commas, a header line and UTF-8",
        ) from error
    frame.attrs["source"] = str(path)
    if name.endswith(_CSV):
        frame.attrs["first_line"] = 2
    return frame


def _read_parquet(path: Path) -> pd.DataFrame:
    """Read the file and free the memory used for decoding, which is as large as the table."""
    frame = pd.read_parquet(path)
    pa.default_memory_pool().release_unused()
    return frame


def _read_sql(url: str, query: str | None) -> pd.DataFrame:
    import sqlalchemy

    try:
        address = sqlalchemy.make_url(url)
        shown_address = redact_url(address)
        if query is None:
            raise UnreadableSource(
                "a database needs a query",
                where=shown_address,
                help='for example "select unique_id, ds, y from sales"',
            )
        engine = sqlalchemy.create_engine(address)
    except (sqlalchemy.exc.ArgumentError, ImportError) as error:
        raise UnreadableSource(
            f"not a usable database address: {_first_line(error)}",
            help="give a SQLAlchemy URL such as sqlite:///sales.db or "
            "postgresql+psycopg://user@host/db (needs its driver)",
        ) from error
    try:
        with engine.connect() as connection:
            frame = pd.read_sql_query(sqlalchemy.text(query), connection)
    except sqlalchemy.exc.SQLAlchemyError as error:
        raise UnreadableSource(
            f"the query failed: {_first_line(getattr(error, 'orig', None) or error)}",
            where=shown_address,
            help="try the query in a database shell",
        ) from error
    finally:
        engine.dispose()
    frame.attrs["source"] = shown_address
    return frame


def _read_native(source: Any) -> pd.DataFrame:
    if isinstance(source, pd.DataFrame):
        return source
    if isinstance(source, dict):
        return pd.DataFrame(source)
    try:
        table = nw.from_native(source, pass_through=False)
    except TypeError:
        if hasattr(source, "__arrow_c_stream__"):
            return nw.from_arrow(source, backend="pyarrow").to_pandas()
        raise UnreadableSource(
            f"a {type(source).__name__} is not a table: expected pandas, polars, pyarrow, "
            "an object with __arrow_c_stream__, a path or a SQLAlchemy URL",
            help="convert it to a pandas.DataFrame first",
        ) from None
    if isinstance(table, nw.LazyFrame):
        table = table.collect()
    frame: pd.DataFrame = table.to_pandas()
    return frame


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]

"""Any table in, a pandas frame out, and back to the kind it came from."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import narwhals as nw
import numpy as np
import pandas as pd
import pyarrow as pa
from jaxtyping import Int64

from forecast.config import DataConfig
from forecast.errors import BadStamps, MissingColumns, UnreadableSource, nearest
from forecast.redact import redact_url

_CSV = (".csv", ".csv.gz", ".csv.zst", ".csv.bz2", ".csv.xz", ".tsv", ".txt")
_PARQUET = (".parquet", ".pq", ".parq")
_KINDS = "CSV (.csv, .csv.gz, .tsv) or Parquet (.parquet)"


def read_table(
    source: Any, *, query: str | None = None, data: DataConfig | None = None
) -> pd.DataFrame:
    """
    Read a table as it is: nothing is checked, renamed or sorted here.

    Args:
        source: Path of a CSV or Parquet file; SQLAlchemy URL (with `query`); pandas, polars or
            pyarrow table; or anything with the Arrow capsule (`__arrow_c_stream__`).
        query: SQL that yields one row per series and stamp.
        data: Says which column has the names of the series: in a CSV they stay as they are
            written, `007` and `NA` too. Where it is missing, it is made from `id_from` or
            `only_series`. Stamps are read by its `time_format`, if it has one.

    Raises:
        UnreadableSource: There is no table there, or it cannot be read.
        BadStamps: A stamp is not as `time_format` says.

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
    """The frame with `id_col`, made as the settings say where it is missing."""
    if data.id_col in (*frame, frame.index.name):
        return frame
    if data.only_series is not None:
        return frame.assign(**{data.id_col: data.only_series})
    parts = list(data.id_from)
    if not parts or not {*parts} <= {*frame} or frame.columns.duplicated().any():
        return frame
    codes = frame.groupby(parts, sort=False, dropna=False, observed=True).ngroup().to_numpy()
    _, rows = np.unique(codes, return_index=True)
    named = frame[parts].iloc[rows].itertuples(index=False, name=None)
    names = ["/".join(map(series_name, row)) if all(map(pd.notna, row)) else None for row in named]
    return frame.assign(**{data.id_col: np.array(names, object)[codes]})


def _with_stamps(frame: pd.DataFrame, data: DataConfig) -> pd.DataFrame:
    """The frame with `time_col` read by `time_format`; what are dates already stay as they are."""
    name, how = data.time_col, data.time_format
    if how is None or name not in frame or frame.columns.duplicated().any():
        return frame
    codes, unique = pd.factorize(frame[name])
    if not len(unique) or not isinstance(unique[0], str | int | np.integer):
        return frame
    stamps = pd.to_datetime(pd.Series(unique).astype(str), format=how, errors="coerce")
    failed = stamps.isna().to_numpy()[codes] & (codes >= 0)
    if failed.any():
        place = Locator(frame, data.id_col if data.id_col in frame else name)
        row = int(failed.argmax())
        raise BadStamps(
            f"{place.series(row)} has {name}={str(frame[name].iat[row])!r}: expected "
            f"time_format={how!r} {place.extent(np.flatnonzero(failed))}",
            where=place.where(row),
            help="correct these rows, or time_format",
        )
    return frame.assign(**{name: stamps.reindex(codes).to_numpy()})


def series_name(value: object) -> str:
    """
    The name of a series as text; numbers that became floats, for a hole somewhere, stay whole.

    >>> series_name(7.0), series_name("007")
    ('7', '007')
    """
    return str(int(value) if isinstance(value, float) and value.is_integer() else value)


def to_native(frame: pd.DataFrame, like: Any) -> Any:
    """
    The frame as a table of the same library as `like`: pandas, polars or Arrow.

    >>> import pyarrow as pa
    >>> type(to_native(pd.DataFrame({"y": [1.0]}), pa.table({"y": [2.0]}))).__name__
    'Table'
    """
    if isinstance(like, pd.DataFrame | dict | str | Path):
        return frame
    module = type(like).__module__.partition(".")[0]
    eager = nw.from_native(frame, eager_only=True)
    if module == "polars":
        made = eager.to_polars()
        return made.lazy() if type(like).__name__ == "LazyFrame" else made
    if module == "pyarrow" or hasattr(like, "__arrow_c_stream__"):
        return eager.to_arrow()
    return frame


@dataclass(frozen=True, slots=True)
class Locator:
    """Names series and places of rows, for messages; rows are positions in `frame`."""

    frame: pd.DataFrame
    id_col: str
    label: str = ""
    """Which table it is, when a call takes several."""

    def series(self, row: int | np.integer) -> str:
        """The series of a row, quoted."""
        return f"series {str(self.frame[self.id_col].iat[int(row)])!r}"

    def where(self, row: int | np.integer) -> str:
        """File and line, or the position of the row."""
        source = self.frame.attrs.get("source", self.label)
        first_line = self.frame.attrs.get("first_line")
        if first_line is not None:
            return f"{source}, line {int(row) + first_line}"
        return f"{source}{', ' if source else ''}row {int(row)} (counted from 0)"

    def extent(self, rows: Int64[np.ndarray, " row"], unit: str = "row") -> str:
        """How bad it is: rows and series that share the fault, the first few by name."""
        ids = self.frame[self.id_col]
        bad = ids.iloc[rows].astype(str).unique()
        plural = unit if len(rows) == 1 else f"{unit}s"
        return (
            f"({len(rows):,} {plural} in {len(bad):,} of {ids.nunique():,} series: "
            f"{quote_some(sorted(bad))})"
        )


def quote_some(names: Sequence[str], limit: int = 3) -> str:
    """
    The first few names, quoted, and how many more there are.

    >>> some(["a", "b", "c", "d", "e"])
    "'a', 'b', 'c' and 2 more"
    """
    few = ", ".join(repr(str(name)) for name in names[:limit])
    return few + (f" and {len(names) - limit:,} more" if len(names) > limit else "")


def need_columns(
    frame: pd.DataFrame, data: DataConfig, roles: Sequence[str], *, label: str = ""
) -> None:
    """
    Raise `MissingColumns` unless the columns of `roles` (fields of `data`) are there.

    Columns named in `data` that are missing are told with the nearest name that is there. With a
    `label`, the table is a second one beside the history and must use the same names.
    """
    here = [str(name) for name in frame.columns]
    doubled = sorted({name for name in here if here.count(name) > 1})
    if doubled:
        raise MissingColumns(
            f"column {doubled[0]!r} is there {here.count(doubled[0])} times: expected one",
            where=str(frame.attrs.get("source", "")),
            help="rename or drop the others",
        )
    lacking: list[tuple[str, str]] = []
    for role in roles:
        if role == "id_col" and data.id_from and data.id_col not in here:
            role = "id_from"
        named = getattr(data, role)
        for name in (named,) if isinstance(named, str) else named:
            lacking += [(role, name)] if name not in here else []
    if not lacking:
        return
    advice = []
    for role, name in lacking:
        near = _likely_column(role, name, here)
        if near:
            value = f'"{near}"' if isinstance(getattr(data, role), str) else f'["{near}"]'
            advice.append(f"rename {near!r} to {name!r}" if label else f"set {role} = {value}")
        elif role == "id_col" and not label:
            advice.append('all rows are one series: set only_series = "sales"')
            advice.append('several columns name a series: set id_from = ["store", "item"]')
    told = ", ".join(f"{name!r} ({role})" for role, name in lacking)
    raise MissingColumns(
        f"missing column{'s' if len(lacking) > 1 else ''} {told}: found "
        f"{quote_some(here, 20) or 'none'}",
        where=str(frame.attrs.get("source", label)),
        help=(f"did you mean: {'; '.join(advice)}?" if advice else "rename the columns, or name ")
        + ("" if advice else "them: id_col, time_col, target_col, known_future, past_only, static"),
    )


_OTHER_NAMES = {
    "id_col": (
        "id",
        "item_id",
        "series",
        "series_id",
        "store",
        "item",
        "sku",
        "ticker",
        "symbol",
        "product",
        "name",
        "key",
    ),
    "time_col": (
        "date",
        "datetime",
        "timestamp",
        "time",
        "day",
        "week",
        "month",
        "period",
        "date_time",
        "ts",
    ),
    "target_col": (
        "sales",
        "value",
        "target",
        "close",
        "quantity",
        "demand",
        "units",
        "volume",
        "price",
        "turnover",
        "amount",
        "qty",
    ),
}


def _likely_column(role: str, name: str, here: Sequence[str]) -> str | None:
    lower = {column.lower(): column for column in reversed(here)}
    if name.lower() in lower:
        return lower[name.lower()]
    for other in _OTHER_NAMES.get(role, ()):
        if other in lower:
            return lower[other]
    near = nearest(name.lower(), sorted(lower))
    return lower[near] if near else None


def _read_file(path: Path, query: str | None, texts: Sequence[str]) -> pd.DataFrame:
    if query is not None:
        raise UnreadableSource(
            "a query needs a database, and this is a file",
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
            frame = _read_csv(path, texts)
        else:
            raise UnreadableSource(
                f"files ending in {path.suffix!r} are not known: expected {_KINDS}",
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
    """What was needed to decode it, as much again as the table, is given back at once."""
    frame = pd.read_parquet(path)
    pa.default_memory_pool().release_unused()
    return frame


def _read_csv(path: Path, texts: Sequence[str]) -> pd.DataFrame:
    """Names of series as they are written, and no column taken for an index."""
    sep, decimal = _dialect(path, texts)
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        try:
            frame = pd.read_csv(
                path,
                sep=sep,
                decimal=decimal,
                low_memory=False,
                index_col=False,
                converters=dict.fromkeys(texts, lambda text: text or None),
            )
        except pd.errors.ParserWarning:
            raise UnreadableSource(
                "the rows have more fields than the header has names",
                where=str(path),
                help="name every column in the first line",
            ) from None
    written = pd.read_csv(path, sep=sep, nrows=1, header=None, dtype=str).iloc[0]
    names = np.where(written.notna(), written, frame.columns)
    frame.columns = pd.Index(names)  # as written: pandas would call a second `y` another name
    return frame


def _dialect(path: Path, texts: Sequence[str]) -> tuple[str, str]:
    """What is between the columns, and in a number: spreadsheets of many countries write 7;1,5."""
    header = pd.read_csv(path, nrows=0).columns
    sep = next((mark for mark in ";\t" if len(header) == 1 and mark in header[0]), ",")
    if sep != ";":
        return sep, "."
    first = pd.read_csv(path, sep=sep, nrows=1_000, dtype=str, index_col=False)
    cells = first[[name for name in first if name not in texts]].stack()
    return sep, "," if cells.str.fullmatch(r"[+-]?\d+,\d+").any() else "."


def _read_sql(url: str, query: str | None) -> pd.DataFrame:
    import sqlalchemy

    try:
        address = sqlalchemy.make_url(url)
        told = redact_url(address)
        if query is None:
            raise UnreadableSource(
                "a database needs a query",
                where=told,
                help='for example "select unique_id, ds, y from sales"',
            )
        engine = sqlalchemy.create_engine(address)
    except (sqlalchemy.exc.ArgumentError, ImportError) as error:
        raise UnreadableSource(
            f"not a database address that can be used: {_first_line(error)}",
            help="give a SQLAlchemy URL such as sqlite:///sales.db or "
            "postgresql+psycopg://user@host/db (needs its driver)",
        ) from error
    try:
        with engine.connect() as connection:
            frame = pd.read_sql_query(sqlalchemy.text(query), connection)
    except sqlalchemy.exc.SQLAlchemyError as error:
        raise UnreadableSource(
            f"the query fails: {_first_line(getattr(error, 'orig', None) or error)}",
            where=told,
            help="try the query in a database shell",
        ) from error
    finally:
        engine.dispose()
    frame.attrs["source"] = told
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
            "something with __arrow_c_stream__, a path or a SQLAlchemy URL",
            help="make it a pandas.DataFrame first",
        ) from None
    if isinstance(table, nw.LazyFrame):
        table = table.collect()
    frame: pd.DataFrame = table.to_pandas()
    return frame


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]

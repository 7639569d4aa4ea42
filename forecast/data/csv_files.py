"""Read CSV files of any dialect: commas, semicolons or tabs, with decimal points or commas."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from forecast.errors import UnreadableSource


def read_csv(path: Path, texts: Sequence[str]) -> pd.DataFrame:
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

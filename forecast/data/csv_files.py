"""Reading of CSV files with commas, semicolons or tabs, and decimal points or commas."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from forecast.errors import UnreadableSource


def read_csv(path: Path, texts: Sequence[str]) -> pd.DataFrame:
    """
    Read a CSV file with a header line.

    Args:
        path: The file, which may be compressed.
        texts: Columns that name series: their cells stay as they are written, `007` and `NA` too.

    Raises:
        UnreadableSource: The rows have more fields than the header.
        OSError, ValueError: pandas cannot read the file.
    """
    sep, decimal = _dialect(path, texts)
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        try:
            frame = pd.read_csv(
                path,
                sep=sep,
                decimal=decimal,
                low_memory=False,
                index_col=False,  # a comma at the end of each row must not shift the columns
                converters=dict.fromkeys(texts, lambda text: text or None),
            )
        except pd.errors.ParserWarning:
            raise UnreadableSource(
                "the rows have more fields than the header has names",
                where=str(path),
                help="name every column in the first line",
            ) from None
    # pandas renames a second `y` to `y.1`: restore the header, so that repeated names are refused.
    header = pd.read_csv(path, sep=sep, nrows=1, header=None, dtype=str).iloc[0]
    frame.columns = pd.Index(np.where(header.notna(), header, frame.columns))
    return frame


def _dialect(path: Path, texts: Sequence[str]) -> tuple[str, str]:
    """
    Return the separator of columns and the decimal mark.

    Spreadsheets of many countries write `7;1,5`. A comma is the decimal mark only in files with
    semicolons, and only if the first 1,000 rows have such a number outside of `texts`.
    """
    header = pd.read_csv(path, nrows=0).columns
    sep = ","
    if len(header) == 1:
        sep = next((mark for mark in ";\t" if mark in header[0]), ",")
    if sep != ";":
        return sep, "."
    sample = pd.read_csv(path, sep=sep, nrows=1_000, dtype=str, index_col=False)
    cells = sample[[name for name in sample if name not in texts]].stack()
    return sep, "," if cells.str.fullmatch(r"[+-]?\d+,\d+").any() else "."

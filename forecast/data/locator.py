"""Names of series and places of rows, for error messages."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Int64


@dataclass(frozen=True, slots=True)
class Locator:
    """Names the series and the place of rows in messages; a row is its position in `frame`."""

    frame: pd.DataFrame
    id_col: str
    label: str = ""
    """Name of the table, for calls that take several."""

    def series(self, row: int | np.integer) -> str:
        """Return the quoted name of the series of a row."""
        return f"series {str(self.frame[self.id_col].iat[int(row)])!r}"

    def where(self, row: int | np.integer) -> str:
        """Return the file and line of a row, or its position if the table is not from a file."""
        source = self.frame.attrs.get("source", self.label)
        first_line = self.frame.attrs.get("first_line")
        if first_line is not None:
            return f"{source}, line {int(row) + first_line}"
        return f"{source}{', ' if source else ''}row {int(row)} (counted from 0)"

    def extent(self, rows: Int64[np.ndarray, " row"], unit: str = "row") -> str:
        """Count the rows and series that share a fault, and name the first few series."""
        ids = self.frame[self.id_col]
        bad = ids.iloc[rows].astype(str).unique()
        plural = unit if len(rows) == 1 else f"{unit}s"
        return (
            f"({len(rows):,} {plural} in {len(bad):,} of {ids.nunique():,} series: "
            f"{quote_some(sorted(bad))})"
        )


def quote_some(names: Sequence[str], limit: int = 3) -> str:
    """
    Return the first few names, quoted, and the number of the others.

    >>> quote_some(["a", "b", "c", "d", "e"])
    "'a', 'b', 'c' and 2 more"
    """
    shown = ", ".join(repr(str(name)) for name in names[:limit])
    return shown + (f" and {len(names) - limit:,} more" if len(names) > limit else "")

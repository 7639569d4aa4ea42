"""Say in a message which series and rows of a table are at fault."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Int64


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

    >>> quote_some(["a", "b", "c", "d", "e"])
    "'a', 'b', 'c' and 2 more"
    """
    few = ", ".join(repr(str(name)) for name in names[:limit])
    return few + (f" and {len(names) - limit:,} more" if len(names) > limit else "")

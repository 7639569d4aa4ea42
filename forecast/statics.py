"""Static covariates as numbers: scaled, or one column a category; an unknown one is all zeros."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float

from forecast.errors import MissingColumns

MAX_CATEGORIES = 64
"""Categories of one column beyond the most frequent ones share the all-zero code."""


@dataclass(frozen=True, slots=True)
class StaticColumn:
    """How one static column is encoded, as learned from the training series."""

    name: str
    categories: tuple[str, ...]
    """Known categories; empty for a numeric column."""
    mean: float = 0.0
    scale: float = 1.0

    @property
    def width(self) -> int:
        """Columns it takes once encoded."""
        return len(self.categories) or 1


@dataclass(frozen=True, slots=True)
class StaticSpec:
    """The static columns of a model, in order."""

    columns: tuple[StaticColumn, ...] = ()

    @property
    def width(self) -> int:
        """Columns of the encoding."""
        return sum(column.width for column in self.columns)

    @classmethod
    def learn(cls, table: pd.DataFrame | None) -> "StaticSpec":
        """Take categories, means and scales from one row a series."""
        if table is None:
            return cls()
        columns = []
        for name in table.columns:
            values = table[name]
            if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
                spread = float(values.std(ddof=0))
                columns.append(StaticColumn(name, (), float(values.mean()), spread or 1.0))
            else:
                common = values.astype(str).value_counts().index[:MAX_CATEGORIES]
                columns.append(StaticColumn(name, tuple(sorted(common))))
        return cls(tuple(columns))

    def encode(
        self, table: pd.DataFrame | None, ids: Sequence[str]
    ) -> Float[np.ndarray, "series static"]:
        """
        One row a series of `ids`; a series that the table lacks is coded as unknown (zeros).

        Raises:
            MissingColumns: The table lacks a static column that the model learned with.
        """
        out = np.zeros((len(ids), self.width), np.float32)
        if table is None or not self.columns:
            return out
        absent = [column.name for column in self.columns if column.name not in table.columns]
        if absent:
            raise MissingColumns(
                f"static column {absent[0]!r} is missing; the model learned with "
                f"{', '.join(column.name for column in self.columns)}",
                help="add it to static_df, one row a series",
            )
        rows = table.index.get_indexer(pd.Index(ids))
        place = 0
        for column in self.columns:
            known = rows >= 0
            values = table[column.name].to_numpy()[rows[known]]
            if column.categories:
                code = pd.Index(column.categories).get_indexer(pd.Index(values.astype(str)))
                at = np.flatnonzero(known)[code >= 0]
                out[at, place + code[code >= 0]] = 1.0
            else:
                out[known, place] = (values.astype(np.float64) - column.mean) / column.scale
            place += column.width
        return out

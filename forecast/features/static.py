"""Static covariates as numbers: codes of categories, scaled amounts; 0 is unknown, or average."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float

from forecast.errors import MissingColumns, WrongType

MAX_CATEGORIES = 4096
"""Categories of one column beyond the most frequent ones are read as unknown."""


@dataclass(frozen=True, slots=True)
class StaticColumn:
    """How one static column is encoded, as learned from the training series."""

    name: str
    categories: tuple[str, ...]
    """Known categories; empty for a numeric column."""
    mean: float = 0.0
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class StaticSpec:
    """The static columns of a model, in order."""

    columns: tuple[StaticColumn, ...] = ()

    @property
    def sizes(self) -> tuple[int, ...]:
        """Categories of each column; 0 for a numeric one."""
        return tuple(len(column.categories) for column in self.columns)

    @classmethod
    def learn(cls, table: pd.DataFrame | None) -> "StaticSpec":
        """Take categories, means and scales from one row a series."""
        if table is None:
            return cls()
        from sklearn.preprocessing import OrdinalEncoder, StandardScaler  # learning only

        columns = []
        for name in table.columns:
            values = table[name]
            if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
                scaler = StandardScaler().fit(values.to_numpy(np.float64)[:, None])
                columns.append(
                    StaticColumn(name, (), float(scaler.mean_[0]), float(scaler.scale_[0]))
                )
            else:
                encoder = OrdinalEncoder(
                    handle_unknown="use_encoded_value",
                    unknown_value=-1,
                    max_categories=MAX_CATEGORIES + 1,
                ).fit(values.astype(str).astype(object).to_numpy()[:, None])
                rare = encoder.infrequent_categories_[0]
                known = set(encoder.categories_[0]) - set(() if rare is None else rare)
                columns.append(StaticColumn(name, tuple(sorted(known))))
        return cls(tuple(columns))

    def encode(
        self, table: pd.DataFrame | None, ids: Sequence[str]
    ) -> Float[np.ndarray, "series static"]:
        """
        One row a series of `ids`: a category's place from 1 on, a number in standard deviations.

        A series that the table lacks, and a category that is new, are 0.

        Raises:
            MissingColumns: The table lacks a static column that the model learned with.
            WrongType: A column of numbers holds text.
        """
        out = np.zeros((len(ids), len(self.columns)), np.float32)
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
        known = rows >= 0
        for place, column in enumerate(self.columns):
            values = table[column.name].to_numpy()[rows[known]]
            if column.categories:
                names = pd.Index(column.categories)
                out[known, place] = names.get_indexer(pd.Index(list(map(_text, values)))) + 1
                continue
            try:
                numbers = values.astype(np.float64)
            except (TypeError, ValueError) as error:
                raise WrongType(
                    f"static column {column.name!r} holds text: the model learned with numbers",
                    help="convert it to numbers",
                ) from error
            out[known, place] = (numbers - column.mean) / column.scale
        return out


def _text(value: object) -> str:
    """Categories that look like numbers are the same whether read as numbers or as text."""
    whole = isinstance(value, float) and value.is_integer()
    return str(int(value)) if whole else str(value)  # type: ignore[call-overload]

"""Encodes static covariates: codes of categories and scaled numbers; 0 is unknown, or average."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float

from forecast.errors import MissingColumns, WrongType

MAX_CATEGORIES = 4096
"""Most categories of a column; rarer ones are read as unknown."""


@dataclass(frozen=True, slots=True)
class StaticColumn:
    """Encoding of a static column, learned from the training series."""

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
        """Number of categories of each column; 0 for a numeric column."""
        return tuple(len(column.categories) for column in self.columns)

    @classmethod
    def learn(cls, table: pd.DataFrame | None) -> "StaticSpec":
        """Learn categories, means and scales from a table with one row for each series."""
        if table is None:
            return cls()
        from sklearn.preprocessing import OrdinalEncoder, StandardScaler  # Only training needs it.

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
        Encode the static covariates of series: categories from 1 on, numbers as z-scores.

        Series that the table lacks and unknown categories are 0.

        Raises:
            MissingColumns: The table lacks a static column of the model.
            WrongType: A numeric column holds text.
        """
        out = np.zeros((len(ids), len(self.columns)), np.float32)
        if table is None or not self.columns:
            return out
        missing = [column.name for column in self.columns if column.name not in table.columns]
        if missing:
            raise MissingColumns(
                f"static column {missing[0]!r} is missing; the model was trained with "
                f"{', '.join(column.name for column in self.columns)}",
                help="add it to static_df, one row per series",
            )
        rows = table.index.get_indexer(pd.Index(ids))
        known = rows >= 0
        for i, column in enumerate(self.columns):
            values = table[column.name].to_numpy()[rows[known]]
            if column.categories:
                names = pd.Index(column.categories)
                out[known, i] = names.get_indexer(pd.Index(list(map(_text, values)))) + 1
                continue
            try:
                numbers = values.astype(np.float64)
            except (TypeError, ValueError) as error:
                raise WrongType(
                    f"static column {column.name!r} holds text; the model was trained with numbers",
                    help="convert it to numbers",
                ) from error
            out[known, i] = (numbers - column.mean) / column.scale
        return out


def _text(value: object) -> str:
    """Return the text of a category, the same for `1`, `1.0` and `"1"`."""
    whole = isinstance(value, float) and value.is_integer()
    return str(int(value)) if whole else str(value)  # type: ignore[call-overload]

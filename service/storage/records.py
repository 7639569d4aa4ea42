"""Observations as arrays, passed between the log, the planner and the engine."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int


@dataclass(frozen=True, slots=True)
class Observations:
    """Observations as columns; by series, and by increasing stamp within each."""

    series: Int[np.ndarray, " row"]
    """Numbers of the log, rows of an engine, or indices, as the context says."""
    ds: Int[np.ndarray, " row"]
    """Nanoseconds since the epoch in UTC, or the integer step."""
    y: Float[np.ndarray, " row"]
    """Value; NaN if not observed."""
    covariates: Float[np.ndarray, "row covariate"]
    filled: Bool[np.ndarray, " row"]
    """Whether the step was filled by policy."""

    def __len__(self) -> int:
        return len(self.ds)

    def take(self, rows: Int[np.ndarray, " kept"] | Bool[np.ndarray, " row"]) -> "Observations":
        """Return some rows, in the given order."""
        return Observations(
            self.series[rows],
            self.ds[rows],
            self.y[rows],
            self.covariates[rows],
            self.filled[rows],
        )

    @classmethod
    def concat(cls, parts: Sequence["Observations"]) -> "Observations":
        """Return all parts, one after the other; at least one part is needed."""
        columns = zip(*((p.series, p.ds, p.y, p.covariates, p.filled) for p in parts), strict=True)
        return cls(*(np.concatenate(column) for column in columns))


@dataclass(frozen=True, slots=True)
class SeriesRecord:
    """A series of the log."""

    number: int
    unique_id: str
    static: Mapping[str, Any]


def nullable(y: Float[np.ndarray, " row"]) -> list[float | None]:
    """Convert numbers for SQL, with None for NaN."""
    missing = np.isnan(y)
    values: list[float | None] = y.tolist()
    for row in np.flatnonzero(missing).tolist():
        values[row] = None
    return values


def to_texts(
    covariates: Float[np.ndarray, "row covariate"], names: tuple[str, ...]
) -> Iterable[str | None]:
    """Convert the covariates of each row to a JSON object; None if the model has none."""
    if not names:
        return [None] * len(covariates)
    return [json.dumps(dict(zip(names, row, strict=True))) for row in covariates.tolist()]


def from_texts(
    texts: Sequence[str | None], rows: int, names: tuple[str, ...]
) -> Float[np.ndarray, "row covariate"]:
    """Read covariates from JSON objects, in the order of `names`; NaN if a row lacks one."""
    table = np.full((rows, len(names)), np.nan)
    for row, text in enumerate(texts):
        values = json.loads(text or "{}")
        table[row] = [values.get(name, np.nan) for name in names]
    return table


def to_json(values: Mapping[str, Any]) -> str | None:
    """Return a JSON object, or None if it would be empty."""
    return json.dumps(values, sort_keys=True) if values else None

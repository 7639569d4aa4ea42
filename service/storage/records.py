"""Observations side by side, as arrays: what the log, the planner and the engine hand on."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int


@dataclass(frozen=True, slots=True)
class Observations:
    """Observations side by side, series end to end, stamps rising."""

    series: Int[np.ndarray, " row"]
    ds: Int[np.ndarray, " row"]
    y: Float[np.ndarray, " row"]
    """NaN where not observed."""
    covariates: Float[np.ndarray, "row covariate"]
    filled: Bool[np.ndarray, " row"]

    def __len__(self) -> int:
        return len(self.ds)

    def take(self, rows: Int[np.ndarray, " kept"] | Bool[np.ndarray, " row"]) -> "Observations":
        """These rows, in this order."""
        return Observations(
            self.series[rows],
            self.ds[rows],
            self.y[rows],
            self.covariates[rows],
            self.filled[rows],
        )

    @classmethod
    def concat(cls, parts: Sequence["Observations"]) -> "Observations":
        """All parts, one after the other; at least one."""
        columns = zip(*((p.series, p.ds, p.y, p.covariates, p.filled) for p in parts), strict=True)
        return cls(*(np.concatenate(column) for column in columns))


@dataclass(frozen=True, slots=True)
class SeriesRecord:
    """One series of the log."""

    number: int
    unique_id: str
    static: Mapping[str, Any]


def nullable(y: Float[np.ndarray, " row"]) -> list[float | None]:
    """Numbers with None for NaN, as SQL wants them."""
    gone = np.isnan(y)
    values: list[float | None] = y.tolist()
    for row in np.flatnonzero(gone).tolist():
        values[row] = None
    return values


def to_texts(
    covariates: Float[np.ndarray, "row covariate"], names: tuple[str, ...]
) -> Iterable[str | None]:
    """Covariates of each row as a JSON object, or None where there are none."""
    if not names:
        return [None] * len(covariates)
    return [json.dumps(dict(zip(names, row, strict=True))) for row in covariates.tolist()]


def from_texts(
    texts: Sequence[str | None], rows: int, names: tuple[str, ...]
) -> Float[np.ndarray, "row covariate"]:
    """Covariates by name, in the order of `names`; NaN where a row lacks one."""
    table = np.full((rows, len(names)), np.nan)
    for row, text in enumerate(texts):
        values = json.loads(text or "{}")
        table[row] = [values.get(name, np.nan) for name in names]
    return table


def to_json(values: Mapping[str, Any]) -> str | None:
    """A JSON object, or None when it would be empty."""
    return json.dumps(values, sort_keys=True) if values else None

"""A batch of observations as a request gives it, and the result of storing it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int


@dataclass(frozen=True, slots=True)
class ObservationBatch:
    """Observations in the order of their request."""

    names: Sequence[str]
    """Name of the series of each item."""
    ds: Int[np.ndarray, " item"]
    y: Float[np.ndarray, " item"]
    """NaN where the value is missing."""
    covariates: Float[np.ndarray, "item covariate"]
    columns: tuple[str, ...]
    """Names of the covariates."""
    pointer: Callable[[int], str]
    """Returns the place of an item in the request, for error messages."""


@dataclass(frozen=True, slots=True)
class BatchResult:
    """The result of storing a batch."""

    status: Int[np.ndarray, " item"]
    """Index into `planner.STATUSES` of each item."""
    created: tuple[str, ...]
    """Names of the series that the batch created."""
    fills: tuple[tuple[str, int, int], ...]
    """Series, first stamp and number of steps of each gap that the fill policy filled."""

    def count(self, status: int) -> int:
        """Return the number of items with a status."""
        return int((self.status == status).sum())

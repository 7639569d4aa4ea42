"""A batch of observations, and what became of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int


@dataclass(frozen=True, slots=True)
class ObservationBatch:
    """Observations as a request gives them, in its order."""

    names: Sequence[str]
    ds: Int[np.ndarray, " item"]
    y: Float[np.ndarray, " item"]
    covariates: Float[np.ndarray, "item covariate"]
    columns: tuple[str, ...]
    """Names of the covariates."""
    pointer: Callable[[int], str]


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What became of them."""

    status: Int[np.ndarray, " item"]
    """A place in `observing.STATUSES` for each item."""
    created: tuple[str, ...]
    """Series that were not known before."""
    fills: tuple[tuple[str, int, int], ...]
    """Series, first stamp and number of the steps of each gap that the policy filled."""

    def count(self, status: int) -> int:
        """How many items have a status."""
        return int((self.status == status).sum())

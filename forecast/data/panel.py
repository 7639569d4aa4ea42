"""Many series as flat arrays: their steps end to end, with the offset at which each begins."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from forecast.data.validation import CheckedSeries


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """
    Series laid end to end; series `i` holds steps `indptr[i]` to `indptr[i + 1]`.

    Every series is regular: no step is skipped. A value that was not observed is 0 with
    `observed` False; there is no NaN.
    """

    ids: tuple[str, ...]
    indptr: Int[np.ndarray, " boundary"]
    """Offsets, one more than there are series."""
    ds: Int[np.ndarray, " time"]
    """Stamp of every step: nanoseconds since the epoch (naive UTC), or the integer step."""
    values: Float[np.ndarray, " time"]
    observed: Bool[np.ndarray, " time"]
    known_future: Float[np.ndarray, "time covariate"]
    past_only: Float[np.ndarray, "time past"]
    static: pd.DataFrame | None = None
    """One row per series, indexed by `unique_id`; encoded when a state begins."""

    @property
    def num_series(self) -> int:
        """Number of series."""
        return len(self.ids)

    @property
    def lengths(self) -> Int[np.ndarray, " series"]:
        """Number of steps of each series."""
        return np.diff(self.indptr)

    @property
    def last_ds(self) -> Int[np.ndarray, " series"]:
        """Stamp of each series' last step; no series may be empty."""
        last: np.ndarray = self.ds[self.indptr[1:] - 1]
        return last

    @classmethod
    def from_frame(cls, series: CheckedSeries) -> "Panel":
        """Build a panel from checked series, in the same order."""
        frame = series.frame
        ids = frame["unique_id"].to_numpy()
        begins = np.flatnonzero(np.r_[True, ids[1:] != ids[:-1]])
        y = frame["y"].to_numpy(dtype=np.float64)
        observed = np.isfinite(y)
        return cls(
            ids=tuple(str(name) for name in ids[begins]),
            indptr=np.r_[begins, len(ids)].astype(np.int64),
            ds=frame["ds"].to_numpy().astype(np.int64),
            values=np.where(observed, y, 0.0),
            observed=observed,
            known_future=_columns(frame, series.data.known_future),
            past_only=_columns(frame, series.data.past_only),
            static=series.static,
        )

    def take(self, rows: Sequence[int] | Int[np.ndarray, " row"]) -> "Panel":
        """Return the panel of these series, in this order."""
        rows = np.asarray(rows, np.int64)
        return self._cut(rows, np.zeros(len(rows), np.int64), self.lengths[rows])

    def head(self, lengths: Int[np.ndarray, " series"]) -> "Panel":
        """Return the first `lengths[i]` steps of each series: what was known at a cutoff."""
        rows = np.arange(self.num_series)
        return self._cut(rows, np.zeros(len(rows), np.int64), np.clip(lengths, 0, self.lengths))

    def tail(self, starts: Int[np.ndarray, " series"]) -> "Panel":
        """Return the steps of each series from `starts[i]` on."""
        starts = np.clip(starts, 0, self.lengths)
        return self._cut(np.arange(self.num_series), starts, self.lengths - starts)

    def _cut(
        self,
        rows: Int[np.ndarray, " row"],
        starts: Int[np.ndarray, " row"],
        lengths: Int[np.ndarray, " row"],
    ) -> "Panel":
        """Return `lengths[i]` steps of series `rows[i]`, beginning at its step `starts[i]`."""
        indptr = np.r_[0, np.cumsum(lengths)].astype(np.int64)
        flat = np.arange(indptr[-1]) + np.repeat(self.indptr[rows] + starts - indptr[:-1], lengths)
        return type(self)(
            ids=tuple(self.ids[row] for row in rows),
            indptr=indptr,
            ds=self.ds[flat],
            values=self.values[flat],
            observed=self.observed[flat],
            known_future=self.known_future[flat],
            past_only=self.past_only[flat],
            static=self.static,
        )


def _columns(frame: pd.DataFrame, names: tuple[str, ...]) -> Float[np.ndarray, "time column"]:
    return frame[list(names)].to_numpy(dtype=np.float32).reshape(len(frame), len(names))

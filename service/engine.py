"""
The live states of all series, in memory, and the one thread that computes with them.

States are read and replaced on that thread only, so a forecast sees each series either before or
after a batch of observations, never in between. Nothing here is durable: the log is.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int

from forecast import streaming
from forecast.bundle import Bundle
from forecast.panel import Panel
from forecast.states import States, initial_states
from service.errors import DeadlinePassed
from service.metrics import Metrics
from service.rows import Entry, Rows

T = TypeVar("T")
_ROOM = 1024


@dataclass(frozen=True, slots=True)
class Position:
    """Where the state of one series stands."""

    last_ds: int
    observations: int
    rebuilt: bool
    """Whether a replay of the log made it, with nothing observed since."""


class Compute:
    """One thread for everything that touches the network or the states."""

    def __init__(self, deadline: float, metrics: Metrics) -> None:
        self._deadline = deadline
        self._metrics = metrics
        self._pool = ThreadPoolExecutor(1, "compute", initializer=torch.set_num_threads,
                                        initargs=(1,))  # fmt: skip

    def run(self, work: Callable[[], T], *, patient: bool = False) -> T:
        """
        Do it on the compute thread, after what was asked before.

        Raises:
            DeadlinePassed: It had not ended in time; `patient` work has all the time it needs.
        """
        with self._metrics.pending.track_inprogress():
            future = self._pool.submit(self._timed, work, time.perf_counter())
            return self._wait(future, None if patient else self._deadline)

    def close(self) -> None:
        """Finish what runs, drop what waits."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _timed(self, work: Callable[[], T], asked: float) -> T:
        begun = time.perf_counter()
        self._metrics.queue_seconds.observe(begun - asked)
        try:
            return work()
        finally:
            self._metrics.compute_seconds.observe(time.perf_counter() - begun)

    def _wait(self, future: Future[T], timeout: float | None) -> T:
        try:
            return future.result(timeout)
        except FutureTimeout:
            if not future.cancel() and future.done():
                return future.result()
            raise DeadlinePassed(
                f"no answer within {timeout:g} s", help="ask for fewer series, or later"
            ) from None


class Engine:
    """
    States by the name of their series.

    Args:
        bundle: The model whose states these are.
        compute: The thread they live on.
    """

    def __init__(self, bundle: Bundle, compute: Compute) -> None:
        self.bundle = bundle
        self.digest = bundle.digest
        self.compute = compute
        self.rows: dict[str, int] = {}
        self.ids: list[str] = []
        self.numbers: list[int] = []
        """Of each row in the log."""
        self._sorted: tuple[str, ...] = ()
        self._states = initial_states(bundle, _ROOM)
        self._first_ds = np.zeros(_ROOM, np.int64)
        self._rebuilt = np.ones(_ROOM, bool)

    def __len__(self) -> int:
        return len(self.ids)

    def names(self) -> tuple[str, ...]:
        """Every series in the order of the alphabet."""
        if len(self._sorted) != len(self.ids):  # series are added, never taken away
            self._sorted = tuple(sorted(self.ids.copy()))
        return self._sorted

    def position(self, row: int) -> Position:
        """Where one series stands."""
        states = self._states
        return Position(int(states.last_ds[row]), int(states.count[row]), bool(self._rebuilt[row]))

    def spans(
        self, rows: Int[np.ndarray, " row"]
    ) -> tuple[Int[np.ndarray, " row"], Int[np.ndarray, " row"]]:
        """First and last stamp of some series."""
        return self._first_ds[rows], self._states.last_ds[rows]

    def panel(self, ids: Sequence[str], rows: Rows) -> Panel:
        """
        Lay rows out for the library; `rows.series` counts through `ids` and is rising.

        Covariates that a step lacks are 0: only steps older than the model's own roles do.
        """
        lengths = np.bincount(rows.series, minlength=len(ids))
        observed = np.isfinite(rows.y)
        covariates = np.nan_to_num(rows.covariates).astype(np.float32)
        known = len(self.bundle.config.data.known_future)
        return Panel(
            ids=tuple(ids),
            indptr=np.r_[0, np.cumsum(lengths)].astype(np.int64),
            ds=rows.ds,
            values=np.where(observed, rows.y, 0.0),
            observed=observed,
            known_future=covariates[:, :known],
            past_only=covariates[:, known:],
        )

    def begin(self, ids: Sequence[str], static: Sequence[Mapping[str, Any]]) -> States:
        """States of series of which nothing was observed yet."""
        spec = self.bundle.spec.static
        table = None
        if spec.columns and any(static):
            names = [column.name for column in spec.columns]
            told = [[facts.get(name) for name in names] for facts in static]
            known = [row for row, values in enumerate(told) if None not in values]
            table = pd.DataFrame(
                [told[row] for row in known], [ids[row] for row in known], columns=names
            )
        return initial_states(self.bundle, len(ids), spec.encode(table, ids))

    def replayed(
        self, ids: Sequence[str], static: Sequence[Mapping[str, Any]], rows: Rows
    ) -> States:
        """States after the whole history of some series, in one fused pass."""
        return streaming.observe(self.bundle, self.begin(ids, static), self.panel(ids, rows))

    def observed(self, rows: Int[np.ndarray, " series"], ids: Sequence[str], fresh: Rows) -> States:
        """States of some series after new steps; the live ones stay as they are."""
        return streaming.observe(self.bundle, self._states.take(rows), self.panel(ids, fresh))

    def commit(
        self, entries: Sequence[Entry], states: States, *, rebuilt: bool,
        first_ds: Int[np.ndarray, " series"] | None = None,
    ) -> None:  # fmt: skip
        """
        Replace some live states, and begin those of series never seen; on the compute thread.

        Args:
            entries: The series, as the log knows them.
            states: One row for each.
            rebuilt: Whether they come from a replay.
            first_ds: Where the series begin, if that is new.
        """
        known = len(self.ids)
        unseen = [entry for entry in entries if entry.unique_id not in self.rows]
        self._make_room(known + len(unseen))
        self.ids += [entry.unique_id for entry in unseen]
        self.numbers += [entry.number for entry in unseen]
        at = {entry.unique_id: known + i for i, entry in enumerate(unseen)}
        rows = [at.get(e.unique_id, self.rows.get(e.unique_id, -1)) for e in entries]
        for field in fields(States):
            if field.name != "digest":
                getattr(self._states, field.name)[rows] = getattr(states, field.name)
        self._rebuilt[rows] = rebuilt
        if first_ds is not None:
            self._first_ds[rows] = first_ds
        self.rows.update(at)

    def _make_room(self, series: int) -> None:
        room = len(self._first_ds)
        if series > room:
            more = max(room, series - room)
            blank = initial_states(self.bundle, more)
            self._states = States.concat([self._states, blank])
            self._first_ds = np.r_[self._first_ds, np.zeros(more, np.int64)]
            self._rebuilt = np.r_[self._rebuilt, np.ones(more, bool)]

    def check_horizon(self, horizon: int) -> None:
        """
        Before anything is laid out for it.

        Raises:
            UnseenHorizon: More steps than the model goes on for.
        """
        streaming.check_horizon(self.bundle, horizon)

    def snapshot(
        self, rows: Int[np.ndarray, " series"]
    ) -> tuple[States, Bool[np.ndarray, " series"]]:
        """States of some series at one moment, copied, and which of them are rebuilt."""
        return self._states.take(rows), self._rebuilt[rows]

    def forecast(
        self, states: States, horizon: int,
        known_future: Float[np.ndarray, "series horizon known"] | None,
        quantiles: tuple[float, ...],
    ) -> Float[np.ndarray, "series horizon output"]:  # fmt: skip
        """Point forecast, then one column a quantile; pure."""
        return streaming.forecast(
            self.bundle, states, horizon=horizon, known_future=known_future, quantiles=quantiles
        )

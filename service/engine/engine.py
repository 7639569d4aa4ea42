"""
The live states of all series, in memory: arrays with one row for each series.

States are read and replaced on the compute thread only, so a forecast sees each series either
before or after a batch of observations, never in between. Nothing here is durable; the log is.
This is the end of the way of an observation.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Bool, Float, Int

from forecast.bundle import Bundle
from forecast.errors import UnknownSeries, nearest
from forecast.inference import forecasting, observing
from forecast.inference.states import States, initial_states
from service.engine.executor import BatchingExecutor
from service.engine.warm_up import to_panel
from service.storage.records import Observations, SeriesRecord

BLOCK = 4096
"""Default number of rows in a block."""


@dataclass(frozen=True, slots=True)
class Position:
    """Position of the state of one series."""

    last_ds: int
    """Stamp of the last step that it has seen."""
    observations: int
    """Number of steps that it has seen."""
    rebuilt: bool
    """Whether it comes from a replay of the log and has observed nothing since."""


@dataclass(frozen=True, slots=True)
class Block:
    """A copy of the live states of one block of series."""

    batch: int
    """Last batch of the log that the states have seen."""
    numbers: Int[np.ndarray, " series"]
    """Number of each series in the log."""
    first_ds: Int[np.ndarray, " series"]
    """First stamp of each series in the log."""
    rebuilt: Bool[np.ndarray, " series"]
    states: States


class Engine:
    """
    Holds the live states of one model.

    Args:
        bundle: The model.
        executor: The thread on which states are read and replaced.
        block: Rows by which the arrays grow, and which are snapshotted together.
    """

    def __init__(self, bundle: Bundle, executor: BatchingExecutor, *, block: int = BLOCK) -> None:
        self.bundle = bundle
        self.digest = bundle.digest
        self.executor = executor
        self.block = block
        self.batch = 0
        """Last batch of the log that the states have seen."""
        self.timeline = ""
        """History of the log that the batch belongs to, as `Transaction.timeline` names it."""
        self.rows: dict[str, int] = {}
        self.ids = [""] * block
        """Name of the series in each row; empty if the row is free."""
        self.numbers = np.zeros(block, np.int64)
        """Number in the log of the series in each row; 0 if the row is free."""
        self._row_of = np.full(block, -1, np.int64)
        """Row of each number; -1 if the series has no live state."""
        self._changes = 0
        """Counts how often series were added or dropped."""
        self._sorted: tuple[int, tuple[str, ...]] = (0, ())
        """All names in order, with the value of `_changes` when they were sorted."""
        self._states = initial_states(bundle, block)
        self._first_ds = np.zeros(block, np.int64)
        self._rebuilt = np.ones(block, bool)
        self._moved = np.zeros(1, bool)
        """Per block: changed since its last copy."""

    def __len__(self) -> int:
        return len(self.rows)

    def names(self) -> tuple[str, ...]:
        """Return the names of all series in order; may be called on any thread."""
        changes, (sorted_at, names) = self._changes, self._sorted
        if sorted_at != changes:
            names = tuple(sorted(self.rows.copy()))
            # If series were added meanwhile, the next call sorts again.
            self._sorted = changes, names
        return names

    def rows_of(self, numbers: Int[np.ndarray, " series"]) -> Int[np.ndarray, " series"]:
        """Return the rows of series by number; -1 for a series without a live state."""
        known = numbers < len(self._row_of)
        return np.where(known, self._row_of[np.where(known, numbers, 0)], -1)

    def find(self, names: Iterable[str]) -> Int[np.ndarray, " series"]:
        """Return the rows of series by name; -1 for a series without a live state."""
        return np.array([self.rows.get(name, -1) for name in names], np.int64)

    def position(self, row: int) -> Position:
        """Return the position of the state in a row."""
        states = self._states
        return Position(int(states.last_ds[row]), int(states.count[row]), bool(self._rebuilt[row]))

    def spans(
        self, rows: Int[np.ndarray, " row"]
    ) -> tuple[Int[np.ndarray, " row"], Int[np.ndarray, " row"]]:
        """Return the first and last stamps of the series in rows."""
        return self._first_ds[rows], self._states.last_ds[rows]

    def observed(self, rows: Int[np.ndarray, " series"], fresh: Observations) -> States:
        """Return the states in rows advanced by new steps; the live states stay as they are."""
        ids = [self.ids[row] for row in rows.tolist()]
        return observing.observe(
            self.bundle,
            self._states.take(rows),
            to_panel(self.bundle, ids, fresh),
            pool=self.executor.pool,
        )

    def advance(self, rows: Int[np.ndarray, " series"], states: States) -> None:
        """Replace the live states in rows by those of `observed`. Call on the compute thread."""
        self._put(rows, states)
        self._rebuilt[rows] = False

    def commit(
        self, entries: Sequence[SeriesRecord], states: States, first_ds: Int[np.ndarray, " series"]
    ) -> None:
        """
        Put replayed states in place, also of new series. Call on the compute thread.

        Args:
            entries: The series.
            states: States with one row for each series.
            first_ds: First stamp of each series in the log.
        """
        unseen = [entry for entry in entries if entry.unique_id not in self.rows]
        self.make_room(len(self.rows) + len(unseen))
        free = np.flatnonzero(self.numbers == 0)[: len(unseen)]
        numbers = np.array([entry.number for entry in unseen], np.int64)
        self._name(free, numbers, [entry.unique_id for entry in unseen])
        rows = self.find([entry.unique_id for entry in entries])
        self._put(rows, states)
        self._rebuilt[rows] = True
        self._first_ds[rows] = first_ds

    def begin_at(self, rows: Int[np.ndarray, " row"], first_ds: Int[np.ndarray, " row"]) -> None:
        """Set the first stamps of pruned series. Call on the compute thread."""
        self._first_ds[rows] = first_ds
        self._moved[rows // self.block] = True

    def drop(self, names: Sequence[str]) -> None:
        """Drop the states of series. Call on the compute thread."""
        for name in names:
            row = self.rows.pop(name)
            self._moved[row // self.block] = True
            self._row_of[self.numbers[row]] = -1
            self.ids[row], self.numbers[row] = "", 0
        self._changes += 1

    def moved_blocks(self) -> list[int]:
        """Return the blocks that changed since their last copy."""
        return np.flatnonzero(self._moved).tolist()

    def copy_block(self, place: int) -> Block:
        """Copy the live states of a block. Call on the compute thread."""
        rows = place * self.block + np.flatnonzero(
            self.numbers[place * self.block : (place + 1) * self.block]
        )
        self._moved[place] = False
        return Block(
            self.batch,
            self.numbers[rows],
            self._first_ds[rows],
            self._rebuilt[rows],
            self._states.take(rows),
        )

    def not_copied(self, place: int) -> None:
        """Mark a block as changed because its last copy was lost."""
        self._moved[place] = True

    def adopt_block(self, place: int, block: Block, names: Sequence[str]) -> None:
        """Put a copied block back into its rows, which must be free."""
        self.make_room((place + 1) * self.block)
        rows = place * self.block + np.arange(len(block.numbers))
        self._name(rows, block.numbers, names)
        self._put(rows, block.states)
        self._first_ds[rows], self._rebuilt[rows] = block.first_ds, block.rebuilt
        self._moved[place] = False

    def _name(
        self,
        rows: Int[np.ndarray, " series"],
        numbers: Int[np.ndarray, " series"],
        names: Sequence[str],
    ) -> None:
        if not names:
            return
        more = int(numbers.max()) + 1 - len(self._row_of)
        if more > 0:
            more = max(len(self._row_of), more)
            self._row_of = np.r_[self._row_of, np.full(more, -1, np.int64)]
        self.numbers[rows], self._row_of[numbers] = numbers, rows
        for row, name in zip(rows.tolist(), names, strict=True):
            self.ids[row] = name
        self.rows.update(zip(names, rows.tolist(), strict=True))
        self._changes += 1

    def _put(self, rows: Int[np.ndarray, " series"], states: States) -> None:
        for field in fields(States):
            if field.name != "digest":
                getattr(self._states, field.name)[rows] = getattr(states, field.name)
        self._moved[rows // self.block] = True

    def make_room(self, series: int) -> None:
        """Make room for `series` rows; grow at least twofold. Call on the compute thread."""
        room = len(self.numbers)
        if series > room:
            more = -(-max(room, series - room) // self.block) * self.block
            before, self._states = self._states, initial_states(self.bundle, room + more)
            for field in fields(States):
                if field.name != "digest":
                    getattr(self._states, field.name)[:room] = getattr(before, field.name)
            self.ids += [""] * more
            self.numbers = np.r_[self.numbers, np.zeros(more, np.int64)]
            self._first_ds = np.r_[self._first_ds, np.zeros(more, np.int64)]
            self._rebuilt = np.r_[self._rebuilt, np.ones(more, bool)]
            self._moved = np.r_[self._moved, np.zeros(more // self.block, bool)]

    def check_horizon(self, horizon: int) -> None:
        """
        Check that the model forecasts so many steps.

        Raises:
            UnseenHorizon: It does not.
        """
        forecasting.check_horizon(self.bundle, horizon)

    def snapshot(
        self, rows: Int[np.ndarray, " series"]
    ) -> tuple[States, Bool[np.ndarray, " series"]]:
        """Copy the states in rows; also return which of them are rebuilt."""
        return self._states.take(rows), self._rebuilt[rows]

    def forecast(
        self,
        states: States,
        horizon: int,
        known_future: Float[np.ndarray, "series horizon known"] | None,
        quantiles: tuple[float, ...],
    ) -> Float[np.ndarray, "series horizon output"]:
        """Forecast from states: the point forecast, then one output for each quantile."""
        return forecasting.forecast(
            self.bundle,
            states,
            horizon=horizon,
            known_future=known_future,
            quantiles=quantiles,
            pool=self.executor.pool,
        )


def no_such_series(name: str, engine: Engine, count: int = 1) -> UnknownSeries:
    """Return the error for an unknown series, which names the nearest known one."""
    near = nearest(name, engine.names())
    more = f" and {count - 1} more" if count > 1 else ""
    return UnknownSeries(
        f"no series {name!r}{more}",
        where=f"among {len(engine):,} series",
        help=(f"did you mean {near!r}? " if near else "")
        + "GET /v1/series lists them; STATECAST_UNKNOWN_SERIES=create adds new ones",
    )

"""
The live states of all series, in memory: arrays whose rows are series.

States are read and replaced on the compute thread only, so a forecast sees each series either
before or after a batch of observations, never in between. Nothing here is durable: the log is.
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
"""Rows of a block, where nothing else is said."""


@dataclass(frozen=True, slots=True)
class Position:
    """Where the state of one series stands."""

    last_ds: int
    observations: int
    rebuilt: bool
    """Whether a replay of the log made it, with nothing observed since."""


@dataclass(frozen=True, slots=True)
class Block:
    """The live states of one block of series at one moment."""

    batch: int
    """The last batch of the log that is in them."""
    numbers: Int[np.ndarray, " series"]
    """Of each series in the log."""
    first_ds: Int[np.ndarray, " series"]
    rebuilt: Bool[np.ndarray, " series"]
    states: States


class Engine:
    """
    States by the name of their series.

    Args:
        bundle: The model whose states these are.
        executor: The thread they live on.
        block: Rows that are grown, and snapshotted, at a time.
    """

    def __init__(self, bundle: Bundle, executor: BatchingExecutor, *, block: int = BLOCK) -> None:
        self.bundle = bundle
        self.digest = bundle.digest
        self.executor = executor
        self.block = block
        self.batch = 0
        """The last batch of the log that is in the states."""
        self.timeline = ""
        """Which history of the log that is, as a transaction names it."""
        self.rows: dict[str, int] = {}
        self.ids = [""] * block
        """The name of each row; empty where the row is free."""
        self.numbers = np.zeros(block, np.int64)
        """Of each row in the log; 0 where the row is free."""
        self._row_of = np.full(block, -1, np.int64)
        """Of each number, -1 where it has no live state."""
        self._changes = 0
        """How often series came or went."""
        self._sorted: tuple[int, tuple[str, ...]] = (0, ())
        """All names in order, as they were after so many changes."""
        self._states = initial_states(bundle, block)
        self._first_ds = np.zeros(block, np.int64)
        self._rebuilt = np.ones(block, bool)
        self._moved = np.zeros(1, bool)
        """Of each block, whether it is another than when it was last copied."""

    def __len__(self) -> int:
        return len(self.rows)

    def names(self) -> tuple[str, ...]:
        """Every series in the order of the alphabet."""
        changes, (then, known) = self._changes, self._sorted
        if then != changes:
            known = tuple(sorted(self.rows.copy()))
            self._sorted = changes, known  # if some came meanwhile, the next who asks sorts again
        return known

    def rows_of(self, numbers: Int[np.ndarray, " series"]) -> Int[np.ndarray, " series"]:
        """The rows of series by their numbers in the log; -1 where there is none."""
        known = numbers < len(self._row_of)
        return np.where(known, self._row_of[np.where(known, numbers, 0)], -1)

    def find(self, names: Iterable[str]) -> Int[np.ndarray, " series"]:
        """The rows of series by their names; -1 where there is none."""
        return np.array([self.rows.get(name, -1) for name in names], np.int64)

    def position(self, row: int) -> Position:
        """Where one series stands."""
        states = self._states
        return Position(int(states.last_ds[row]), int(states.count[row]), bool(self._rebuilt[row]))

    def spans(
        self, rows: Int[np.ndarray, " row"]
    ) -> tuple[Int[np.ndarray, " row"], Int[np.ndarray, " row"]]:
        """First and last stamp of some series."""
        return self._first_ds[rows], self._states.last_ds[rows]

    def observed(self, rows: Int[np.ndarray, " series"], fresh: Observations) -> States:
        """States of some series after new steps; the live ones stay as they are."""
        ids = [self.ids[row] for row in rows.tolist()]
        return observing.observe(
            self.bundle,
            self._states.take(rows),
            to_panel(self.bundle, ids, fresh),
            pool=self.executor.pool,
        )

    def advance(self, rows: Int[np.ndarray, " series"], states: States) -> None:
        """Replace the live states of rows by those that `observed` gave; on the compute thread."""
        self._put(rows, states)
        self._rebuilt[rows] = False

    def commit(
        self, entries: Sequence[SeriesRecord], states: States, first_ds: Int[np.ndarray, " series"]
    ) -> None:
        """
        Put replayed states in place, of series that were seen or never; on the compute thread.

        Args:
            entries: The series, as the log knows them.
            states: One row for each.
            first_ds: Where the series begin.
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
        """The log of some series begins later now; on the compute thread."""
        self._first_ds[rows] = first_ds
        self._moved[rows // self.block] = True

    def drop(self, names: Sequence[str]) -> None:
        """Forget some series; on the compute thread."""
        for name in names:
            row = self.rows.pop(name)
            self._moved[row // self.block] = True
            self._row_of[self.numbers[row]] = -1
            self.ids[row], self.numbers[row] = "", 0
        self._changes += 1

    def moved_blocks(self) -> list[int]:
        """Blocks that are other than when they were last copied."""
        return np.flatnonzero(self._moved).tolist()

    def copy_block(self, place: int) -> Block:
        """The live states of one block, copied; on the compute thread."""
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
        """What was copied last of this block was lost."""
        self._moved[place] = True

    def adopt_block(self, place: int, block: Block, names: Sequence[str]) -> None:
        """Put a copied block back where it was, in an engine that has nothing there yet."""
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
        """Have rows for so many series, or twice those there were; on the compute thread."""
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
        Before anything is laid out for it.

        Raises:
            UnseenHorizon: More steps than the model goes on for.
        """
        forecasting.check_horizon(self.bundle, horizon)

    def snapshot(
        self, rows: Int[np.ndarray, " series"]
    ) -> tuple[States, Bool[np.ndarray, " series"]]:
        """States of some series at one moment, copied, and which of them are rebuilt."""
        return self._states.take(rows), self._rebuilt[rows]

    def forecast(
        self,
        states: States,
        horizon: int,
        known_future: Float[np.ndarray, "series horizon known"] | None,
        quantiles: tuple[float, ...],
    ) -> Float[np.ndarray, "series horizon output"]:
        """Point forecast, then one column a quantile; pure."""
        return forecasting.forecast(
            self.bundle,
            states,
            horizon=horizon,
            known_future=known_future,
            quantiles=quantiles,
            pool=self.executor.pool,
        )


def no_such_series(name: str, engine: Engine, count: int = 1) -> UnknownSeries:
    """The error that names the series and the nearest one there is."""
    near = nearest(name, engine.names())
    more = f" and {count - 1} more" if count > 1 else ""
    return UnknownSeries(
        f"no series {name!r}{more}",
        where=f"among {len(engine):,} series",
        help=(f"did you mean {near!r}? " if near else "")
        + "GET /v1/series lists them; STATECAST_UNKNOWN_SERIES=create begins new ones",
    )

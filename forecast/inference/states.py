"""What a model remembers of each series: one value, in rows, that goes to bytes and back."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from forecast.bundle import Bundle, load_bundle, save_bundle
from forecast.errors import DamagedBundle, NotFitted, StateError
from forecast.features.filter_state import FilterState


@dataclass(frozen=True, slots=True)
class States:
    """What a model remembers of each series, as arrays whose rows are series."""

    digest: str
    """Of the only model that may read it."""
    last_ds: Int[np.ndarray, " series"]
    """Stamp of the last step seen; meaningless where `count` is 0."""
    count: Int[np.ndarray, " series"]
    scalars: Float[np.ndarray, "series scalar"]
    rings: Float[np.ndarray, "series ring"]
    hidden: Float[np.ndarray, "series layer hidden"]
    cell: Float[np.ndarray, "series layer cell"]
    seen: Float[np.ndarray, "series seen"]
    """The last step as the network embedded it."""
    static: Float[np.ndarray, "series static"]

    @property
    def filters(self) -> FilterState:
        """What the causal filters remember, without copying it."""
        return FilterState(self.count, self.scalars, self.rings)

    def __len__(self) -> int:
        """How many series."""
        return len(self.count)

    def take(self, rows: Sequence[int] | Int[np.ndarray, " row"]) -> "States":
        """The states of these series, in this order, copied."""
        rows = np.asarray(rows, np.int64)
        return type(self)(self.digest, *(array[rows] for array in self._arrays()))

    def between(self, begin: int, end: int) -> "States":
        """The states of neighbouring series, not copied."""
        return type(self)(self.digest, *(array[begin:end] for array in self._arrays()))

    def put(self, rows: Sequence[int] | Int[np.ndarray, " row"], other: "States") -> "States":
        """A copy in which `rows[i]` is row `i` of `other`."""
        rows = np.asarray(rows, np.int64)
        copies = [array.copy() for array in self._arrays()]
        for copy, array in zip(copies, other._arrays(), strict=True):
            copy[rows] = array
        return type(self)(self.digest, *copies)

    @classmethod
    def concat(cls, parts: Sequence["States"]) -> "States":
        """All series of all parts, in order; the parts are of one model."""
        columns = zip(*(part._arrays() for part in parts), strict=True)
        return cls(parts[0].digest, *(np.concatenate(column) for column in columns))

    def is_like(self, other: "States") -> bool:
        """Whether they are of the same model, and the arrays of the same shape and kind."""
        pairs = zip(self._arrays(), other._arrays(), strict=True)
        alike = all(a.shape == b.shape and a.dtype == b.dtype for a, b in pairs)
        return self.digest == other.digest and alike

    def to_bytes(self) -> bytes:
        """Bit for bit, as safetensors with the model's digest in its header."""
        names = (f.name for f in fields(self) if f.name != "digest")
        arrays = dict(zip(names, map(np.ascontiguousarray, self._arrays()), strict=True))
        return save_arrays(arrays, metadata={"digest": self.digest})

    @classmethod
    def from_bytes(cls, data: bytes) -> "States":
        """
        Read what `to_bytes` wrote.

        Raises:
            StateError: The bytes are not a state.
        """
        try:
            arrays = load_arrays(data)
            size = int.from_bytes(data[:8], "little")
            digest = json.loads(data[8 : 8 + size])["__metadata__"]["digest"]
            return cls(digest, *(arrays[f.name] for f in fields(cls) if f.name != "digest"))
        except (SafetensorError, KeyError, ValueError, TypeError) as error:
            raise StateError(
                f"these {len(data)} bytes are not a state: {error}",
                help="rebuild the state from the observations",
            ) from error

    def _arrays(self) -> list[np.ndarray]:
        return [getattr(self, f.name) for f in fields(self) if f.name != "digest"]


def initial_states(
    bundle: Bundle, num_series: int, static: Float[np.ndarray, "series static"] | None = None
) -> States:
    """
    States of series of which nothing was observed yet.

    Args:
        bundle: The model they are for.
        num_series: How many.
        static: As `bundle.spec.static.encode` gives it; None codes every series as unknown.
    """
    model = bundle.config.model
    begun = FilterState.initial(bundle.spec.filters, num_series)
    members = model.members or 1
    layers = members * (model.window or model.num_layers)
    hidden = np.zeros((num_series, layers, model.hidden_size), np.float32)
    has_cell = model.cell == "lstm" and not model.window
    cell = np.zeros((num_series, layers, model.hidden_size if has_cell else 0), np.float32)
    seen = np.zeros((num_series, members * model.hidden_size), np.float32)
    if static is None:
        static = np.zeros((num_series, len(bundle.spec.static.columns)), np.float32)
    return States(
        bundle.digest,
        np.zeros(num_series, np.int64),
        begun.count,
        begun.scalars,
        begun.rings,
        hidden,
        cell,
        seen,
        static,
    )


STATES_NAME, SERIES_NAME = "states.safetensors", "series.json"


@dataclass(frozen=True, slots=True)
class SavedForecaster:
    """Series and where each of them stands."""

    bundle: Bundle
    states: States
    """Of the bundle; one row a series."""
    ids: tuple[str, ...]
    integer_ids: bool
    """Whether they were numbers in the user's frame."""


def save_saved(live: SavedForecaster, directory: Path, *, overwrite: bool = False) -> None:
    """
    Write the directory whole or not at all.

    Raises:
        BundleError: As `save_bundle`.
    """
    series = {"ids": list(live.ids), "integer_ids": live.integer_ids}
    beside = {STATES_NAME: live.states.to_bytes(), SERIES_NAME: json.dumps(series).encode()}
    save_bundle(live.bundle, directory, overwrite=overwrite, beside=beside)


def load_saved(directory: Path) -> SavedForecaster:
    """
    Read and verify a directory that `save_saved` wrote.

    Raises:
        NotFitted: It holds a model alone.
        BundleError: As `load_bundle`.
        DamagedBundle: The states or the names are not what was written.
    """
    bundle = load_bundle(directory)
    if not (directory / SERIES_NAME).is_file():
        raise NotFitted(
            "this bundle holds a model without the states of its series",
            where=str(directory),
            help="load it with forecast.bundle.load_bundle and warm_up on observations",
        )
    try:
        text = json.loads((directory / SERIES_NAME).read_text(encoding="utf-8"))
        ids, integer_ids = tuple(map(str, text["ids"])), bool(text["integer_ids"])
        states = States.from_bytes((directory / STATES_NAME).read_bytes())
    except (OSError, ValueError, KeyError, TypeError, StateError) as error:
        raise _damaged(f"the states of its series cannot be read: {error}", directory) from error
    if states.digest != bundle.digest:
        raise _damaged(f"the states are of model {states.digest[:12]}", directory)
    if not states.is_like(initial_states(bundle, len(ids))):
        raise _damaged(f"the states are not those of {len(ids)} series", directory)
    return SavedForecaster(bundle, states, ids, integer_ids)


def _damaged(message: str, directory: Path) -> DamagedBundle:
    return DamagedBundle(
        message,
        where=str(directory),
        help="save it again, or load its model with forecast.bundle.load_bundle and warm it up",
    )

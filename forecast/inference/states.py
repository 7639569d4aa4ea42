"""States of series as arrays, which serialise to bytes and back bit for bit."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Float, Int
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from forecast.bundle import Bundle
from forecast.errors import StateError
from forecast.features.filter_state import FilterState


@dataclass(frozen=True, slots=True)
class States:
    """The state of a model for each series, as arrays with one row per series."""

    digest: str
    """Digest of the model that made the states; no other model may read them."""
    last_ds: Int[np.ndarray, " series"]
    """Stamp of the last step seen; meaningless where `count` is 0."""
    count: Int[np.ndarray, " series"]
    """Number of steps seen."""
    scalars: Float[np.ndarray, "series scalar"]
    """State of the causal filters, with `rings`; see `FilterState`."""
    rings: Float[np.ndarray, "series ring"]
    hidden: Float[np.ndarray, "series layer hidden"]
    """Hidden state of each layer; of a model that reads windows, the steps of its window."""
    cell: Float[np.ndarray, "series layer cell"]
    """Cell state of an LSTM; of width 0 for other networks."""
    seen: Float[np.ndarray, "series seen"]
    """The last step as the network embedded it."""
    static: Float[np.ndarray, "series static"]
    """Static covariates, as codes and scaled numbers."""

    @property
    def filters(self) -> FilterState:
        """State of the causal filters; shares memory with these arrays."""
        return FilterState(self.count, self.scalars, self.rings)

    def __len__(self) -> int:
        """Return the number of series."""
        return len(self.count)

    def take(self, rows: Sequence[int] | Int[np.ndarray, " row"]) -> "States":
        """Return a copy of the states of these series, in this order."""
        rows = np.asarray(rows, np.int64)
        return type(self)(self.digest, *(array[rows] for array in self._arrays()))

    def between(self, begin: int, end: int) -> "States":
        """Return the states of series `begin` to `end - 1` as views, without copying them."""
        return type(self)(self.digest, *(array[begin:end] for array in self._arrays()))

    def put(self, rows: Sequence[int] | Int[np.ndarray, " row"], other: "States") -> "States":
        """Return a copy in which row `rows[i]` is row `i` of `other`."""
        rows = np.asarray(rows, np.int64)
        copies = [array.copy() for array in self._arrays()]
        for copy, array in zip(copies, other._arrays(), strict=True):
            copy[rows] = array
        return type(self)(self.digest, *copies)

    @classmethod
    def concat(cls, parts: Sequence["States"]) -> "States":
        """Join states of one model: the series of all parts, in order."""
        columns = zip(*(part._arrays() for part in parts), strict=True)
        return cls(parts[0].digest, *(np.concatenate(column) for column in columns))

    def is_like(self, other: "States") -> bool:
        """Return True if both are of one model and their arrays have equal shapes and dtypes."""
        pairs = zip(self._arrays(), other._arrays(), strict=True)
        equal = all(a.shape == b.shape and a.dtype == b.dtype for a, b in pairs)
        return self.digest == other.digest and equal

    def to_bytes(self) -> bytes:
        """Return the states as safetensors, bit for bit, with the model's digest in the header."""
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
            header_size = int.from_bytes(data[:8], "little")
            digest = json.loads(data[8 : 8 + header_size])["__metadata__"]["digest"]
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
    Return states of series of which nothing has been observed yet.

    Args:
        bundle: The model that the states are for.
        num_series: Number of series.
        static: Static covariates as `bundle.spec.static.encode` returns them; None codes every
            series as unknown.
    """
    model = bundle.config.model
    filters = FilterState.initial(bundle.spec.filters, num_series)
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
        filters.count,
        filters.scalars,
        filters.rings,
        hidden,
        cell,
        seen,
        static,
    )

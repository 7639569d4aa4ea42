"""
A model and the states of its series, saved as one directory.

The directory is a bundle with two more files: `states.safetensors` and `series.json`, which holds
the names of the series in the order of the states.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from forecast.bundle import Bundle, load_bundle, save_bundle
from forecast.errors import DamagedBundle, NotFitted, StateError
from forecast.inference.states import States, initial_states

STATES_NAME, SERIES_NAME = "states.safetensors", "series.json"


@dataclass(frozen=True, slots=True)
class SavedForecaster:
    """A model, its series and the state of each."""

    bundle: Bundle
    states: States
    """States made by `bundle`, one row for each name in `ids`."""
    ids: tuple[str, ...]
    integer_ids: bool
    """True if the names were integers in the user's table."""


def save_forecaster(saved: SavedForecaster, directory: Path, *, overwrite: bool = False) -> None:
    """
    Write the directory whole or not at all.

    Raises:
        BundleError: As `save_bundle`.
    """
    series = {"ids": list(saved.ids), "integer_ids": saved.integer_ids}
    files = {STATES_NAME: saved.states.to_bytes(), SERIES_NAME: json.dumps(series).encode()}
    save_bundle(saved.bundle, directory, overwrite=overwrite, extra_files=files)


def load_forecaster(directory: Path) -> SavedForecaster:
    """
    Read and verify a directory that `save_forecaster` wrote.

    Raises:
        NotFitted: The directory holds a model without states.
        BundleError: As `load_bundle`.
        DamagedBundle: The states or the names are not those that were written.
    """
    bundle = load_bundle(directory)
    if not (directory / SERIES_NAME).is_file():
        raise NotFitted(
            "this bundle holds a model without the states of its series",
            where=str(directory),
            help="load it with statecast.load_bundle and warm_up on observations",
        )
    try:
        series = json.loads((directory / SERIES_NAME).read_text(encoding="utf-8"))
        ids, integer_ids = tuple(map(str, series["ids"])), bool(series["integer_ids"])
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
        help="save it again, or load its model with statecast.load_bundle and warm it up",
    )

"""
A model with the states of its series, as one directory: a bundle and two files more.

    states.safetensors   what the model remembers of each series
    series.json          their names, in the same order
"""

import json
from dataclasses import dataclass
from pathlib import Path

from forecast.bundle import Bundle, load_bundle, save_bundle
from forecast.errors import DamagedBundle, NotFitted, StateError
from forecast.states import States, initial_states

STATES_NAME, SERIES_NAME = "states.safetensors", "series.json"


@dataclass(frozen=True, slots=True)
class Live:
    """Series and where each of them stands."""

    bundle: Bundle
    states: States
    """Of the bundle; one row a series."""
    ids: tuple[str, ...]
    integer_ids: bool
    """Whether they were numbers in the user's frame."""


def save_live(live: Live, directory: Path, *, overwrite: bool = False) -> None:
    """
    Write the directory whole or not at all.

    Raises:
        BundleError: As `save_bundle`.
    """
    series = {"ids": list(live.ids), "integer_ids": live.integer_ids}
    beside = {STATES_NAME: live.states.to_bytes(), SERIES_NAME: json.dumps(series).encode()}
    save_bundle(live.bundle, directory, overwrite=overwrite, beside=beside)


def load_live(directory: Path) -> Live:
    """
    Read and verify a directory that `save_live` wrote.

    Raises:
        NotFitted: It holds a model alone.
        BundleError: As `load_bundle`.
        DamagedBundle: The states or the names are not what was written.
    """
    bundle = load_bundle(directory)
    if not (directory / SERIES_NAME).is_file():
        raise NotFitted(
            "this bundle holds a model without the states of its series", where=str(directory),
            help="load it with forecast.bundle.load_bundle and warm_up on observations",
        )  # fmt: skip
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
    return Live(bundle, states, ids, integer_ids)


def _damaged(message: str, directory: Path) -> DamagedBundle:
    return DamagedBundle(
        message, where=str(directory),
        help="save it again, or load its model with forecast.bundle.load_bundle and warm it up",
    )  # fmt: skip

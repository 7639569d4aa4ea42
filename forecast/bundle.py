"""
A trained model as a value, and as a directory: JSON and safetensors, with digests, no pickle.

    bundle.json           format version, settings, facts, scores, digest of the weights
    weights.safetensors   weights of the network and factors of the calibration

A bundle is read only when every byte is what was written; it holds no code and no data.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from forecast.calendars.calendar import Calendar
from forecast.config import Config
from forecast.errors import BundleError, DamagedBundle, NewerBundle
from forecast.features.inputs import InputSpec, make_spec
from forecast.features.static import StaticColumn, StaticSpec
from forecast.files import write_directory
from forecast.models.ensemble import Ensemble
from forecast.models.network import Network, make_network

VERSION = 3
JSON_NAME, WEIGHTS_NAME = "bundle.json", "weights.safetensors"
MAX_BYTES = 256 * 2**20
"""Of a file of a bundle: what is larger is neither written nor read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A trained forecaster: everything a forecast depends on beside the observations."""

    config: Config
    """Nothing in it is left open."""
    spec: InputSpec
    network: Network | Ensemble
    factors: Float[np.ndarray, "two horizon upper"]
    """Of the calibration."""
    correlation: float = 0.0
    """Of the normal scores of neighbouring steps ahead: ties the steps of a sample path."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What it was trained on: series, rows, cutoff, digest of the data, seed."""
    scores: dict[str, float] = field(default_factory=dict)
    """Backtest scores of the run, if there was one."""
    digest: str = field(init=False)
    """Hex SHA-256 of settings and weights: the identity that states carry."""

    def __post_init__(self) -> None:
        digest = hashlib.sha256(json.dumps(_settings(self), sort_keys=True).encode())
        digest.update(_weights(self))
        object.__setattr__(self, "digest", digest.hexdigest())

    @property
    def calendar(self) -> Calendar:
        """Of the series it forecasts."""
        return self.spec.calendar

    @property
    def horizon(self) -> int:
        """Most steps ahead it forecasts."""
        assert self.config.model.horizon is not None
        return self.config.model.horizon


def save_bundle(
    bundle: Bundle,
    directory: Path,
    *,
    overwrite: bool = False,
    beside: Mapping[str, bytes] = MappingProxyType({}),
) -> None:
    """
    Write the directory whole or not at all.

    Args:
        bundle: The model.
        directory: Where it goes.
        overwrite: Whether a bundle that is there gives way.
        beside: More files, by name.

    Raises:
        BundleError: It is there already and `overwrite` is False, or it is there and no bundle, or
            it would be too large to be read.
    """
    directory = Path(directory)
    if directory.exists() and overwrite and not (directory / JSON_NAME).is_file():
        raise BundleError(
            "what would be overwritten is no bundle",
            where=str(directory),
            help="choose another directory, or remove this one yourself",
        )
    if directory.exists() and not overwrite:
        raise BundleError(
            "there is something in the way",
            where=str(directory),
            help="choose another directory, or pass overwrite=True",
        )
    weights = _weights(bundle)
    text = {
        "version": VERSION,
        **_settings(bundle),
        "facts": bundle.facts,
        "scores": bundle.scores,
        "digest": bundle.digest,
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
    }
    told = json.dumps(text, indent=1, sort_keys=True).encode()
    files = {**beside, WEIGHTS_NAME: weights, JSON_NAME: told}
    for name in (WEIGHTS_NAME, JSON_NAME):
        if len(files[name]) > MAX_BYTES:
            raise BundleError(
                f"{name} would have {len(files[name]):,} bytes, more than the {MAX_BYTES:,} that "
                "are read",
                where=str(directory),
                help="train with fewer members, a smaller hidden_size or fewer static categories",
            )
    write_directory(directory, files)


def read_digest(directory: Path | str) -> str:
    """
    The digest that a directory says its bundle has; nothing is verified.

    Raises:
        BundleError: There is no bundle at this place, or its JSON cannot be read.
    """
    try:
        return str(json.loads(_read(Path(directory) / JSON_NAME))["digest"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BundleError(
            f"no bundle can be read here: {error}",
            where=str(directory),
            help="give the directory that `statecast train` or Forecaster.save wrote",
        ) from error


def load_bundle(directory: Path | str) -> Bundle:
    """
    Read and verify a directory that `save_bundle` wrote.

    Raises:
        BundleError: There is no bundle at this place.
        DamagedBundle: A file is missing, truncated or altered.
        NewerBundle: Written in a format this version does not read.
    """
    directory = Path(directory)
    if not (directory / JSON_NAME).is_file():
        raise BundleError(
            f"no bundle here: {JSON_NAME} is missing",
            where=str(directory),
            help="give the directory that `statecast train` or Forecaster.save wrote",
        )
    try:
        text = json.loads(_read(directory / JSON_NAME))
        weights = _read(directory / WEIGHTS_NAME)
    except (OSError, ValueError) as error:
        raise DamagedBundle(f"cannot be read: {error}", where=str(directory)) from error
    if not isinstance(text, dict):
        raise DamagedBundle(f"{JSON_NAME} holds no object", where=str(directory))
    if text.get("version") != VERSION:
        raise NewerBundle(
            f"format version {text.get('version')} is not {VERSION}, the one this version reads",
            where=str(directory),
            help="use the release that wrote it, or train again",
        )
    found = hashlib.sha256(weights).hexdigest()
    if found != text.get("weights_sha256"):
        raise DamagedBundle(
            f"{WEIGHTS_NAME} was altered or cut short: SHA-256 expected "
            f"{text.get('weights_sha256')}, found {found}",
            where=str(directory),
            help="fetch or save the bundle again",
        )
    try:
        bundle = _assemble(text, load_tensors(weights))
    except (KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        raise DamagedBundle(f"does not fit together: {error}", where=str(directory)) from error
    if bundle.digest != text["digest"]:
        raise DamagedBundle(
            f"{JSON_NAME} was altered: digest expected {text['digest']}, found {bundle.digest}",
            where=str(directory),
            help="fetch or save the bundle again",
        )
    return bundle


def _assemble(text: dict[str, Any], tensors: dict[str, Tensor]) -> Bundle:
    config = Config.from_dict(text["config"])
    assert config.data.freq is not None
    columns = tuple(
        StaticColumn(c["name"], tuple(c["categories"]), c["mean"], c["scale"])
        for c in text["static"]
    )
    spec = make_spec(
        config,
        Calendar(config.data.freq),
        StaticSpec(columns),
        space=text["space"],
        annual=text["annual"],
        floors=tuple(text["floors"]),
        common=tuple(text["common"]),
        smoothers=text.get("smoothers", False),
        changes=text.get("changes", False),
    )
    networks = [make_network(config, spec) for _ in range(config.model.members or 1)]
    network = networks[0] if len(networks) == 1 else Ensemble(networks)
    factors = tensors.pop("calibration.factors").numpy()
    network.load_state_dict(tensors)
    return Bundle(
        config=config,
        spec=spec,
        network=network.eval(),
        factors=factors,
        correlation=text["correlation"],
        facts=text["facts"],
        scores=text["scores"],
    )


def _settings(bundle: Bundle) -> dict[str, Any]:
    return {
        "config": bundle.config.to_dict(),
        "space": bundle.spec.filters.space,
        "correlation": bundle.correlation,
        "annual": bundle.spec.annual,
        "floors": list(bundle.spec.floors),
        "common": [i not in bundle.spec.filters.raw for i in range(bundle.spec.filters.num_known)],
        "static": [dataclasses.asdict(column) for column in bundle.spec.static.columns],
        **({"smoothers": True} if bundle.spec.filters.smoothers else {}),
        **({"changes": True} if bundle.spec.changes else {}),
    }


def _read(path: Path) -> bytes:
    if (size := path.stat().st_size) > MAX_BYTES:
        raise ValueError(f"{path.name} has {size:,} bytes, more than {MAX_BYTES:,}")
    return path.read_bytes()


def _weights(bundle: Bundle) -> bytes:
    tensors = {name: value.contiguous() for name, value in bundle.network.state_dict().items()}
    factors = torch.from_numpy(np.ascontiguousarray(bundle.factors, np.float64))
    return save_tensors({**tensors, "calibration.factors": factors})

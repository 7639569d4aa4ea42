"""
The trained model as a value, and its directory on disk: JSON and safetensors with digests.

    bundle.json           format version, settings, facts, scores, digests
    weights.safetensors   weights of the network and factors of the calibration

Loading verifies every byte against the digests. A bundle holds no pickle, no code and no training
data.
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
from forecast.errors import BundleError, DamagedBundle, NewerBundle
from forecast.features.inputs import InputSpec, make_spec
from forecast.features.static import StaticColumn, StaticSpec
from forecast.files import write_directory
from forecast.models.contract import ForecastNetwork
from forecast.models.ensemble import Ensemble
from forecast.models.network import make_network
from forecast.resolved_config import ResolvedConfig

VERSION = 3
JSON_NAME, WEIGHTS_NAME = "bundle.json", "weights.safetensors"
MAX_BYTES = 256 * 2**20
"""Largest size of a file in a bundle. Larger files are neither written nor read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A trained model: everything that a forecast depends on, except the observations."""

    config: ResolvedConfig
    spec: InputSpec
    network: ForecastNetwork
    factors: Float[np.ndarray, "two horizon upper"]
    """Calibration factors of the quantiles' distances from the median: [0] below, [1] above it."""
    correlation: float = 0.0
    """Correlation of the normal scores of neighbouring steps ahead, used for sample paths."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Facts about the training: series, rows, cutoff, digest of the data, seed."""
    scores: dict[str, float] = field(default_factory=dict)
    """Backtest scores of the training run; empty if it ran no backtest."""
    digest: str = field(init=False)
    """Hex SHA-256 of settings and weights. States carry it to name the model they belong to."""

    def __post_init__(self) -> None:
        digest = hashlib.sha256(json.dumps(_settings(self), sort_keys=True).encode())
        digest.update(_weights(self))
        object.__setattr__(self, "digest", digest.hexdigest())

    @property
    def calendar(self) -> Calendar:
        """Calendar of the time stamps."""
        return self.spec.calendar

    @property
    def horizon(self) -> int:
        """Largest horizon the model was trained for, in steps."""
        return self.config.model.horizon


def save_bundle(
    bundle: Bundle,
    directory: Path,
    *,
    overwrite: bool = False,
    extra_files: Mapping[str, bytes] = MappingProxyType({}),
) -> None:
    """
    Write a bundle to a directory, whole or not at all.

    Args:
        bundle: The model to save.
        directory: Directory to create; missing parents are created.
        overwrite: Replace a bundle that already exists there.
        extra_files: Contents of further files to write into the directory, by file name.

    Raises:
        BundleError: The directory exists and `overwrite` is False, or it exists and is not a
            bundle, or a file would exceed the largest size that is read.
    """
    directory = Path(directory)
    if directory.exists() and overwrite and not (directory / JSON_NAME).is_file():
        raise BundleError(
            "the directory to overwrite is not a bundle",
            where=str(directory),
            help="choose another directory, or remove this one yourself",
        )
    if directory.exists() and not overwrite:
        raise BundleError(
            "the directory already exists",
            where=str(directory),
            help="choose another directory, or pass overwrite=True",
        )
    weights = _weights(bundle)
    contents = {
        "version": VERSION,
        **_settings(bundle),
        "facts": bundle.facts,
        "scores": bundle.scores,
        "digest": bundle.digest,
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
    }
    text = json.dumps(contents, indent=1, sort_keys=True).encode()
    files = {**extra_files, WEIGHTS_NAME: weights, JSON_NAME: text}
    for name in (WEIGHTS_NAME, JSON_NAME):
        if len(files[name]) > MAX_BYTES:
            raise BundleError(
                f"{name} would have {len(files[name]):,} bytes; at most {MAX_BYTES:,} are read",
                where=str(directory),
                help="train with fewer members, a smaller hidden_size or fewer static categories",
            )
    write_directory(directory, files)


def read_digest(directory: Path | str) -> str:
    """
    Return the digest noted in a bundle's directory, without verifying the files.

    Raises:
        BundleError: The directory holds no bundle, or its JSON cannot be read.
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
        BundleError: The directory holds no bundle.
        DamagedBundle: A file is missing, truncated or altered.
        NewerBundle: The bundle has a format version that this release does not read.
    """
    directory = Path(directory)
    if not (directory / JSON_NAME).is_file():
        raise BundleError(
            f"no bundle here: {JSON_NAME} is missing",
            where=str(directory),
            help="give the directory that `statecast train` or Forecaster.save wrote",
        )
    try:
        contents = json.loads(_read(directory / JSON_NAME))
        weights = _read(directory / WEIGHTS_NAME)
    except (OSError, ValueError) as error:
        raise DamagedBundle(f"cannot be read: {error}", where=str(directory)) from error
    if not isinstance(contents, dict):
        raise DamagedBundle(f"{JSON_NAME} is not a JSON object", where=str(directory))
    if contents.get("version") != VERSION:
        raise NewerBundle(
            f"format version {contents.get('version')} is not {VERSION}, the one this version "
            "reads",
            where=str(directory),
            help="use the release that wrote it, or train again",
        )
    sha256 = hashlib.sha256(weights).hexdigest()
    if sha256 != contents.get("weights_sha256"):
        raise DamagedBundle(
            f"{WEIGHTS_NAME} was altered or cut short: SHA-256 expected "
            f"{contents.get('weights_sha256')}, found {sha256}",
            where=str(directory),
            help="fetch or save the bundle again",
        )
    try:
        bundle = _assemble(contents, load_tensors(weights))
    except (KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        raise DamagedBundle(
            f"the contents do not fit together: {error}", where=str(directory)
        ) from error
    if bundle.digest != contents["digest"]:
        raise DamagedBundle(
            f"{JSON_NAME} was altered: digest expected {contents['digest']}, found {bundle.digest}",
            where=str(directory),
            help="fetch or save the bundle again",
        )
    return bundle


def _assemble(contents: dict[str, Any], tensors: dict[str, Tensor]) -> Bundle:
    """Build the bundle from the contents of its JSON file and its weights."""
    config = ResolvedConfig.from_dict(contents["config"])
    columns = tuple(
        StaticColumn(column["name"], tuple(column["categories"]), column["mean"], column["scale"])
        for column in contents["static"]
    )
    spec = make_spec(
        config,
        Calendar(config.data.freq),
        StaticSpec(columns),
        space=contents["space"],
        annual=contents["annual"],
        floors=tuple(contents["floors"]),
        common=tuple(contents["common"]),
        smoothers=contents.get("smoothers", False),
        changes=contents.get("changes", False),
    )
    networks = [make_network(config, spec) for _ in range(config.model.members)]
    network = networks[0] if len(networks) == 1 else Ensemble(networks)
    factors = tensors.pop("calibration.factors").numpy()
    network.load_state_dict(tensors)
    return Bundle(
        config=config,
        spec=spec,
        network=network.eval(),
        factors=factors,
        correlation=contents["correlation"],
        facts=contents["facts"],
        scores=contents["scores"],
    )


def _settings(bundle: Bundle) -> dict[str, Any]:
    """
    Return the part of the JSON file that the digest covers, beside the weights.

    A key that earlier releases did not write appears only if it is set, so that the digests of
    their bundles stay the same.
    """
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
    """Read a file; raises `ValueError` if it is larger than `MAX_BYTES`."""
    if (size := path.stat().st_size) > MAX_BYTES:
        raise ValueError(f"{path.name} has {size:,} bytes, more than {MAX_BYTES:,}")
    return path.read_bytes()


def _weights(bundle: Bundle) -> bytes:
    """Return the content of the weights file."""
    tensors = {name: value.contiguous() for name, value in bundle.network.state_dict().items()}
    factors = torch.from_numpy(np.ascontiguousarray(bundle.factors, np.float64))
    return save_tensors({**tensors, "calibration.factors": factors})

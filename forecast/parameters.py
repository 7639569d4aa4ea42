"""
Settings of a configuration by nested names, such as `config__train__max_steps`.

scikit-learn names a parameter of a parameter in this way, in `set_params` and in grid searches.
"""

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import numpy as np

from forecast.config import Config

PREFIX = "config__"


def nested_parameters(config: Config) -> dict[str, Any]:
    """
    Return every setting of a configuration by its nested name.

    >>> nested_parameters(Config())["config__model__hidden_size"]
    64
    """
    return {
        f"{PREFIX}{section.name}__{setting.name}": getattr(table, setting.name)
        for section in fields(config)
        for table in (getattr(config, section.name),)
        for setting in fields(table)
    }


def replace_nested(config: Config, parameters: Mapping[str, Any]) -> Config:
    """
    Return a copy of a configuration with some settings changed.

    Args:
        config: The configuration to start from.
        parameters: New values by nested name; every name is one that `nested_parameters` gives.

    Raises:
        ConfigError: The settings contradict themselves.

    >>> replace_nested(Config(), {"config__model__hidden_size": 8}).model.hidden_size
    8
    """
    changes: dict[str, dict[str, Any]] = {}
    for name, value in parameters.items():
        section, setting = name.removeprefix(PREFIX).split("__", 1)
        changes.setdefault(section, {})[setting] = to_python(value)
    # Each section is built anew, so that its checks run.
    sections = {name: replace(getattr(config, name), **part) for name, part in changes.items()}
    return replace(config, **sections)


def to_python(value: Any) -> Any:
    """
    Return a NumPy scalar as a Python number, which JSON can hold; anything else as it is.

    >>> to_python(np.int64(6)), to_python("gru")
    (6, 'gru')
    """
    return value.item() if isinstance(value, np.generic) else value

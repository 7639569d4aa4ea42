"""
Stateful recurrent forecasting of many series: the library.

Every name in `__all__` is imported when it is first used, so that `import forecast` loads neither
PyTorch nor pandas. `statecast` exports the same names.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from forecast.bundle import Bundle, load_bundle, save_bundle
    from forecast.calendars.calendar import Calendar
    from forecast.config import Config, DataConfig, ModelConfig, TrainConfig
    from forecast.data import ohlc
    from forecast.data.io import read_table
    from forecast.data.panel import Panel
    from forecast.data.validation import validate
    from forecast.errors import (
        BundleError,
        CheckpointError,
        ConfigError,
        DataError,
        ForecastError,
        ModelSourceError,
        NotFitted,
        PortInUse,
        StateError,
        UnknownQuantile,
        UnknownSeries,
        UnseenHorizon,
    )
    from forecast.evaluation import baselines, metrics
    from forecast.evaluation.backtest import backtest
    from forecast.forecaster import Forecaster
    from forecast.inference.forecasting import forecast
    from forecast.inference.observing import observe, warm_up
    from forecast.inference.states import States
    from forecast.training.train import train

    __version__: str

__all__ = [
    "Bundle",
    "BundleError",
    "Calendar",
    "CheckpointError",
    "Config",
    "ConfigError",
    "DataConfig",
    "DataError",
    "ForecastError",
    "Forecaster",
    "ModelConfig",
    "ModelSourceError",
    "NotFitted",
    "Panel",
    "PortInUse",
    "StateError",
    "States",
    "TrainConfig",
    "UnknownQuantile",
    "UnknownSeries",
    "UnseenHorizon",
    "__version__",
    "backtest",
    "baselines",
    "forecast",
    "load_bundle",
    "metrics",
    "observe",
    "ohlc",
    "read_table",
    "save_bundle",
    "train",
    "validate",
    "warm_up",
]

_EXPORTS = {
    "forecast.bundle": ("Bundle", "load_bundle", "save_bundle"),
    "forecast.calendars.calendar": ("Calendar",),
    "forecast.config": ("Config", "DataConfig", "ModelConfig", "TrainConfig"),
    "forecast.data.io": ("read_table",),
    "forecast.data.panel": ("Panel",),
    "forecast.data.validation": ("validate",),
    "forecast.errors": (
        "BundleError",
        "CheckpointError",
        "ConfigError",
        "DataError",
        "ForecastError",
        "ModelSourceError",
        "NotFitted",
        "PortInUse",
        "StateError",
        "UnknownQuantile",
        "UnknownSeries",
        "UnseenHorizon",
    ),
    "forecast.evaluation.backtest": ("backtest",),
    "forecast.forecaster": ("Forecaster",),
    "forecast.inference.forecasting": ("forecast",),
    "forecast.inference.observing": ("observe", "warm_up"),
    "forecast.inference.states": ("States",),
    "forecast.training.train": ("train",),
}
"""Exported classes and functions, by the module that defines them."""
_MODULES = ("forecast.data.ohlc", "forecast.evaluation.baselines", "forecast.evaluation.metrics")
"""Modules exported whole, under their last name."""

if not TYPE_CHECKING:  # a type checker would accept any name of a module with __getattr__

    def __getattr__(name: str) -> Any:
        """Import an exported name when it is first used, and keep it."""
        if name == "__version__":
            from importlib.metadata import version

            value: Any = version("statecast")
        elif module := next((m for m in _MODULES if m.endswith(f".{name}")), None):
            value = import_module(module)
        elif module := next((m for m, names in _EXPORTS.items() if name in names), None):
            value = getattr(import_module(module), name)
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    """List the exported names, whether or not they are imported yet."""
    return __all__

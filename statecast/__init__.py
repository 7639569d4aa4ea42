"""
The public interface of Statecast: the names that `forecast` exports, imported when first used.

>>> from statecast import Config, Forecaster
>>> Forecaster(h=12, config=Config())
Forecaster(h=12, freq=None), not fitted
"""

from typing import TYPE_CHECKING, Any

import forecast as _forecast

__all__ = _forecast.__all__

if TYPE_CHECKING:
    from forecast import *  # noqa: F403 - at run time this would import everything
else:

    def __getattr__(name: str) -> Any:
        """Return an exported name, importing it if this is its first use."""
        if name in __all__:
            return getattr(_forecast, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """List the exported names."""
    return __all__

"""Which of many names was probably meant, where there is none of that name."""

import difflib
from bisect import bisect_left
from collections.abc import Sequence

from forecast.errors import UnknownSeries
from service.engine import Engine

_LOOKED_THROUGH = 400
"""Names that are compared, each of which may take a fifth of a millisecond."""
_LONGEST = 200


def nearest(name: str, names: Sequence[str]) -> str | None:
    """
    The one that is most like it; of many, among those that begin alike.

    Args:
        name: That there is not.
        names: In the order of the alphabet, if there are many.

    >>> nearest("stroe-7", ("store-6", "store-7")), nearest("x", ("store-7",))
    ('store-7', None)
    """
    if len(names) > _LOOKED_THROUGH:
        at = bisect_left(names, name)
        names = names[max(0, at - _LOOKED_THROUGH // 2) : at + _LOOKED_THROUGH // 2]
    found = difflib.get_close_matches(name, names, n=1) if len(name) <= _LONGEST else []
    return found[0] if found else None


def no_such_series(name: str, engine: Engine, count: int = 1) -> UnknownSeries:
    """The error that names the series and the nearest one there is."""
    near = nearest(name, engine.names())
    more = f" and {count - 1} more" if count > 1 else ""
    return UnknownSeries(
        f"no series {name!r}{more}", where=f"among {len(engine):,} series",
        help=(f"did you mean {near!r}? " if near else "")
        + "GET /v1/series lists them; STATECAST_UNKNOWN_SERIES=create begins new ones",
    )  # fmt: skip

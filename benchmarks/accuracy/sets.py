"""
The data sets of the benchmarks by name, each read and cut at its cutoff.

    case = load("rossmann", Path("DATA"))

`val=True` drops the last horizon and tests on the one before it: use it to make choices, and the
test only for the final number.
"""

from pathlib import Path

from benchmarks.accuracy import m4
from benchmarks.accuracy.cases import Case, cut
from benchmarks.accuracy.m5_set import read_m5
from benchmarks.accuracy.retail_sets import SETS
from benchmarks.records import find_folder

NAMES: tuple[str, ...] = (*(f"m4_{name}" for name in m4.CASES), *SETS, "m5")


def load(name: str, data: Path, *, val: bool = False) -> Case:
    """
    Read a set and cut it at its cutoff, or with `val` one horizon earlier.

    Args:
        name: One of `NAMES`.
        data: The folder that holds the folders of the sets.
        val: Leave out the test and hold out the horizon before it.

    Raises:
        SystemExit: There is no such set or no folder of it.
    """
    if name not in NAMES:
        raise SystemExit(f"unknown case {name!r}; choose from: {', '.join(NAMES)}")
    if name.startswith("m4_"):
        return _m4(name, data, val=val)
    if name == "m5":
        return read_m5(find_folder(data, name), val=val)
    return cut(SETS[name](find_folder(data, name)), val=val)


def _m4(name: str, data: Path, *, val: bool) -> Case:
    """Read one frequency of M4, whose steps have no dates."""
    case = m4.CASES[name.removeprefix("m4_")]
    train, test = m4.load(find_folder(data, "m4"), case, val=val)
    return Case(
        name=name,
        train=train[["unique_id", "ds", "y"]],
        test=test[["unique_id", "ds", "y"]],
        freq=1,
        horizon=case.horizon,
        season_length=case.season_length,
        seasons=case.seasons,
    )

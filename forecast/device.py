"""The cores of the machine that are ours."""

import os


def usable_cores() -> int:
    """How many this process may use: a container or `taskset` can allow fewer than there are."""
    linux = hasattr(os, "sched_getaffinity")
    return len(os.sched_getaffinity(0)) if linux else os.cpu_count() or 1

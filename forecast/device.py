"""CPU cores that this process may use."""

import os


def usable_cores() -> int:
    """Return the number of CPU cores; a container or `taskset` may allow fewer than there are."""
    if hasattr(os, "sched_getaffinity"):  # Linux only
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1

"""Memory: how much is free for this process, and giving back what it no longer needs."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def free_bytes() -> int:
    """Return how many bytes this process can still use.

    The smallest of what the machine has free, what a container or a batch system leaves (control
    groups), and what limits of the process leave (``ulimit -v`` and ``-d``).

    Examples
    --------
    >>> free_bytes() > 0
    True
    """
    import psutil

    found = [int(psutil.virtual_memory().available), *_of_limits(), *_of_groups()]
    return max(0, min(found))


def give_back() -> None:
    """Free what only cycles of references hold, and return free pieces of the heap to the system.

    glibc keeps what threads have freed for their next allocations: without this a process that
    works on one image after the other seems to grow.
    """
    gc.collect()
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL("libc.so.6").malloc_trim(0)


def _of_limits() -> list[int]:
    """Return what limits of the process leave of address space and of data."""
    try:
        import resource
    except ImportError:  # Windows
        return []
    import psutil

    try:
        used = psutil.Process().memory_info()
    except psutil.Error:
        return []
    found = []
    for name, field in (("RLIMIT_AS", "vms"), ("RLIMIT_DATA", "data")):
        limit = resource.getrlimit(getattr(resource, name))[0]
        if limit != resource.RLIM_INFINITY:
            # Where data are not counted, resident memory is the nearest to it.
            found.append(int(limit) - int(getattr(used, field, used.rss)))
    return found


def _of_groups(root: Path = _CGROUP) -> list[int]:
    """Return what the control group of the process leaves, version 2 or 1."""
    found = []
    for limit, used, stat, cache in (
        ("memory.max", "memory.current", "memory.stat", "inactive_file"),
        (
            "memory/memory.limit_in_bytes",
            "memory/memory.usage_in_bytes",
            "memory/memory.stat",
            "total_inactive_file",
        ),
    ):
        try:
            most = (root / limit).read_text().strip()
            taken = int((root / used).read_text())
            lines = dict(x.split() for x in (root / stat).read_text().splitlines())
        except (OSError, ValueError):
            continue
        if most.isdigit() and int(most) < 2**60:  # version 1 says "none" by a huge number
            found.append(int(most) - max(taken - int(lines.get(cache, 0)), 0))
    return found

"""Run GIL-free kernels over index ranges on a few threads.

Numba's own ``prange`` is not used: its default threading layer aborts the process when two
Python threads enter it at once, which is just what a viewer with a fit in a worker does.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache


def default_threads() -> int:
    """Return the number of CPUs this process may use."""
    try:
        return max(1, len(os.sched_getaffinity(0)))
    except AttributeError:  # macOS, Windows
        return max(1, os.cpu_count() or 1)


@lru_cache(maxsize=4)
def _pool(workers: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(workers, thread_name_prefix="medgs")


def run_chunks(task: Callable[[int], None], chunks: int, threads: int | None = None) -> None:
    """Call ``task(k)`` for every ``k`` in ``range(chunks)``, dynamically shared by threads.

    Parameters
    ----------
    task : callable
        Must release the GIL for this to be parallel (a ``nogil`` kernel does).
    chunks : int
        Number of calls.
    threads : int, optional
        Threads to use, the caller's included; all CPUs by default.

    Raises
    ------
    Exception
        The first exception that a task raised, after all threads have stopped.
    """
    workers = min(threads or default_threads(), chunks)
    if workers <= 1:
        for k in range(chunks):
            task(k)
        return
    counter = itertools.count()

    def drain() -> None:
        while (k := next(counter)) < chunks:
            task(k)

    futures: list[Future[None]] = [_pool(workers - 1).submit(drain) for _ in range(workers - 1)]
    try:
        drain()
    finally:
        errors = [future.exception() for future in futures]
    for error in errors:
        if error is not None:
            raise error

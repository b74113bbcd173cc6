"""Run GIL-free kernels over index ranges on a few threads.

Numba's own ``prange`` is not used: its default threading layer aborts the process when two
Python threads enter it at once, which is just what a viewer with a fit in a worker does.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache


class _State(threading.local):
    """What holds in one thread: the limit set by its caller, and whether it is a worker."""

    limit: int | None = None
    worker: bool = False


_state = _State()


@lru_cache(maxsize=4)
def _pool(workers: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(workers, thread_name_prefix="medgs")


def _after_fork() -> None:
    """Forget the parent's pools: their threads do not exist in a forked child."""
    _pool.cache_clear()
    _state.worker = False


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork)


def _cpus() -> int:
    try:
        return max(1, len(os.sched_getaffinity(0)))
    except AttributeError:  # macOS, Windows
        return max(1, os.cpu_count() or 1)


def default_threads() -> int:
    """Return the limit in force here, or else the number of CPUs this process may use."""
    return _cpus() if _state.limit is None else _state.limit


@contextmanager
def limit_threads(threads: int | None) -> Iterator[None]:
    """Bound the threads of every :func:`run_chunks` that this thread calls inside the context.

    Parameters
    ----------
    threads : int or None
        Threads, the caller's included; None leaves the limit as it is. Limits nest: the lowest
        one counts.

    Examples
    --------
    >>> with limit_threads(1):
    ...     default_threads()
    1
    """
    before = _state.limit
    if threads is not None:
        _state.limit = threads if before is None else min(threads, before)
    try:
        yield
    finally:
        _state.limit = before


@contextmanager
def limit_torch_threads(threads: int | None) -> Iterator[None]:
    """Bound the threads of :func:`run_chunks` here, and of PyTorch in the whole process.

    Threads of PyTorch that wait spin: beside other work, more of them than cores cost much time.

    Parameters
    ----------
    threads : int or None
        None is the limit in force here, if there is one, and leaves all as it is otherwise.
    """
    import torch

    before = torch.get_num_threads()
    with limit_threads(threads):
        if _state.limit is not None:
            torch.set_num_threads(_state.limit)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def run_chunks(task: Callable[[int], None], chunks: int, threads: int | None = None) -> None:
    """Call ``task(k)`` for every ``k`` in ``range(chunks)``, dynamically shared by threads.

    A call from inside a task runs in that task's thread, so that nested calls start no more
    threads than the outer one may.

    Parameters
    ----------
    task : callable
        Must release the GIL for this to be parallel (a ``nogil`` kernel does).
    chunks : int
        Number of calls.
    threads : int, optional
        Threads to use, the caller's included; by default and at most :func:`default_threads`
        within :func:`limit_threads`, all CPUs otherwise.

    Raises
    ------
    Exception
        The first exception that a task raised, after all threads have stopped.
    """
    workers = threads or default_threads()
    if _state.limit is not None:
        workers = min(workers, _state.limit)
    workers = 1 if _state.worker else min(workers, chunks)
    if workers <= 1:
        for k in range(chunks):
            task(k)
        return
    counter = itertools.count()

    def drain() -> None:
        while (k := next(counter)) < chunks:
            task(k)

    def work() -> None:
        _state.worker = True
        try:
            drain()
        finally:
            _state.worker = False

    futures: list[Future[None]] = [_pool(workers - 1).submit(work) for _ in range(workers - 1)]
    try:
        work()
    finally:
        # A worker that has not begun has nothing left to do; do not wait for its turn.
        errors = [future.exception() for future in futures if not future.cancel()]
    for error in errors:
        if error is not None:
            raise error

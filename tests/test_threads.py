"""Thread pools: limits, nested calls, errors, forked children."""

from __future__ import annotations

import contextlib
import multiprocessing
import threading

import numpy as np
import pytest

from napari_medgs._util import threads
from napari_medgs._util.threads import default_threads, limit_threads, run_chunks


def used(chunks=8, threads=None):
    """Return the threads that ran a task; each task waits for a second one for a while."""
    seen = set()
    together = threading.Barrier(2)

    def task(_):
        seen.add(threading.get_ident())
        with contextlib.suppress(threading.BrokenBarrierError):
            together.wait(0.2)

    run_chunks(task, chunks, threads)
    return seen


def test_a_limit_bounds_what_runs_below_it():
    assert len(used(threads=2)) == 2
    with limit_threads(1):
        assert used(threads=2) == {threading.get_ident()}
        assert default_threads() == 1
        with limit_threads(3):
            assert default_threads() == 1
    with limit_threads(None):
        assert len(used(threads=2)) == 2


def test_nested_calls_stay_in_their_thread():
    def outer(_):
        assert used(chunks=2, threads=2) == {threading.get_ident()}

    run_chunks(outer, 4, 2)


def test_the_first_error_is_raised_and_the_pool_goes_on():
    def task(k):
        if k == 3:
            raise ValueError("three")

    with pytest.raises(ValueError, match="three"):
        run_chunks(task, 8, 2)
    done = []
    run_chunks(done.append, 5, 2)
    assert sorted(done) == [0, 1, 2, 3, 4]


def _fit_and_render(queue):
    from napari_medgs.data.volume import Volume
    from napari_medgs.fitting import FitParams, fit
    from napari_medgs.rendering import render

    image = np.random.default_rng(0).normal(size=(8, 24, 24)).astype(np.float32)
    field = fit(Volume.from_array(image), FitParams(gaussians=50, iterations=2, threads=2)).field
    queue.put(render(field).data.shape)


@pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="this system cannot fork"
)
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_a_forked_child_fits_and_renders():
    run_chunks(lambda k: None, 4, 2)  # the parent has a pool, whose threads are not forked
    assert threads._pool.cache_info().currsize
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_fit_and_render, args=(queue,), daemon=True)
    child.start()
    try:
        assert queue.get(timeout=120)[-3:] == (8, 24, 24)
        child.join(30)
        assert child.exitcode == 0
    finally:
        child.kill()

"""Fit a batch: skip what is finished, distribute the rest, keep the manifest, survive failures."""

from __future__ import annotations

import os
import queue
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from napari_medgs._util.progress import (
    ProgressCallback,
    ProgressEvent,
    StopCallback,
    ignore_progress,
    never_stop,
)
from napari_medgs.batch.executors import Workers, open_workers
from napari_medgs.batch.manifest import Manifest, remove_partial_files, settings_of, stamps_of
from napari_medgs.batch.params import BatchParams
from napari_medgs.batch.task import FitTask, reason
from napari_medgs.errors import BackendError, FileError, ParameterError
from napari_medgs.fitting.params import FitParams
from napari_medgs.io._atomic import note_written
from napari_medgs.io.cases import Case, find_cases
from napari_medgs.io.fields import COMPRESSED, SUFFIX
from napari_medgs.io.folders import make_folder

__all__ = ["BatchResult", "Case", "find_cases", "fit_many"]

LOCK = ".manifest.lock"
POLL_SECONDS = 0.25
PREFETCH = 2  # cases submitted per worker, so that none waits for the next
COUNT_SECONDS = 2.0  # between two counts of the workers
DIED = "its process died, perhaps for lack of memory; use fewer workers or a smaller image."


@dataclass
class BatchResult:
    """Outcome of a batch.

    Attributes
    ----------
    done, skipped : list of str
        Names of cases fitted now, and of those whose field existed already.
    failed : dict of str to str
        Reason of every failure, in one line.
    left : int
        Number of cases not begun or not finished when the run was canceled.
    seconds : float
    workers, threads : int
        Fits at a time, and CPU threads per fit.
    manifest : Path
    entries : dict of str to dict
        Manifest entry of every case of this run that has a field.
    """

    manifest: Path
    done: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    left: int = 0
    seconds: float = 0.0
    workers: int = 0
    threads: int = 1
    entries: dict[str, dict[str, Any]] = field(default_factory=dict)

    def totals(self) -> dict[str, Any]:
        """Return the totals, JSON-able."""
        metrics = [entry["metrics"] for entry in self.entries.values()]
        quality = [m["psnr"] for m in metrics if m.get("psnr") is not None]
        dice = [m["dice_mean"] for m in metrics if m.get("dice_mean") is not None]
        return {
            "cases": len(self.done) + len(self.skipped) + len(self.failed) + self.left,
            "done": len(self.done),
            "skipped": len(self.skipped),
            "failed": len(self.failed),
            "left": self.left,
            "seconds": self.seconds,
            "workers": self.workers,
            "threads": self.threads,
            "n_gaussians": sum(m["n_gaussians"] for m in metrics),
            "input_bytes": sum(e["input_bytes"] for e in self.entries.values()),
            "output_bytes": sum(e["output_bytes"] for e in self.entries.values()),
            "psnr_mean": sum(quality) / len(quality) if quality else None,
            "psnr_min": min(quality, default=None),
            "dice_mean": sum(dice) / len(dice) if dice else None,
            "manifest": str(self.manifest),
            "failures": dict(self.failed),
        }


def fit_many(
    cases: Sequence[Case],
    output: str | Path,
    params: FitParams | None = None,
    batch: BatchParams | None = None,
    *,
    executor: Any = None,
    progress: ProgressCallback = ignore_progress,
    should_stop: StopCallback = never_stop,
) -> BatchResult:
    """Fit every case and write its field to ``output/NAME.medgs.safetensors``.

    With ``batch.compress`` to ``output/NAME.medgs``, compressed.

    Existing fields of the same input and the same settings are kept. A case that fails is
    recorded and does not stop the others.

    Parameters
    ----------
    cases : sequence of Case
        See :func:`napari_medgs.batch.find_cases`.
    output : str or Path
        Folder, created if necessary. ``manifest.json`` in it records what was done.
    params : FitParams, optional
        Settings of every fit; ``threads`` are those of one fit.
    batch : BatchParams, optional
        How images are read and where they are fitted.
    executor : concurrent.futures.Executor or distributed.Client, optional
        Runs the fits, instead of processes that are started here. The running fits of a plain
        executor are completed when the run is canceled. ``batch.workers`` is then the number of
        fits at a time.
    progress : callable, optional
        Receives a :class:`~napari_medgs._util.progress.ProgressEvent` after every case.
    should_stop : callable, optional
        Return True to cancel: running fits end without a field.

    Returns
    -------
    BatchResult

    Raises
    ------
    FileError
        When the output cannot be written, another run is writing to it, or its manifest cannot
        be read.
    ParameterError
        When a setting is for single fits only.
    BackendError, MissingPackageError
        When a scheduler is wanted and cannot be used.

    Examples
    --------
    >>> import tempfile
    >>> from napari_medgs.batch import fit_many
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     fit_many([], folder).totals()["cases"]
    0
    """
    params, batch = params or FitParams(), batch or BatchParams()
    if params.freeze_geometry or params.checkpoint is not None or params.positions_every:
        raise ParameterError(
            "freeze_geometry, checkpoint and positions_every are for single fits."
        )
    folder = make_folder(output)
    with _locked(folder):
        run = _Run(folder, params, batch, progress, should_stop)
        waiting = run.select(cases)
        try:
            if waiting:
                with open_workers(waiting, params, batch, executor) as workers:
                    run.result.threads = workers.threads
                    run.fit(waiting, workers)
        finally:
            run.manifest.save()
            remove_partial_files([run.manifest.output(case) for case in waiting])
    run.result.seconds = time.perf_counter() - run.started
    return run.result


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep a second run out of the folder, whose manifest this one would overwrite."""
    from filelock import FileLock, Timeout

    try:
        # The system frees it when the process dies, however it dies.
        with FileLock(folder / LOCK, timeout=0):
            yield
    except Timeout as error:
        raise FileError(
            f"{folder}: another run is writing here; wait for it, or choose another folder."
        ) from error


class _Run:
    """The state of one call of :func:`fit_many`."""

    def __init__(
        self,
        folder: Path,
        params: FitParams,
        batch: BatchParams,
        progress: ProgressCallback,
        should_stop: StopCallback,
    ) -> None:
        self.started = time.perf_counter()
        self.manifest = Manifest(folder, SUFFIX if batch.compress is None else COMPRESSED)
        self.params, self.batch = params, batch
        self.settings = settings_of(params, batch)
        self.progress, self.should_stop = progress, should_stop
        self.result = BatchResult(self.manifest.path)
        self.known: dict[str, str] = {}
        self.total = 0

    def select(self, cases: Sequence[Case]) -> list[Case]:
        """Return the cases to look into; count the others as skipped."""
        self.total = len(cases)
        waiting = []
        for case in cases:
            entry = None if self.batch.overwrite else self.manifest.finished(case, self.settings)
            if entry is not None and entry.get("stamps") == stamps_of(case):
                self.result.skipped.append(case.name)
                self.result.entries[case.name] = entry
                continue
            if entry is not None:  # touched or moved: its content will tell
                self.known[case.name] = entry.get("digest", "")
            waiting.append(case)
        return waiting

    def fit(self, waiting: Sequence[Case], workers: Workers) -> None:
        """Keep the workers busy until all cases are through or the user cancels."""
        self._report()
        params = replace(self.params, threads=workers.threads)
        todo = deque(waiting)
        # Cases that ran when a process died: repeated one at a time, to find which it was.
        suspects: deque[Case] = deque()
        alone: Future[Any] | None = None
        running: dict[Future[Any], Case] = {}
        finished: queue.SimpleQueue[Future[Any]] = queue.SimpleQueue()
        count, counted, stopping = 1, -COUNT_SECONDS, False
        try:
            while True:
                if time.monotonic() - counted >= COUNT_SECONDS:
                    count, counted = workers.count(), time.monotonic()
                    self.result.workers = max(self.result.workers, count)
                if not stopping and self.should_stop():
                    stopping = True
                    workers.cancel()
                    for future in list(running):
                        future.cancel()  # those that no worker has begun
                while not stopping and (suspects or todo):
                    if running and (suspects or alone is not None):
                        break
                    if len(running) >= PREFETCH * count:
                        break
                    single = bool(suspects)
                    case = suspects.popleft() if single else todo.popleft()
                    try:
                        future = workers.submit(self._task(case, params))
                    except BrokenExecutor:  # a process died since
                        (suspects if single else todo).appendleft(case)
                        if running:
                            break
                        workers.restart()
                        continue
                    alone = future if single else None
                    running[future] = case
                    future.add_done_callback(finished.put)
                if not running:
                    break
                try:
                    future = finished.get(timeout=POLL_SECONDS)
                except queue.Empty:
                    continue
                if future not in running:
                    continue
                if _died(future):
                    wait(running)  # all of them broke, or were just done
                    for other in [f for f in running if not _died(f)]:
                        self._take(running.pop(other), other, stopping)
                    if future is alone:
                        self._record(running[future], {"status": "failed", "error": DIED})
                    else:
                        suspects.extend(running.values())
                    running.clear()
                    workers.restart()
                else:
                    self._take(running.pop(future), future, stopping)
                alone = None
        finally:
            if running:  # an exception or a second Ctrl-C
                workers.cancel()
                for future in running:
                    future.cancel()
            through = len(self.result.done) + len(self.result.skipped) + len(self.result.failed)
            self.result.left = self.total - through

    def _task(self, case: Case, params: FitParams) -> FitTask:
        absolute = Case(
            case.name,
            tuple(os.path.abspath(image) for image in case.images),
            None if case.mask is None else os.path.abspath(case.mask),
        )
        output = os.path.abspath(self.manifest.output(case))
        return FitTask(absolute, output, params, self.batch, self.known.get(case.name))

    def _take(self, case: Case, future: Future[Any], stopping: bool) -> None:
        """Record the outcome of a case."""
        try:
            record: dict[str, Any] = future.result()
        except CancelledError as error:
            if stopping:
                return
            raise BackendError(
                "The connection to the Dask scheduler was lost; start it again."
            ) from error
        except Exception as error:
            killed = type(error).__name__ == "KilledWorker"  # Dask's, which need not be there
            record = {"status": "failed", "error": DIED if killed else reason(error)}
        self._record(case, record)

    def _record(self, case: Case, record: dict[str, Any]) -> None:
        status = record["status"]
        if status == "cancelled":
            return
        if status == "failed":
            self.result.failed[case.name] = record["error"]
            self.manifest.set(case, {**record, "settings": self.settings})
        else:
            before = self.manifest.cases.get(case.name, {}) if status == "unchanged" else {}
            entry = {**before, **record, "status": "done", "settings": self.settings}
            entry["stamps"] = stamps_of(case)
            if not before:
                note_written(self.manifest.output(case))
            (self.result.skipped if before else self.result.done).append(case.name)
            self.manifest.set(case, entry)
            self.result.entries[case.name] = self.manifest.cases[case.name]
        self._report()

    def _report(self) -> None:
        seconds = time.perf_counter() - self.started
        fitted = len(self.result.done) + len(self.result.failed)
        through = fitted + len(self.result.skipped)
        remaining = (self.total - through) * seconds / fitted if fitted else None
        self.progress(ProgressEvent("images", through, self.total, seconds, remaining=remaining))


def _died(future: Future[Any]) -> bool:
    """Tell whether a fit ended because a worker process died."""
    return not future.cancelled() and isinstance(future.exception(), BrokenExecutor)

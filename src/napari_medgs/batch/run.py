"""Fit a cohort: skip what is finished, share out the rest, keep the manifest, survive failures."""

from __future__ import annotations

import os
import queue
import time
import uuid
from collections.abc import Iterator, Sequence
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
from napari_medgs.batch import cluster
from napari_medgs.batch.cases import Case
from napari_medgs.batch.manifest import Manifest, settings_of, stamps_of, sweep
from napari_medgs.batch.params import CohortParams
from napari_medgs.batch.work import Work, fit_case, reason
from napari_medgs.errors import BackendError, FileError, ParameterError
from napari_medgs.fitting.params import FitParams

LOCK = ".manifest.lock"
POLL_SECONDS = 0.25
AHEAD = 2  # cases sent out for every one that is being fitted
SLOT_SECONDS = 2.0  # between two looks at how many workers there are


@dataclass
class CohortResult:
    """What became of a cohort.

    Attributes
    ----------
    done, skipped : list of str
        Names of cases fitted now, and of those whose field stood already.
    failed : dict of str to str
        Why the others failed, in one line each.
    left : int
        Cases that a cancel left for the next time.
    seconds : float
    workers, threads : int
        Fits at a time, and CPU threads of each.
    manifest : Path
    entries : dict of str to dict
        What the manifest says of every case of this run that has a field.
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

    def numbers(self) -> dict[str, Any]:
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
    cohort: CohortParams | None = None,
    *,
    client: Any = None,
    progress: ProgressCallback = ignore_progress,
    should_stop: StopCallback = never_stop,
) -> CohortResult:
    """Fit every case of a cohort and write its field to ``output/NAME.medgs.safetensors``.

    Fields that stand, of the same input and the same settings, are left alone. A case that
    fails is recorded and does not stop the others.

    Parameters
    ----------
    cases : sequence of Case
        See :func:`napari_medgs.batch.find_cases`.
    output : str or Path
        Folder; made if need be. ``manifest.json`` in it tells what was done.
    params : FitParams, optional
        Of every fit. ``threads`` are those of one fit.
    cohort : CohortParams, optional
    client : distributed.Client, optional
        Use this one instead of starting a cluster or connecting to a scheduler.
    progress, should_stop : callable, optional
        Receive a :class:`~napari_medgs._util.progress.ProgressEvent` after every case; return
        True to
        cancel. Fits that are running then end without a field.

    Returns
    -------
    CohortResult

    Raises
    ------
    MedGSError
        Before work starts: for an output that cannot be written or that another run is writing
        to, a manifest that cannot be read, settings that make no sense for a cohort, or workers
        that cannot be had.
    """
    params, cohort = params or FitParams(), cohort or CohortParams()
    if params.freeze_geometry or params.checkpoint is not None or params.positions_every:
        raise ParameterError(
            "freeze_geometry, checkpoint and positions_every are for single fits."
        )
    folder = _folder(output)
    with _alone_in(folder):
        run = _Run(folder, params, cohort, progress, should_stop)
        waiting = run.sort_out(cases)
        try:
            if waiting:
                with _client(waiting, params, cohort, client) as (found, threads):
                    run.result.threads = threads
                    run.fit(waiting, found)
        finally:
            run.manifest.save()
            sweep([run.manifest.output(case) for case in waiting])
    run.result.seconds = time.perf_counter() - run.started
    return run.result


def _folder(output: str | Path) -> Path:
    """Make the output folder, or say why that cannot be."""
    folder = Path(output)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        what = "a file of this name is in the way" if folder.is_file() else error.strerror
        raise FileError(f"{folder}: cannot be made ({what}).") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise FileError(f"{folder}: the folder is not writable.")
    return folder


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
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


@contextmanager
def _client(
    waiting: Sequence[Case], params: FitParams, cohort: CohortParams, given: Any
) -> Iterator[tuple[Any, int]]:
    """Yield a client, and how many threads every fit is to use."""
    if given is not None:
        yield given, params.threads or 1
    elif cohort.scheduler is not None:
        with cluster.remote_client(cohort.scheduler) as client:
            yield client, params.threads or 1
    else:
        gpus = 0
        if params.backend in ("auto", "cuda", "gsplat"):
            gpus = cluster.visible_gpus()
        plan = cluster.make_plan(waiting, params, workers=cohort.workers, gpus=gpus)
        with cluster.local_client(plan, gpus) as client:
            yield client, plan.threads


class _Run:
    """The state of one call of :func:`fit_many`."""

    def __init__(
        self,
        folder: Path,
        params: FitParams,
        cohort: CohortParams,
        progress: ProgressCallback,
        should_stop: StopCallback,
    ) -> None:
        self.started = time.perf_counter()
        self.manifest = Manifest(folder)
        self.params, self.cohort = params, cohort
        self.settings = settings_of(params, cohort)
        self.progress, self.should_stop = progress, should_stop
        self.result = CohortResult(self.manifest.path)
        self.known: dict[str, str] = {}
        self.total = 0

    def sort_out(self, cases: Sequence[Case]) -> list[Case]:
        """Return the cases to look into; count the others as skipped."""
        self.total = len(cases)
        waiting = []
        for case in cases:
            entry = None if self.cohort.again else self.manifest.finished(case, self.settings)
            if entry is not None and entry.get("stamps") == stamps_of(case):
                self.result.skipped.append(case.name)
                self.result.entries[case.name] = entry
                continue
            if entry is not None:  # touched or moved: its content will tell
                self.known[case.name] = entry.get("digest", "")
            waiting.append(case)
        return waiting

    def fit(self, waiting: Sequence[Case], client: Any) -> None:
        """Keep the workers busy until all cases are through or the user cancels."""
        from distributed import Event

        self._report()
        name = f"medgs-stop-{uuid.uuid4().hex}"
        event = Event(name, client=client)
        params = replace(self.params, threads=self.result.threads)
        todo = iter(waiting)
        running: dict[Any, Case] = {}
        arrived: queue.SimpleQueue[Any] = queue.SimpleQueue()
        slots, looked, stopping = 0, -SLOT_SECONDS, False
        try:
            while True:
                if time.monotonic() - looked >= SLOT_SECONDS:
                    slots, looked = max(1, sum(client.nthreads().values())), time.monotonic()
                    self.result.workers = max(self.result.workers, slots)
                if not stopping and self.should_stop():
                    stopping = True
                    event.set()
                while not stopping and len(running) < AHEAD * slots:
                    case = next(todo, None)
                    if case is None:
                        break
                    future = client.submit(fit_case, self._work(case, params), name, pure=False)
                    running[future] = case
                    future.add_done_callback(arrived.put)
                if not running:
                    break
                try:
                    future = arrived.get(timeout=POLL_SECONDS)
                except queue.Empty:
                    continue
                self._take(running.pop(future), future)
        finally:
            if running:  # an exception or a second Ctrl-C
                event.set()
                client.cancel(list(running))
            through = len(self.result.done) + len(self.result.skipped) + len(self.result.failed)
            self.result.left = self.total - through

    def _work(self, case: Case, params: FitParams) -> Work:
        absolute = Case(
            case.name,
            tuple(os.path.abspath(image) for image in case.images),
            None if case.mask is None else os.path.abspath(case.mask),
        )
        output = os.path.abspath(self.manifest.output(case))
        return Work(absolute, output, params, self.cohort, self.known.get(case.name))

    def _take(self, case: Case, future: Any) -> None:
        """Record the outcome of a case."""
        if future.status == "finished":
            record: dict[str, Any] = future.result()
        elif future.status == "error":
            record = {"status": "failed", "error": _why(future.exception())}
        else:
            raise BackendError("The connection to the Dask scheduler was lost; start it again.")
        future.release()
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
            (self.result.skipped if before else self.result.done).append(case.name)
            self.manifest.set(case, entry)
            self.result.entries[case.name] = self.manifest.cases[case.name]
        self._report()

    def _report(self) -> None:
        seconds = time.perf_counter() - self.started
        fitted = len(self.result.done) + len(self.result.failed)
        through = fitted + len(self.result.skipped)
        remaining = (self.total - through) * seconds / fitted if fitted else None
        self.progress(ProgressEvent("cases", through, self.total, seconds, remaining=remaining))


def _why(error: BaseException | None) -> str:
    """Return why a worker gave no answer."""
    from distributed.scheduler import KilledWorker

    if isinstance(error, KilledWorker):
        return (
            "its process died, perhaps for lack of memory; use fewer workers or a smaller image."
        )
    return reason(error or RuntimeError("no answer"))

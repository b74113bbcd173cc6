"""Masks of many images by one trained segmenter: here, in processes, or on Dask."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_medgs._util.naming import naming
from napari_medgs._util.progress import (
    ProgressCallback,
    ProgressEvent,
    StopCallback,
    ignore_progress,
    never_stop,
)
from napari_medgs._util.threads import default_threads, limit_threads
from napari_medgs.batch.executors import unheard_interrupts
from napari_medgs.batch.mask_outputs import check_folder_name, check_mask_outputs
from napari_medgs.batch.task import CancelFlag, listen
from napari_medgs.errors import Cancelled, MedGSError
from napari_medgs.io._atomic import note_written
from napari_medgs.io.cases import Case
from napari_medgs.io.folders import make_folder

if TYPE_CHECKING:
    from napari_medgs.learning import Segmenter

SUFFIX = ".nii.gz"
POLL_SECONDS = 0.25
DIED = "its process died, perhaps for lack of memory; use fewer workers or a smaller image."


@dataclass(frozen=True)
class SegmentTask:
    """One image to segment; only plain values, for any process.

    Attributes
    ----------
    case : Case
        With absolute paths.
    model, output : str
        The segmenter's file, and the mask to write.
    agreement, forest : bool
        See :meth:`~napari_medgs.learning.Segmenter.segment`.
    reading : dict
        Options of :func:`~napari_medgs.io.read_volumes`.
    threads : int, optional
        CPU threads; all by default.
    features : str, optional
        Import path of the model's pre-trained features.
    polish : bool, optional
        Polish the mask; None for as the model's card says.
    largest : bool, optional
        Keep the largest component of every class; None for as the model's card says.
    """

    case: Case
    model: str
    output: str
    agreement: bool = True
    forest: bool = False
    reading: Mapping[str, Any] = field(default_factory=dict)
    threads: int | None = None
    features: str | None = None
    polish: bool | None = None
    largest: bool | None = None


@lru_cache(maxsize=2)
def _segmenter(path: str, stamp: float, features: str | None) -> Segmenter:
    """Read a segmenter once in each process."""
    from napari_medgs.learning import load_segmenter

    del stamp  # a file that was written anew is another one
    return load_segmenter(path, features)


def segment_case(task: SegmentTask, should_stop: StopCallback = never_stop) -> dict[str, Any]:
    """Segment one image and write its mask.

    Parameters
    ----------
    task : SegmentTask
    should_stop : callable, optional
        Asked between steps whether to stop.

    Returns
    -------
    dict
        As :func:`~napari_medgs.learning.summary.summarize`, and ``output``; or ``error``, a
        sentence, where it failed.

    Raises
    ------
    Cancelled
        When ``should_stop`` returned True.
    """
    from napari_medgs.io import read_volumes, write_labels
    from napari_medgs.learning.polishing import is_polished, polish_result
    from napari_medgs.learning.summary import summarize

    try:
        with naming(image=task.case.images), limit_threads(task.threads):
            stamp = Path(task.model).stat().st_mtime
            segmenter = _segmenter(task.model, stamp, task.features)
            volume = read_volumes(task.case.images, **task.reading)
            polish = is_polished(segmenter.card) if task.polish is None else task.polish
            result = segmenter.segment(
                volume, probabilities=polish, folds=task.agreement, forest=task.forest,
                largest=task.largest, should_stop=should_stop,
            )  # fmt: skip
            if polish:
                result = polish_result(
                    segmenter.card, volume, result, threads=task.threads, should_stop=should_stop
                )
            numbers = summarize(segmenter, volume, result)
            make_folder(Path(task.output).parent)
            write_labels(task.output, result.labels, result.grid, result.names)
    except Cancelled:
        raise
    except MedGSError as error:
        return {"error": str(error)}
    except MemoryError:
        return {"error": "out of memory; crop the image, or close other programs."}
    return {**numbers, "output": task.output}


def segment_many(
    cases: Sequence[Case],
    model: str | Path,
    output: str | Path,
    *,
    agreement: bool = True,
    forest: bool = False,
    reading: Mapping[str, Any] | None = None,
    scheduler: str | None = None,
    workers: int = 1,
    threads: int | None = None,
    features: str | None = None,
    polish: bool | None = None,
    largest: bool | None = None,
    progress: ProgressCallback = ignore_progress,
    should_stop: StopCallback = never_stop,
    done: Callable[[str, dict[str, Any]], None] | None = None,
) -> dict[str, dict[str, Any]]:
    """Segment many images with a trained segmenter.

    Parameters
    ----------
    cases : sequence of Case
        From :func:`~napari_medgs.io.cases.find_cases`.
    model : str or Path
    output : str or Path
        Folder of the masks, which are called like the cases.
    agreement, forest : bool
        See :meth:`~napari_medgs.learning.Segmenter.segment`.
    reading : mapping, optional
        Options of :func:`~napari_medgs.io.read_volumes`.
    scheduler : str, optional
        Address of a Dask scheduler whose workers see the same files.
    workers : int
        Processes on this machine; with 1 the work is done in this one.
    threads : int, optional
        CPU threads of each; by default the CPUs are shared among the processes on this machine.
    features : str, optional
        Import path of the model's pre-trained features, for models that were trained with some.
    polish : bool, optional
        Polish the masks; None for as the model's card says.
    largest : bool, optional
        Keep the largest component of every class; None for as the model's card says.
    progress, should_stop : callable, optional
        Called with a ``ProgressEvent`` after each step; asked between steps whether to stop.
    done : callable, optional
        Gets the name and the numbers of every case that is through.

    Returns
    -------
    dict of str to dict
        As :func:`segment_case`, by the name of the case, in the order of the cases.

    Raises
    ------
    Cancelled
        When ``should_stop`` returned True; masks that were written stay.
    FileError
        When the folder or the model cannot be used, or a mask would overwrite an image.
    BackendError
        When the scheduler cannot be reached.
    """
    from napari_medgs.learning.files import check_features_named, load_segmenter_card

    check_features_named(model, load_segmenter_card(model), features)  # before workers are asked
    workers = min(workers, len(cases))
    if threads is None and scheduler is None and workers > 1:
        threads = max(1, default_threads() // workers)
    folder = check_folder_name(Path(output).absolute())
    check_mask_outputs(
        [folder / f"{case.name}{SUFFIX}" for case in cases],
        [model, *(image for case in cases for image in case.images)],
    )
    make_folder(folder)
    tasks = [
        SegmentTask(
            Case(case.name, tuple(_absolute(image) for image in case.images)),
            str(Path(model).absolute()),
            str(folder / f"{case.name}{SUFFIX}"),
            agreement,
            forest,
            dict(reading or {}),
            threads,
            features,
            polish,
            largest,
        )
        for case in cases
    ]
    started = time.perf_counter()
    found: dict[str, dict[str, Any]] = {}

    def report(name: str, numbers: dict[str, Any]) -> None:
        found[name] = numbers
        if "error" not in numbers:
            note_written(folder / f"{name}{SUFFIX}")
        if done is not None:
            done(name, numbers)
        spent = time.perf_counter() - started
        left = spent / len(found) * (len(tasks) - len(found))
        progress(ProgressEvent("cases", len(found), len(tasks), spent, remaining=left))

    if scheduler is None and workers <= 1:
        for task in tasks:
            try:
                if should_stop():
                    raise Cancelled
                numbers = segment_case(task, should_stop)
            except Cancelled:
                raise Cancelled(canceled(_written(found), len(tasks))) from None
            report(task.case.name, numbers)
        return found
    with _submitter(scheduler, workers) as (submit, cancel):
        waiting = {submit(task): task for task in tasks}
        while waiting:
            ready = wait(list(waiting), POLL_SECONDS, "FIRST_COMPLETED").done
            for future in ready:
                name = waiting.pop(future).case.name
                try:
                    report(name, future.result())
                except BrokenExecutor:
                    report(name, {"error": DIED})
            if should_stop():
                running = [future for future in waiting if not future.cancel()]
                if cancel is not None:
                    cancel()
                    for future in wait(running).done:
                        if future.exception() is None:  # it was through already
                            report(waiting[future].case.name, future.result())
                raise Cancelled(canceled(_written(found), len(tasks)))
    return {task.case.name: found[task.case.name] for task in tasks}


def canceled(done: int, total: int) -> str:
    """Return what to say of a batch that was canceled.

    Parameters
    ----------
    done, total : int
        Masks.
    """
    return f"Canceled; {done} of {total} masks were written."


def _written(found: Mapping[str, Mapping[str, Any]]) -> int:
    return sum("error" not in numbers for numbers in found.values())


def _segment_in_process(task: SegmentTask) -> dict[str, Any]:
    """Segment an image in a process of this machine, until it is told to stop."""
    return segment_case(task, CancelFlag(""))


def _absolute(image: str) -> str:
    """Return an image's path from the root; items of a MedMNIST file keep what follows it."""
    return str(Path(image).absolute())


@contextmanager
def _submitter(
    scheduler: str | None, workers: int
) -> Iterator[tuple[Callable[[SegmentTask], Future[dict[str, Any]]], Callable[[], None] | None]]:
    """Yield what starts a task somewhere, and what tells running ones to stop, if they listen."""
    if scheduler is not None:
        from napari_medgs.batch.executors import dask_client

        with dask_client(scheduler) as client:
            dask = client.get_executor(pure=False)
            yield lambda task: dask.submit(segment_case, task), None
        return
    # Not forked: threads and CUDA contexts of this process do not survive that.
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    with ProcessPoolExecutor(workers, context, listen, (stop,)) as pool:

        def submit(task: SegmentTask) -> Future[dict[str, Any]]:
            with unheard_interrupts():
                return pool.submit(_segment_in_process, task)

        yield submit, stop.set

"""The fit of one case in a worker process; only plain values go in and out."""

from __future__ import annotations

import hashlib
import os
import queue
import signal
import time
import traceback
import warnings
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._util.progress import StopCallback
from napari_medgs.batch.params import BatchParams
from napari_medgs.errors import Cancelled, MedGSError, MemoryEstimateError
from napari_medgs.fitting.params import FitParams
from napari_medgs.io.cases import Case

if TYPE_CHECKING:
    from napari_medgs.data.field import GaussianField
    from napari_medgs.data.volume import Volume
    from napari_medgs.io.medmnist.reader import MedMNISTSet

POLL_SECONDS = 0.5  # between two checks whether the run was canceled


@dataclass(frozen=True)
class FitTask:
    """What a worker needs to fit one case.

    Attributes
    ----------
    case : Case
        With absolute paths.
    output : str
        The field to write.
    params : FitParams
    batch : BatchParams
    known : str, optional
        Digest of the input that the existing field was made from.
    """

    case: Case
    output: str
    params: FitParams
    batch: BatchParams
    known: str | None = None


_canceled: Any = None  # the event that start_worker got, in a process of LocalProcesses


def start_worker(canceled: Any, numbers: Any, gpus: int) -> None:
    """Prepare a worker process.

    Parameters
    ----------
    canceled : multiprocessing.Event
        Set when the run is canceled.
    numbers : multiprocessing.Queue
        One GPU number for each process, -1 for all GPUs.
    gpus : int
        CUDA devices of this machine.
    """
    listen(canceled)
    try:
        number = numbers.get(timeout=POLL_SECONDS)
    except queue.Empty:
        return
    if number >= 0:
        named = os.environ.get("CUDA_VISIBLE_DEVICES")
        devices = named.split(",") if named else [str(k) for k in range(gpus)]
        os.environ["CUDA_VISIBLE_DEVICES"] = devices[number % len(devices)]


def listen(canceled: Any) -> None:
    """Let a worker process stop when it is told to, and only then.

    Parameters
    ----------
    canceled : multiprocessing.Event
        Set when the run is canceled.
    """
    global _canceled
    _canceled = canceled
    # A terminal sends Ctrl-C to all processes of a command; this one is told when to stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class CancelFlag:
    """Tells whether the run was canceled, asking for it twice a second at most.

    Parameters
    ----------
    name : str
        Of a Dask event; empty in a process of this machine.
    """

    def __init__(self, name: str) -> None:
        self._event = _canceled
        if name:
            from distributed import Event

            self._event = Event(name)
        self._asked, self._set = -POLL_SECONDS, False

    def __call__(self) -> bool:
        """Return whether to stop."""
        now = time.monotonic()
        if self._event is not None and not self._set and now - self._asked >= POLL_SECONDS:
            self._asked = now
            self._set = bool(self._event.is_set())
        return self._set


def fit_case(task: FitTask, event: str = "") -> dict[str, Any]:
    """Read, fit and write one case.

    Parameters
    ----------
    task : FitTask
    event : str
        Name of the Dask event that is set when the run is canceled; empty elsewhere.

    Returns
    -------
    dict
        ``status``: "done", "unchanged" (the existing field is of the same input),
        "cancelled" or "failed"; ``error``: the reason, in one line; ``digest``, ``metrics`` and
        more of a new field. JSON-able.
    """
    started = time.perf_counter()
    try:
        should_stop = CancelFlag(event)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            record = _fit(task, should_stop)
        messages = [str(w.message) for w in caught if w.category is UserWarning]
        if messages:
            record["warnings"] = messages[:5]
    except Cancelled:
        return {"status": "cancelled"}
    except Exception as error:
        record = {"status": "failed", "error": reason(error)}
        if not isinstance(error, (MedGSError, OSError, MemoryError)):
            record["traceback"] = traceback.format_exc(limit=-6)
    record["seconds"] = time.perf_counter() - started
    return record


def reason(error: BaseException) -> str:
    """Return why something failed in one line for the user."""
    if isinstance(error, MemoryError):
        return "out of memory; crop or downsample the image, or use fewer workers."
    if isinstance(error, MedGSError):
        text = str(error)
    elif isinstance(error, OSError):
        text = f"{error.filename or 'file system'}: {error.strerror or error}."
    else:
        text = f"unexpected {type(error).__name__}: {error}"
    return " ".join(text.split())


def _fit(task: FitTask, should_stop: StopCallback) -> dict[str, Any]:
    from napari_medgs.fitting import fit
    from napari_medgs.io import read_label_names, read_labels
    from napari_medgs.io.fields import save_field

    if should_stop():
        raise Cancelled
    case = task.case
    volume = read(case, task.batch)
    mask, names = None, {}
    if case.mask is not None:
        mask = read_labels(
            case.mask,
            volume.grid,
            assume_identity=task.batch.assume_identity,
            resample=task.batch.resample,
        )[0]
        names = read_label_names(case.mask)
    found = digest(volume, mask, names)
    if found == task.known:
        return {"status": "unchanged", "digest": found}
    result = fit(volume, task.params, mask, class_names=names, should_stop=should_stop)
    if result.stopped_by == "cancelled":
        raise Cancelled
    output = Path(task.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    metrics = result.metrics
    if task.batch.compress is None:
        save_field(output, result.field)
    else:
        made = _compressed(task, result.field, volume, mask, should_stop)
        metrics = {**metrics, **made.info.metrics}
    return {
        "status": "done",
        "digest": found,
        "shape": list(volume.shape),
        "spacing": list(volume.spacing),
        "input_bytes": int(volume.data.nbytes),
        "output_bytes": output.stat().st_size,
        "metrics": metrics,
    }


def _compressed(
    task: FitTask,
    field: GaussianField,
    volume: Volume,
    mask: NDArray[Any] | None,
    should_stop: StopCallback,
) -> GaussianField:
    """Write a field compressed; return what a reader gets."""
    from napari_medgs.compression import CompressParams, compress

    assert task.batch.compress is not None
    wanted = CompressParams(
        profile=task.batch.compress, backend=task.params.backend, threads=task.params.threads
    )
    made = compress(field, wanted, volume, mask, should_stop=should_stop)
    made.save(task.output)
    return made.field


def read(case: Case, batch: BatchParams) -> Volume:
    """Read the contrasts of a case; a MedMNIST file is kept open for the next item."""
    from napari_medgs.io import read_volumes
    from napari_medgs.io.medmnist.reader import is_spec, parse_spec

    if len(case.images) == 1 and is_spec(case.images[0]) and batch.spacing is None:
        path, split, index = parse_spec(case.images[0])
        try:
            stamp = path.stat()
            items = _cached_set(str(path), stamp.st_mtime_ns, stamp.st_size)
        except (MemoryEstimateError, OSError):
            pass  # item by item, or with the reader's own message
        else:
            volume = items.volume(split, index)
            return replace(volume, data=np.ascontiguousarray(volume.data))
    return read_volumes(
        case.images,
        spacing=batch.spacing,
        assume_identity=batch.assume_identity,
        volume=batch.volume,
        fill_nan=batch.fill_nan,
        resample=batch.resample,
    )


@lru_cache(maxsize=1)
def _cached_set(path: str, changed: int, size: int) -> MedMNISTSet:
    from napari_medgs.io.medmnist.reader import load_set

    return load_set(path)


def digest(volume: Volume, mask: NDArray[Any] | None, names: dict[int, str]) -> str:
    """Return a fingerprint of all that a fit sees of its input."""
    hashed = hashlib.blake2b(digest_size=16)
    for array in (volume.data, volume.grid.affine, mask):
        if array is None:
            continue
        hashed.update(f"{array.dtype.str}{array.shape}".encode())
        hashed.update(np.ascontiguousarray(array).view(np.uint8).data)
    hashed.update(repr(sorted(names.items())).encode())
    return hashed.hexdigest()

"""One case of a cohort, fitted in a worker process; nothing but plain values goes in and out."""

from __future__ import annotations

import hashlib
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
from napari_medgs.batch.cases import Case
from napari_medgs.batch.params import CohortParams
from napari_medgs.errors import Cancelled, MedGSError, MemoryEstimateError
from napari_medgs.fitting.params import FitParams

if TYPE_CHECKING:
    from napari_medgs.data.volume import Volume
    from napari_medgs.io.medmnist.reader import MedMNISTSet

POLL_SECONDS = 0.5  # between two questions to the scheduler whether to stop


@dataclass(frozen=True)
class Work:
    """What a worker needs to fit one case.

    Attributes
    ----------
    case : Case
        With absolute paths.
    output : str
    params : FitParams
    cohort : CohortParams
    known : str, optional
        Digest of the input that the field which stands was made of.
    """

    case: Case
    output: str
    params: FitParams
    cohort: CohortParams
    known: str | None = None


class Flag:
    """Asks a Dask event, now and then, whether the cohort was cancelled.

    Parameters
    ----------
    name : str
        Of the event; empty where nobody can cancel.
    """

    def __init__(self, name: str) -> None:
        from distributed import Event

        self._event = Event(name) if name else None
        self._asked, self._set = -POLL_SECONDS, False

    def __call__(self) -> bool:
        """Return whether to stop."""
        now = time.monotonic()
        if self._event is not None and not self._set and now - self._asked >= POLL_SECONDS:
            self._asked = now
            self._set = bool(self._event.is_set())
        return self._set


def fit_case(work: Work, event: str = "") -> dict[str, Any]:
    """Read, fit and write one case.

    Parameters
    ----------
    work : Work
    event : str
        Name of the Dask event that says to stop.

    Returns
    -------
    dict
        ``status``: "done", "unchanged" (the field that stands is of the same input), "cancelled"
        or "failed"; ``error``: why, in one line; ``digest``, ``metrics`` and the like of a field
        that was made. JSON-able.
    """
    started = time.perf_counter()
    try:
        should_stop = Flag(event)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            record = _fit(work, should_stop)
        said = [str(w.message) for w in caught if w.category is UserWarning]
        if said:
            record["warnings"] = said[:5]
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


def _fit(work: Work, should_stop: StopCallback) -> dict[str, Any]:
    from napari_medgs.fitting import fit
    from napari_medgs.io import read_label_names, read_labels
    from napari_medgs.io.fields import save_field

    if should_stop():
        raise Cancelled
    case = work.case
    volume = read(case, work.cohort)
    mask, names = None, {}
    if case.mask is not None:
        mask = read_labels(case.mask, volume.grid, assume_identity=work.cohort.assume_identity)[0]
        names = read_label_names(case.mask)
    found = digest(volume, mask, names)
    if found == work.known:
        return {"status": "unchanged", "digest": found}
    result = fit(volume, work.params, mask, class_names=names, should_stop=should_stop)
    if result.stopped_by == "cancelled":
        raise Cancelled
    output = Path(work.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    save_field(output, result.field)
    return {
        "status": "done",
        "digest": found,
        "shape": list(volume.shape),
        "spacing": list(volume.spacing),
        "input_bytes": int(volume.data.nbytes),
        "output_bytes": output.stat().st_size,
        "metrics": result.metrics,
    }


def read(case: Case, cohort: CohortParams) -> Volume:
    """Read the contrasts of a case; a MedMNIST file is kept open for the next item."""
    from napari_medgs.io import read_volumes
    from napari_medgs.io.medmnist.reader import is_spec, parse_spec

    if len(case.images) == 1 and is_spec(case.images[0]) and cohort.spacing is None:
        path, split, index = parse_spec(case.images[0])
        try:
            stamp = path.stat()
            items = _items(str(path), stamp.st_mtime_ns, stamp.st_size)
        except (MemoryEstimateError, OSError):
            pass  # item by item, or with the reader's own message
        else:
            volume = items.volume(split, index)
            return replace(volume, data=np.ascontiguousarray(volume.data))
    return read_volumes(
        case.images, spacing=cohort.spacing, assume_identity=cohort.assume_identity
    )


@lru_cache(maxsize=1)
def _items(path: str, changed: int, size: int) -> MedMNISTSet:
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

"""A folder of fields to a folder of compressed ones."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from napari_medgs._util.naming import naming
from napari_medgs._util.progress import (
    ProgressCallback,
    ProgressEvent,
    StopCallback,
    ignore_progress,
    never_stop,
)
from napari_medgs.compression.api import compress
from napari_medgs.compression.cohort import fields_in
from napari_medgs.compression.params import CompressParams
from napari_medgs.data.field import GaussianField
from napari_medgs.data.volume import Volume
from napari_medgs.errors import Cancelled, FileError, MedGSError
from napari_medgs.io.cases import Case
from napari_medgs.io.fields import COMPRESSED, load_field
from napari_medgs.io.folders import make_folder


@dataclass
class FolderResult:
    """What became of the fields of a folder.

    Attributes
    ----------
    metrics : dict of str to dict
        Of each field that was compressed, see :class:`~napari_medgs.CompressResult`.
    skipped : list of str
        Fields whose file was there already.
    failed : dict of str to str
        Why others could not be compressed.
    """

    metrics: dict[str, dict[str, Any]] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


def compress_folder(
    folder: str | Path,
    output: str | Path,
    params: CompressParams | None = None,
    images: Sequence[Case] = (),
    *,
    reading: Mapping[str, Any] | None = None,
    resample: bool = False,
    progress: ProgressCallback = ignore_progress,
    should_stop: StopCallback = never_stop,
) -> FolderResult:
    """Compress every field of a folder into another one.

    Files that are there already stay as they are, so that the same call goes on where an earlier
    one ended. A field that cannot be compressed does not stop the others.

    Parameters
    ----------
    folder, output : str or Path
        Two folders; the second is made if it is not there.
    params : CompressParams, optional
    images : sequence of Case
        Images and masks that were fitted, by the names of their fields, as
        :func:`napari_medgs.batch.find_cases` finds them. Without an image, fine-tuning works
        towards a field's own rendering.
    reading : mapping, optional
        Arguments of :func:`napari_medgs.io.read_volumes` for images, without ``resample``.
    resample : bool
        Bring masks of another grid onto their images' voxels.
    progress, should_stop : callable, optional
        Called with a ``ProgressEvent`` after each step; asked between steps whether to stop.

    Returns
    -------
    FolderResult

    Raises
    ------
    FileError
        When the folder holds no fields, is its own output, or that cannot be written.
    Cancelled
        When canceled; the files so far are kept.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> import napari_medgs as mg
    >>> from napari_medgs.compression import compress_folder
    >>> volume = mg.Volume.from_array(np.eye(16, dtype=np.float32)[None])
    >>> made = mg.fit(volume, mg.FitParams(gaussians=40, iterations=5)).field
    >>> with tempfile.TemporaryDirectory() as place:
    ...     Path(place, "fields").mkdir()
    ...     path = mg.save_field(Path(place, "fields", "a.medgs.safetensors"), made)
    ...     result = compress_folder(Path(place, "fields"), Path(place, "small"))
    ...     list(result.metrics), Path(place, "small", "a.medgs").exists()
    (['a'], True)
    """
    params = params or CompressParams()
    found = fields_in(folder)
    target = Path(output)
    if target.exists() and target.resolve() == Path(folder).resolve():
        raise FileError(f"{output}: is the folder of the fields; choose another one.")
    target = make_folder(output)
    known = {case.name: case for case in images}
    result, started = FolderResult(), time.perf_counter()
    for done, (name, path) in enumerate(found.items()):
        if should_stop():
            raise Cancelled("The compression was canceled; the files so far are kept.")
        progress(ProgressEvent("fields", done, len(found), time.perf_counter() - started))
        file = target / f"{name}{COMPRESSED}"
        if file.exists():
            result.skipped.append(name)
            continue
        try:
            loaded = load_field(path)
            given = _given(loaded, known.get(name), reading or {}, resample)
            with naming(field=path, image=_images(known.get(name))):
                made = compress(loaded, params, *given, should_stop=should_stop)
            made.save(file)
            result.metrics[name] = made.metrics
        except Cancelled:
            raise Cancelled("The compression was canceled; the files so far are kept.") from None
        except MedGSError as error:
            result.failed[name] = str(error)
    progress(ProgressEvent("fields", len(found), len(found), time.perf_counter() - started))
    return result


def _images(case: Case | None) -> list[str] | None:
    return None if case is None else list(case.images)


def _given(
    loaded: GaussianField, case: Case | None, reading: Mapping[str, Any], resample: bool
) -> tuple[Volume | None, NDArray[Any] | None]:
    """Return the image and the mask that a field was fitted to, as far as they are there."""
    from napari_medgs.io import read_labels, read_volumes

    if case is None:
        return None, None
    volume = read_volumes(case.images, **reading, resample=resample)
    if case.mask is None or not loaded.info.class_names:
        return volume, None
    with naming(mask=case.mask):
        return volume, read_labels(case.mask, loaded.info.grid, resample=resample)[0]


def totals(result: FolderResult) -> Mapping[str, Any]:
    """Return sums and means over the fields of a folder, JSON-able.

    Parameters
    ----------
    result : FolderResult
    """
    rows = list(result.metrics.values())
    losses = [row["loss"] for row in rows if row["loss"] is not None]
    return {
        "compressed": len(rows),
        "skipped": len(result.skipped),
        "failed": result.failed,
        "bytes": sum(row["bytes"] for row in rows),
        "bytes_exact": sum(row["bytes_exact"] for row in rows),
        "with_image": sum(row["tuned_to"] == "image" for row in rows),
        "loss_mean": sum(losses) / len(losses) if losses else None,
        "loss_max": max(losses, default=None),
        "fields": result.metrics,
    }

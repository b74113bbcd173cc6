"""DICOM segmentations (SEG): segments as one label image, in place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.data.grid import Grid
from napari_medgs.data.volume import Volume
from napari_medgs.errors import FileError, GeometryError, LabelError
from napari_medgs.io._limits import check_memory
from napari_medgs.io.dicom.file import is_dicom_file
from napari_medgs.io.dicom.frames import Frame, frames_of
from napari_medgs.io.dicom.geometry import LPS_TO_RAS, arrange
from napari_medgs.io.dicom.header import (
    LABEL_MAP,
    SEGMENTATION,
    class_uid,
    integer,
    items,
    numbers,
    read_class,
    read_code,
    read_header,
    text,
)
from napari_medgs.io.dicom.pixels import decode_file
from napari_medgs.io.dicom.private import kept_stack, label_value
from napari_medgs.io.dicom.segments import (
    DicomSegment,
    chosen_segments,
    refuse_overlap,
    rgb_of_cielab,
)
from napari_medgs.io.labels import compact_labels

_SAME_PLACE = 1e-2  # millimeters
_MOST_SLICES = 100_000


def is_dicom_segmentation(path: str | Path) -> bool:
    """Tell by its header whether a file is a DICOM segmentation."""
    path = Path(path)
    if not path.is_file() or not is_dicom_file(path):
        return False
    return read_class(path) in (SEGMENTATION, LABEL_MAP)


def read_dicom_segments(path: str | Path) -> list[DicomSegment]:
    """Return the segments that a DICOM segmentation describes.

    Raises
    ------
    FileError
        When the file is no DICOM file.
    """
    header = read_header(path)
    if header is None:
        raise FileError(f"{path}: cannot be read as a DICOM file.")
    found = []
    for k, item in enumerate(items(header, "SegmentSequence"), 1):
        number = integer(item, "SegmentNumber", k)
        color = numbers(item, "RecommendedDisplayCIELabValue", 3)
        found.append(
            DicomSegment(
                label_value(item) or number,
                text(item, "SegmentLabel") or f"Segment {number}",
                None if color is None else rgb_of_cielab(color),
                number,
                read_code(item, "SegmentedPropertyCategoryCodeSequence"),
                read_code(item, "SegmentedPropertyTypeCodeSequence"),
            )
        )
    if len({s.value for s in found}) < len(found):
        return [replace(s, value=s.number) for s in found]
    return found


def read_dicom_segmentation(
    path: str | Path, like: Grid | None = None, *, segments: Sequence[str] = ()
) -> tuple[NDArray[Any], Grid, list[DicomSegment]]:
    """Read a DICOM segmentation as one label image.

    Parameters
    ----------
    path : str or Path
    like : Grid, optional
        The image's grid, onto which the segmentation is padded and cropped.
    segments : sequence of str
        Names (or numbers) of the segments to read; all by default.

    Returns
    -------
    labels : (Z, Y, X) ndarray of integers
        Segment numbers, 0 where there is none.
    grid : Grid
        ``like`` where that was given.
    found : list of DicomSegment
        The segments read.

    Raises
    ------
    LabelError
        When segments overlap, are fractional, or one that was asked for is not there.
    GeometryError
        When the slices form no stack, or do not lie on voxels of ``like``.
    FileError, MemoryEstimateError
        When the file is damaged, or would not fit into memory.

    References
    ----------
    DICOM PS3.3, C.8.20 (Segmentation).
    """
    path = Path(path)
    header = read_header(path)
    if header is None or class_uid(header) not in (SEGMENTATION, LABEL_MAP):
        raise FileError(f"{path}: no DICOM segmentation.")
    label_map = class_uid(header) == LABEL_MAP or text(header, "SegmentationType") == "LABELMAP"
    if not label_map and text(header, "SegmentationType") != "BINARY":
        raise LabelError(
            f"{path}: its segments are fractional (probability or occupancy), not a mask; "
            "threshold them first."
        )
    known = [s for s in read_dicom_segments(path) if s.number > 0 or not label_map]
    wanted = chosen_segments(path, known, segments)
    frames = frames_of(path, header)
    stack, affine, index = _stack(path, header, frames)
    stored = decode_file(path)
    if stored.shape != (len(frames), *frames[0].shape):
        raise FileError(f"{path}: truncated or damaged; replace it.")
    values = {s.number: s.value for s in wanted}
    top = max(values.values(), default=0)
    labels = np.zeros((stack, *frames[0].shape), np.uint16 if top < 2**16 else np.uint32)
    owners = None if label_map else _segment_numbers(path, header, len(frames))
    for k, (frame, z) in enumerate(zip(stored, index, strict=True)):
        if owners is None:
            for number, value in values.items():
                labels[z][frame == number] = value
        elif owners[k] in values:
            inside = frame != 0
            taken = labels[z][inside]
            if taken.any():
                refuse_overlap(path, known, int(taken[taken != 0][0]), values[owners[k]])
            labels[z][inside] = values[owners[k]]
    volume = Volume.from_axes(
        compact_labels(labels).transpose(2, 1, 0)[None],
        affine,
        channel_names=(text(header, "SeriesDescription") or path.stem,),
        source={"kind": "dicom", "series": text(header, "SeriesInstanceUID")},
    )
    if like is None:
        return volume.data[0], volume.grid, wanted
    from napari_medgs.io._axes import place_on_grid

    return place_on_grid(volume.data[0], volume.grid, like, str(path)), like, wanted


def segmentation_volume(path: str | Path) -> Volume:
    """Return all segments of a DICOM segmentation as a volume of labels.

    Raises
    ------
    LabelError, GeometryError, FileError, MemoryEstimateError
        As :func:`read_dicom_segmentation`.
    """
    labels, grid, _ = read_dicom_segmentation(path)
    return Volume(labels[None], grid, (Path(path).stem,))


def _segment_numbers(path: Path, header: Any, count: int) -> list[int]:
    """Return the segment that each frame belongs to."""

    def of(groups: Any) -> int:
        identified = items(groups, "SegmentIdentificationSequence")
        return integer(identified[0], "ReferencedSegmentNumber") if identified else 0

    shared = items(header, "SharedFunctionalGroupsSequence")
    common = of(shared[0]) if shared else 0
    each = [of(g) or common for g in items(header, "PerFrameFunctionalGroupsSequence")]
    found = each or [common] * count
    if len(found) != count or not all(0 < n < 65536 for n in found):
        raise FileError(f"{path}: damaged: frames do not say to which segment they belong.")
    return found


def _stack(
    path: Path, header: Any, frames: Sequence[Frame]
) -> tuple[int, NDArray[np.float64], NDArray[np.int64]]:
    """Return the number of slices, their affine, and the slice of each frame.

    Slices without any segment are usually left out of the file, so that gaps of several steps
    are no fault here; the step is the stated one, or the smallest that occurs. Files that we
    wrote say where the whole stack lies.
    """
    if any(f.origin is None or f.axes is None or f.spacing is None for f in frames):
        raise GeometryError(
            f"{path}: the segmentation does not say where it lies (position, orientation or "
            "pixel size is missing)."
        )
    first = frames[0]
    kept = kept_stack(header)
    if kept is not None:
        whole = _whole_stack(path, frames, *kept)
        if whole is not None:
            return whole
    normal = first.normal
    places = np.array([f.origin @ normal for f in frames if f.origin is not None])
    ordered = np.unique(np.rint(places / _SAME_PLACE).astype(np.int64)) * _SAME_PLACE
    step = float(np.diff(ordered).min()) if len(ordered) > 1 else 0.0
    # A stated step counts where the places are multiples of it: slices may all be 2 apart.
    stated = first.thickness
    if stated > 0 and (step == 0 or abs(step / stated - round(step / stated)) < 0.02 * step):
        step = stated
    if step <= 0:
        step = 1.0
    index = np.rint((places - places.min()) / step).astype(np.int64)
    count = int(index.max()) + 1
    if count > _MOST_SLICES:
        raise GeometryError(f"{path}: the slices of the segmentation are unevenly spaced.")
    check_memory(path, 6 * count * first.shape[0] * first.shape[1])
    # One frame for each place; the checks of a series then hold for the places in between, too.
    one = {int(z): frame for z, frame in zip(index, frames, strict=True)}
    off = np.abs((places - places.min()) / step - index).max()
    if off > 0.05:
        raise GeometryError(
            f"{path}: the slices of the segmentation are unevenly spaced; resample it first."
        )
    low, high = one[0], one[count - 1]
    across = step * normal
    if count > 1 and low.origin is not None and high.origin is not None:
        across = (high.origin - low.origin) / (count - 1)
    filled = []
    for z in range(count):
        base = one.get(z, low)
        origin = base.origin if z in one or low.origin is None else low.origin + z * across
        filled.append(Frame(**{**base.__dict__, "origin": origin, "thickness": step}))
    return count, arrange(path, filled, None)[1], index


def _whole_stack(
    path: Path,
    frames: Sequence[Frame],
    origin: NDArray[np.float64],
    step: NDArray[np.float64],
    count: int,
) -> tuple[int, NDArray[np.float64], NDArray[np.int64]] | None:
    """Return the stack that a file keeps; None where its frames do not lie on it."""
    first = frames[0]
    length = float(step @ step)
    if count > _MOST_SLICES or first.axes is None or first.spacing is None or not length > 0:
        return None
    away = np.array([f.origin for f in frames], dtype=np.float64) - origin
    index = np.rint(away @ step / length).astype(np.int64)
    off = np.abs(away - index[:, None] * step).max()
    if off > _SAME_PLACE or index.min() < 0 or index.max() >= count:
        return None
    check_memory(path, 6 * count * first.shape[0] * first.shape[1])
    lps = np.eye(4)
    lps[:3, 0] = first.axes[0] * first.spacing[1]
    lps[:3, 1] = first.axes[1] * first.spacing[0]
    lps[:3, 2], lps[:3, 3] = step, origin
    return count, LPS_TO_RAS @ lps + 0.0, index

"""DICOM segmentations (SEG): segments as one label image, in place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
from napari_medgs.io.dicom.geometry import arrange
from napari_medgs.io.dicom.header import (
    LABEL_MAP,
    SEGMENTATION,
    class_uid,
    integer,
    items,
    numbers,
    read_header,
    text,
)
from napari_medgs.io.dicom.pixels import decode_file
from napari_medgs.io.labels import compact_labels

_SAME_PLACE = 1e-2  # millimeters
_MOST_SLICES = 100_000


@dataclass(frozen=True)
class DicomSegment:
    """One segment of a DICOM segmentation.

    Attributes
    ----------
    value : int
        Segment number, which is its label value.
    name : str
        Segment label.
    color : (red, green, blue) or None
        From 0 to 1; None where the file recommends none.
    """

    value: int
    name: str
    color: tuple[float, float, float] | None = None


def is_dicom_segmentation(path: str | Path) -> bool:
    """Tell by its header whether a file is a DICOM segmentation."""
    path = Path(path)
    if not path.is_file() or not is_dicom_file(path):
        return False
    header = read_header(path)
    return header is not None and class_uid(header) in (SEGMENTATION, LABEL_MAP)


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
        value = integer(item, "SegmentNumber", k)
        color = numbers(item, "RecommendedDisplayCIELabValue", 3)
        name = text(item, "SegmentLabel") or f"Segment {value}"
        found.append(DicomSegment(value, name, None if color is None else _rgb(color)))
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
    known = [s for s in read_dicom_segments(path) if s.value > 0 or not label_map]
    wanted = _chosen(path, known, segments)
    frames = frames_of(path, header)
    stack, affine, index = _stack(path, frames)
    stored = decode_file(path)
    if stored.shape != (len(frames), *frames[0].shape):
        raise FileError(f"{path}: truncated or damaged; replace it.")
    labels = np.zeros((stack, *frames[0].shape), np.uint16)
    values = {s.value for s in wanted}
    owners = None if label_map else _segment_numbers(path, header, len(frames))
    for k, (frame, z) in enumerate(zip(stored, index, strict=True)):
        if owners is None:
            labels[z] = np.where(np.isin(frame, list(values)), frame, 0)
        elif owners[k] in values:
            inside = frame != 0
            taken = labels[z][inside]
            if taken.any():
                _refuse_overlap(path, known, int(taken[taken != 0][0]), owners[k])
            labels[z][inside] = owners[k]
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
    path: Path, frames: Sequence[Frame]
) -> tuple[int, NDArray[np.float64], NDArray[np.int64]]:
    """Return the number of slices, their affine, and the slice of each frame.

    Slices without any segment are usually left out of the file, so that gaps of several steps
    are no fault here; the step is the stated one, or the smallest that occurs.
    """
    if any(f.origin is None or f.axes is None or f.spacing is None for f in frames):
        raise GeometryError(
            f"{path}: the segmentation does not say where it lies (position, orientation or "
            "pixel size is missing)."
        )
    first = frames[0]
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


def _chosen(path: Path, known: list[DicomSegment], names: Sequence[str]) -> list[DicomSegment]:
    """Return the segments that names or numbers ask for, all of them without any."""
    chosen: list[DicomSegment] = []
    for name in names:
        match = [s for s in known if s.name == name] or [s for s in known if str(s.value) == name]
        if not match:
            listed = ", ".join(f"'{s.name}'" for s in known) or "none"
            raise LabelError(f"{path}: has no segment '{name}'. There are: {listed}.")
        chosen += [s for s in match if s not in chosen]
    return chosen or known


def _refuse_overlap(path: Path, known: list[DicomSegment], one: int, other: int) -> None:
    names = {s.value: s.name for s in known}
    listed = ", ".join(f"'{s.name}'" for s in known)
    raise LabelError(
        f"{path}: segments '{names.get(one, one)}' and '{names.get(other, other)}' overlap, and a "
        f"label image holds one label per voxel. Choose segments that do not overlap, of: "
        f"{listed}."
    )


def _rgb(stored: NDArray[np.float64]) -> tuple[float, float, float]:
    """Return a color stored as CIELab of 16 bits (PS3.3 C.10.7.1.1) as sRGB from 0 to 1."""
    lightness = stored[0] * 100 / 65535
    a, b = stored[1:] * 255 / 65535 - 128
    y = (lightness + 16) / 116
    xyz = np.array([y + a / 500, y, y - b / 200])
    xyz = np.where(xyz > 6 / 29, xyz**3, 3 * (6 / 29) ** 2 * (xyz - 4 / 29))
    xyz *= (0.9505, 1.0, 1.0890)  # White point D65.
    linear = (
        np.array(
            [[3.2406, -1.5372, -0.4986], [-0.9689, 1.8758, 0.0415], [0.0557, -0.2040, 1.0570]]
        )
        @ xyz
    )
    linear = np.clip(linear, 0, 1)
    red, green, blue = np.where(
        linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, 12.92 * linear
    )
    return (float(red), float(green), float(blue))

"""RT Structure Sets: contours as masks on the series that they refer to."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.data.grid import Grid
from napari_medgs.errors import FileError, GeometryError, LabelError
from napari_medgs.io._limits import check_memory
from napari_medgs.io.dicom.contours import fill_polygons
from napari_medgs.io.dicom.file import is_dicom_file
from napari_medgs.io.dicom.frames import frames_of
from napari_medgs.io.dicom.header import (
    STRUCTURE_SET,
    class_uid,
    integer,
    items,
    numbers,
    quiet_pydicom,
    read_class,
    read_code,
    read_header,
    text,
)
from napari_medgs.io.dicom.segments import DicomSegment, chosen_segments, refuse_overlap
from napari_medgs.io.dicom.source import series_grid
from napari_medgs.io.dicom.volumes import split_volumes
from napari_medgs.io.labels import compact_labels

_FLAT = 0.2  # slices: contours may lie this far off one, for their numbers are rounded
_CONTOUR_DATA = 0x30060050
_AREAS = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
_MOST_BESIDE, _MOST_AROUND = 20_000, 5_000  # files
_LPS_TO_RAS = np.array([-1.0, -1.0, 1.0])


@dataclass(frozen=True)
class Structure:
    """One structure and its closed contours.

    Attributes
    ----------
    segment : DicomSegment
    contours : list of (N, 3) ndarray
        RAS millimeters.
    """

    segment: DicomSegment
    contours: list[NDArray[np.float64]]


def is_structure_set(path: str | Path) -> bool:
    """Tell by its header whether a file is an RT Structure Set."""
    path = Path(path)
    if not path.is_file() or not is_dicom_file(path):
        return False
    return read_class(path) == STRUCTURE_SET


def list_structures(path: str | Path) -> list[DicomSegment]:
    """Return the structures of a file that have closed contours.

    Raises
    ------
    FileError
        When the file is no structure set, or damaged.
    """
    path = Path(path)
    return [s.segment for s in _structures(path, _open(path))]


def read_structures(
    path: str | Path, like: Grid | None = None, *, segments: Sequence[str] = ()
) -> tuple[NDArray[Any], Grid, list[DicomSegment]]:
    """Read an RT Structure Set as one label image.

    Parameters
    ----------
    path : str or Path
    like : Grid, optional
        The image's grid. By default that of the series to which the file refers, which is looked
        for beside the file, in folders below, and in folders beside its own.
    segments : sequence of str
        Names (or ROI numbers) of the structures to read; all with closed contours by default.

    Returns
    -------
    labels : (Z, Y, X) ndarray of integers
        ROI numbers, 0 where there is none.
    grid : Grid
        ``like`` where that was given.
    found : list of DicomSegment
        The structures read.

    Raises
    ------
    LabelError
        When structures overlap, none has a closed contour, or one that was asked for is not
        there.
    GeometryError
        When contours do not lie on slices of the grid.
    FileError
        When the file is damaged, or its series is not found.

    Notes
    -----
    A voxel belongs to a structure where its center lies inside, by the even-odd rule over all
    contours of a slice: a contour within another is a hole. See
    :func:`~napari_medgs.io.dicom.contours.fill_polygons`.

    References
    ----------
    DICOM PS3.3, C.8.8.6 (ROI Contour).
    """
    path = Path(path)
    header = _open(path)
    known = _structures(path, header)
    if not known:
        raise LabelError(f"{path}: no structure has a closed contour; there is no mask in it.")
    listed = [s.segment for s in known]
    wanted = chosen_segments(path, listed, segments)
    grid = _referenced_grid(path, header) if like is None else like
    check_memory(path, 5 * int(np.prod(grid.shape)))
    chosen = [s for s in known if s.segment in wanted]
    axis = _slice_axis(path, grid, chosen)
    labels = np.zeros(grid.shape, np.int32)
    stack = np.moveaxis(labels, axis, 0)
    outside = 0
    for structure in chosen:
        slices, beyond = _by_slice(path, structure, grid, axis)
        outside += beyond
        for k, polygons in slices.items():
            inside = fill_polygons(polygons, (stack.shape[1], stack.shape[2]))
            taken = stack[k][inside]
            if taken.any():
                refuse_overlap(path, listed, int(taken[taken != 0][0]), structure.segment.value)
            stack[k][inside] = structure.segment.value
    if outside:
        warnings.warn(f"{path}: {outside:,} contours lie outside the image.", stacklevel=2)
    return compact_labels(labels), grid, wanted


def _open(path: Path) -> Any:
    header = read_header(path)
    if header is None or class_uid(header) != STRUCTURE_SET:
        raise FileError(f"{path}: no RT Structure Set.")
    return header


def _structures(path: Path, header: Any) -> list[Structure]:
    """Return the structures with closed contours, in the file's order of contours."""
    names = {
        integer(item, "ROINumber"): text(item, "ROIName")
        for item in items(header, "StructureSetROISequence")
    }
    kinds = {
        integer(item, "ReferencedROINumber"): read_code(item, "RTROIIdentificationCodeSequence")
        for item in items(header, "RTROIObservationsSequence")
    }
    found = []
    for item in items(header, "ROIContourSequence"):
        number = integer(item, "ReferencedROINumber")
        contours = [
            _points(path, contour)
            for contour in items(item, "ContourSequence")
            if text(contour, "ContourGeometricType") in _AREAS
        ]
        if not contours:
            continue
        color = numbers(item, "ROIDisplayColor", 3)
        segment = DicomSegment(
            number,
            names.get(number) or f"ROI {number}",
            None if color is None else _rgb(color),
            number,
            kind=kinds.get(number),
        )
        found.append(Structure(segment, contours))
    values = [s.segment.value for s in found]
    if len(set(values)) < len(values) or not all(0 < v < 2**31 for v in values):
        # Labels need numbers of their own; 0 is what lies outside.
        return [Structure(replace(s.segment, value=k), s.contours) for k, s in enumerate(found, 1)]
    return found


def _rgb(stored: NDArray[np.float64]) -> tuple[float, float, float]:
    red, green, blue = np.clip(stored / 255, 0, 1).tolist()
    return (red, green, blue)


def _points(path: Path, contour: Any) -> NDArray[np.float64]:
    """Return the points of a contour, (N, 3) RAS millimeters."""
    with quiet_pydicom():
        try:
            element = contour.get_item(_CONTOUR_DATA)
            raw = element.value
            # Numbers are not decoded one by one: there may be millions.
            words = raw.split(b"\\") if isinstance(raw, bytes) else raw
            flat = np.array(words, dtype=np.float64)
        except Exception:  # Missing, or damaged in one of many ways.
            flat = np.empty(0)
    if flat.ndim != 1 or not flat.size or flat.size % 3 or not np.isfinite(flat).all():
        raise FileError(f"{path}: damaged: a contour is no list of points.")
    return flat.reshape(-1, 3) * _LPS_TO_RAS


def _slice_axis(path: Path, grid: Grid, structures: Sequence[Structure]) -> int:
    """Return the axis of the grid across which all contours are flat."""
    spread = np.zeros(3)
    for structure in structures:
        for contour in structure.contours:
            spread = np.maximum(spread, np.ptp(grid.to_voxel(contour), axis=0))
    axis = int(spread.argmin())
    if not spread[axis] <= _FLAT:
        raise GeometryError(
            f"{path}: its contours do not lie in planes of the image's voxels; they belong to "
            "another series, or the image was resampled or rotated."
        )
    return axis


def _by_slice(
    path: Path, structure: Structure, grid: Grid, axis: int
) -> tuple[dict[int, list[NDArray[np.float64]]], int]:
    """Return the polygons of each slice in voxels, and how many contours lie beyond the grid."""
    slices: dict[int, list[NDArray[np.float64]]] = defaultdict(list)
    beyond = 0
    inplane = [a for a in range(3) if a != axis]
    for contour in structure.contours:
        points = grid.to_voxel(contour)
        place = float(points[:, axis].mean())
        k = round(place) if abs(place) < 2**31 else -1
        if abs(place - k) > _FLAT:
            raise GeometryError(
                f"{path}: a contour of '{structure.segment.name}' lies between two slices of the "
                f"image ({abs(place - k):.2f} of their distance away from the next); it was drawn "
                "on another series."
            )
        low, high = points[:, inplane].min(axis=0), points[:, inplane].max(axis=0)
        sizes = np.array([grid.shape[a] for a in inplane])
        if not 0 <= k < grid.shape[axis] or (high < -0.5).any() or (low > sizes - 0.5).any():
            beyond += 1
            continue
        slices[k].append(points[:, inplane])
    places = sorted(slices)
    if len(places) > 2 and int(np.diff(places).min()) > 1:
        warnings.warn(
            f"{path}: '{structure.segment.name}' has contours on every "
            f"{int(np.diff(places).min())}. slice only; the slices between are left empty.",
            stacklevel=3,
        )
    return slices, beyond


def _referenced_series(header: Any) -> dict[str, set[str]]:
    """Return the series that a structure set refers to, with the instances that it lists."""
    found: dict[str, set[str]] = {}
    for frame in items(header, "ReferencedFrameOfReferenceSequence"):
        for study in items(frame, "RTReferencedStudySequence"):
            for series in items(study, "RTReferencedSeriesSequence"):
                uid = text(series, "SeriesInstanceUID")
                images = items(series, "ContourImageSequence")
                if uid:
                    found[uid] = {text(i, "ReferencedSOPInstanceUID") for i in images} - {""}
    return found


def _referenced_grid(path: Path, header: Any) -> Grid:
    """Find the series that a structure set refers to, and return its grid."""
    wanted = _referenced_series(header)
    if not wanted:
        raise FileError(
            f"{path}: holds contours and does not say of which series; give the image that they "
            "lie on (--like)."
        )
    folder = path.resolve().parent
    searched: set[Path] = set()
    for place, most in ((folder, _MOST_BESIDE), (folder.parent, _MOST_AROUND)):
        headers = _find_series(_some_files(place, most), set(wanted), searched)
        for uid, listed in wanted.items():
            files = _listed_files(headers.get(uid, {}), listed)
            if files:
                frames = [f for p, h in files.items() for f in frames_of(p, h)]
                volume = next(iter(split_volumes(frames).values()))
                return series_grid(path, files, volume).grid
    raise FileError(
        f"{path}: holds contours on the series {next(iter(wanted))}, which was not found beside "
        "them; put it there, or give the image (--like)."
    )


def _listed_files(headers: dict[str, Any], listed: set[str]) -> dict[str, Any]:
    """Return the files of the folders with slices that are listed, none of them twice."""
    instances = {path: text(header, "SOPInstanceUID") for path, header in headers.items()}
    folders = {Path(path).parent for path, uid in instances.items() if uid in listed}
    found: dict[str, Any] = {}
    seen: set[str] = set()
    for path, uid in instances.items():
        if (not listed or Path(path).parent in folders) and not (uid and uid in seen):
            found[path] = headers[path]
            seen.add(uid)
    return found


def _find_series(
    files: Iterator[Path], wanted: set[str], searched: set[Path]
) -> dict[str, dict[str, Any]]:
    """Return the headers of series among files, by UID and file."""
    found: dict[str, dict[str, Any]] = defaultdict(dict)
    for file in files:
        if file in searched or not is_dicom_file(file):
            continue
        searched.add(file)
        header = read_header(file)
        if header is not None and text(header, "Rows"):
            uid = text(header, "SeriesInstanceUID")
            if uid in wanted:
                found[uid][str(file)] = header
    return found


def _some_files(folder: Path, most: int) -> Iterator[Path]:
    """Yield the files below a folder, none where they are too many to look through."""
    found = []
    try:
        for count, file in enumerate(folder.rglob("*")):
            if count > most:
                return
            if file.is_file():
                found.append(file)
    except OSError:
        return
    yield from sorted(found)

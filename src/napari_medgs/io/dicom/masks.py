"""DICOM masks of both kinds, segmentations (SEG) and structure sets (RTSTRUCT), as labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.data.grid import Grid
from napari_medgs.errors import FileError, LabelError
from napari_medgs.io._axes import place_on_grid
from napari_medgs.io.dicom.header import LABEL_MAP, SEGMENTATION, STRUCTURE_SET, read_class
from napari_medgs.io.dicom.reference import open_source
from napari_medgs.io.dicom.segmentation import (
    is_dicom_segmentation,
    read_dicom_segmentation,
    read_dicom_segments,
)
from napari_medgs.io.dicom.segments import Code, DicomSegment
from napari_medgs.io.dicom.structures import is_structure_set, list_structures, read_structures
from napari_medgs.io.dicom.write_segmentation import write_segmentation
from napari_medgs.io.dicom.write_structures import write_structures
from napari_medgs.io.folders import visible_entries
from napari_medgs.io.labels import compact_labels

SUFFIX, STRUCTURES_SUFFIX = ".dcm", ".rtstruct.dcm"
"""Endings by which a mask is written as a segmentation or as contours."""

Codes = tuple[Code | None, Code | None]
"""Category and type of a segment."""


def is_dicom_mask(path: str | Path) -> bool:
    """Tell by its header whether a file is a DICOM segmentation or structure set."""
    return is_dicom_segmentation(path) or is_structure_set(path)


def mask_in(folder: Path) -> Path:
    """Return the DICOM mask that lies in a folder, as beside its image; else the folder.

    Raises
    ------
    LabelError
        When several lie there.
    """
    kinds = (SEGMENTATION, LABEL_MAP, STRUCTURE_SET)
    found = [f for f in visible_entries(folder) if f.is_file() and read_class(f) in kinds]
    if len(found) > 1:
        listed = ", ".join(f.name for f in found[:5]) + ", .." * (len(found) > 5)
        raise LabelError(f"{folder}: holds {len(found)} DICOM masks; give one of {listed}.")
    return found[0] if found else folder


def list_dicom_segments(path: str | Path) -> list[DicomSegment]:
    """Return the segments or structures of a DICOM mask.

    Raises
    ------
    FileError
        When it cannot be read.
    """
    listed = list_structures if is_structure_set(path) else read_dicom_segments
    return [segment for segment in listed(path) if segment.number > 0 or segment.value > 0]


def read_dicom_mask(
    path: str | Path, like: Grid | None = None, *, segments: Sequence[str] = ()
) -> tuple[NDArray[Any], Grid, list[DicomSegment]]:
    """Read a DICOM mask as one label image.

    See :func:`~napari_medgs.io.dicom.segmentation.read_dicom_segmentation` and
    :func:`~napari_medgs.io.dicom.structures.read_structures`, of which it calls one.
    """
    read = read_structures if is_structure_set(path) else read_dicom_segmentation
    return read(path, like, segments=segments)


def write_dicom_labels(
    path: str | Path,
    labels: NDArray[Any],
    grid: Grid,
    names: Mapping[int, str] | None = None,
    *,
    source: str | Path | None = None,
    series: str | None = None,
    volume: int | None = None,
    colors: Mapping[int, Sequence[float]] | None = None,
    codes: Mapping[int, Codes] | None = None,
) -> Path:
    """Write a mask as a DICOM segmentation, or as contours where the name says so.

    Parameters
    ----------
    path : str or Path
        Ends in ``.rtstruct.dcm`` for an RT Structure Set, else in ``.dcm`` for a segmentation.
    labels : (Z, Y, X) ndarray
        Integer values, none negative.
    grid : Grid
        Where they lie: on voxels of the series.
    names : mapping of int to str, optional
        By label value; ``Label <value>`` where there is none.
    source : str or Path
        The DICOM series of the image: a folder or file.
    series, volume
        Which one of several; see :func:`napari_medgs.io.dicom.series.read_dicom`.
    colors : mapping of int to (red, green, blue), optional
        From 0 to 1.
    codes : mapping of int to (category, type), optional
        Each (value, scheme, meaning), as ``("10200004", "SCT", "Liver")``, or None.

    Returns
    -------
    Path

    Raises
    ------
    FileError
        When no series is given or it cannot be used, or the file would overwrite a slice of it.
    LabelError
        When values are not integers, or negative, or the mask is empty.
    GeometryError
        When the mask does not lie on voxels of the series.
    """
    path = Path(path)
    if source is None:
        raise FileError(
            f"{path}: a DICOM mask refers to the DICOM series of its image; name it (--like "
            "SERIES, or source= in Python), or write .nii.gz, .nrrd or .seg.nrrd."
        )
    array = np.asarray(labels)
    if array.ndim != 3:
        raise LabelError(f"A mask has three axes (z, y, x), not shape {array.shape}.")
    array = compact_labels(array)
    if array.size and array.min() < 0:
        raise LabelError(f"{path}: DICOM has no negative labels, and the mask has {array.min()}.")
    found = open_source(source, series=series, volume=volume)
    if path.resolve() in {Path(file).resolve() for file in found.headers}:
        raise FileError(f"{path}: is a slice of the series; choose another output.")
    placed = place_on_grid(array, grid, found.grid, str(path))
    if array.any() and not placed.any():
        raise LabelError(
            f"{path}: no labeled voxel lies on the slices of {found.path}; give the whole series "
            "of the mask."
        )
    names, colors, codes = names or {}, colors or {}, codes or {}
    values = {int(v) for v in np.unique(placed)} | {int(v) for v in names}
    listed = [
        DicomSegment(
            value,
            names.get(value) or f"Label {value}",
            _color(colors.get(value)),
            category=codes.get(value, (None, None))[0],
            kind=codes.get(value, (None, None))[1],
        )
        for value in sorted(values)
        if value > 0
    ]
    contours = path.name.lower().endswith(STRUCTURES_SUFFIX)
    return (write_structures if contours else write_segmentation)(path, placed, found, listed)


def _color(color: Sequence[float] | None) -> tuple[float, float, float] | None:
    if color is None:
        return None
    red, green, blue = (float(c) for c in color[:3])
    return (red, green, blue)

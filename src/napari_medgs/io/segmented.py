"""Masks whose file names their segments: ``.seg.nrrd``, DICOM SEG and RTSTRUCT."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from napari_medgs.data.grid import Grid
from napari_medgs.errors import ParameterError
from napari_medgs.io.dicom.masks import (
    Codes,
    is_dicom_mask,
    list_dicom_segments,
    read_dicom_mask,
)
from napari_medgs.io.itk.segments import (
    is_segmentation,
    read_segmentation,
    read_segments,
    segment_labels,
)

Color = tuple[float, float, float]


@dataclass(frozen=True)
class LabelTable:
    """What a file says of its labels, by value.

    Attributes
    ----------
    names : dict of int to str
    colors : dict of int to (red, green, blue)
        From 0 to 1.
    codes : dict of int to (category, type)
        Coded concepts (value, scheme, meaning), or None.
    """

    names: dict[int, str] = field(default_factory=dict)
    colors: dict[int, Color] = field(default_factory=dict)
    codes: dict[int, Codes] = field(default_factory=dict)


def has_segments(path: str | Path) -> bool:
    """Tell whether a file is a mask that names its segments."""
    return is_segmentation(path) or is_dicom_mask(path)


def segments_by_file(
    names: Sequence[str] | None, *paths: str | Path | None
) -> dict[str, tuple[str, ...]]:
    """Return which segments to read of each of several masks.

    Parameters
    ----------
    names : sequence of str or None
        Names or numbers; all segments without any.
    *paths : str, Path or None
        Masks; None for one that was not given.

    Returns
    -------
    dict of str to tuple of str
        By path, for :func:`napari_medgs.io.read_labels`: the names where the file names its
        segments, none where it does not.

    Raises
    ------
    ParameterError
        When names are given and no file names its segments.
    """
    given = [path for path in paths if path is not None]
    names = () if names is None else tuple(names)
    found = {str(p): names if has_segments(p) else () for p in given}
    if names and not any(found.values()):
        raise ParameterError(
            f"{', '.join(found)}: only .seg.nrrd files and DICOM masks have segments to choose "
            "from."
        )
    return found


def segment_names(path: str | Path) -> dict[int, str]:
    """Return the names of a file's segments by label value.

    Raises
    ------
    FileError
        When the file is damaged.
    """
    if is_segmentation(path):
        known = read_segments(path)
        return {v: s.name for v, s in zip(segment_labels(known), known, strict=True)}
    return {s.value: s.name for s in list_dicom_segments(path)}


def read_segmented(
    path: str | Path, like: Grid | None = None, *, segments: Sequence[str] = (), **options: Any
) -> tuple[NDArray[Any], Grid, LabelTable]:
    """Read a mask that names its segments as one label image.

    Parameters
    ----------
    path : str or Path
    like : Grid, optional
        The image's grid, onto which the mask is padded and cropped.
    segments : sequence of str
        Names, or numbers, of the segments to read; all by default.
    **options
        spacing and assume_identity of :func:`napari_medgs.io.read_volume`, for ``.seg.nrrd``.

    Returns
    -------
    labels : (Z, Y, X) ndarray of integers
    grid : Grid
        ``like`` where that was given.
    table : LabelTable
        Of the segments read.

    Raises
    ------
    LabelError
        When segments overlap, or one that was asked for is not there.
    GeometryError
        When the mask does not lie on voxels of ``like``.
    FileError, MemoryEstimateError
        When the file is damaged, or would not fit into memory.
    """
    if is_segmentation(path):
        labels, grid, found = read_segmentation(path, like, segments=segments, **options)
        return labels, grid, LabelTable({s.value: s.name for s in found},
                                        {s.value: s.color for s in found})  # fmt: skip
    labels, grid, listed = read_dicom_mask(path, like, segments=segments)
    return (
        labels,
        grid,
        LabelTable(
            {s.value: s.name for s in listed},
            {s.value: s.color for s in listed if s.color is not None},
            {s.value: (s.category, s.kind) for s in listed if s.category or s.kind},
        ),
    )

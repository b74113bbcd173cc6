"""Scissors: an outline drawn in a slice, or in a picture of the volume, cuts a class."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_medgs.errors import GeometryError, LabelError, ParameterError
from napari_medgs.segmentation.postprocess.class_edits import Mask, with_shape

PIXELS = 2048  # of the longer side of an outline in a picture
LARGEST_PICTURE = 1e6  # pixels


class Cut(StrEnum):
    """What the scissors do with the voxels whose centers lie in the outline."""

    CUT = "cut"
    """Take them out of the class."""
    KEEP = "keep"
    """Take the others out of the class."""
    FILL = "fill"
    """Give the class those that are background."""


def cut_class(
    labels: NDArray[Any],
    label: int,
    outline: ArrayLike,
    cut: Cut | str = Cut.CUT,
    *,
    axis: int = 0,
    slices: tuple[int, int] | None = None,
    within: Mask | None = None,
) -> NDArray[Any]:
    """Return a mask in which one class was cut along an outline, straight through the slices.

    Parameters
    ----------
    labels : (Z, Y, X) ndarray of int
        Not changed. Other classes keep their voxels.
    label : int
        The class, above 0.
    outline : (P, 2) array of float
        Corners of a closed line, in voxels of the two other axes in their order. Where it crosses
        itself, the even-odd rule says what is inside.
    cut : Cut or str
    axis : int
        Across the slice in which the outline was drawn.
    slices : (int, int), optional
        First and last slice that are cut, clipped to the image; all by default. The others stay.
    within : (Z, Y, X) ndarray of bool, optional
        Where voxels may be added.

    Returns
    -------
    (Z, Y, X) ndarray of int
        A copy, of the same type.

    Raises
    ------
    ParameterError
        For an unknown cut, an outline without an area, or slices outside the image.
    LabelError
        When there are no voxels of the class to cut, or none would be left.
    GeometryError
        When mask and range differ in shape.

    Examples
    --------
    >>> import numpy as np
    >>> labels = np.ones((3, 6, 6), int)
    >>> square = [(0.5, 0.5), (0.5, 3.5), (3.5, 3.5), (3.5, 0.5)]
    >>> cut_class(labels, 1, square, "cut").sum(axis=(1, 2)).tolist()
    [27, 27, 27]
    >>> cut_class(labels, 1, square, "keep", slices=(1, 1)).sum(axis=(1, 2)).tolist()
    [36, 9, 36]
    """
    cut, before = _checked(labels, label, cut, within)
    size = labels.shape[axis]
    first, last = (0, size - 1) if slices is None else (int(slices[0]), int(slices[1]))
    first, last = max(first, 0), min(last, size - 1)
    if first > last:
        raise ParameterError(f"The slices to {cut} must lie in the image, from 0 to {size - 1}.")
    flat = tuple(n for a, n in enumerate(labels.shape) if a != axis)
    inside = np.expand_dims(in_outline((flat[0], flat[1]), outline), axis)
    part: list[slice] = [slice(None)] * 3
    part[axis] = slice(first, last + 1)
    after = before.copy()
    _apply(cut, after[tuple(part)], inside)
    return _result(labels, label, after, within)


def cut_class_in_view(
    labels: NDArray[Any],
    label: int,
    outline: ArrayLike,
    projection: ArrayLike,
    cut: Cut | str = Cut.CUT,
    *,
    within: Mask | None = None,
) -> NDArray[Any]:
    """Return a mask in which one class was cut along an outline on a picture of the volume.

    The cut goes along the direction of view, through all of the volume.

    Parameters
    ----------
    labels : (Z, Y, X) ndarray of int
        Not changed. Other classes keep their voxels.
    label : int
        The class, above 0.
    outline : (P, 2) array of float
        Corners of a closed line (x, y) in pixels of the picture, by the even-odd rule.
    projection : (4, 4) array of float
        From voxels (z, y, x, 1) to pixels (x w, y w, any, w), as of a camera with or without
        perspective. What lies behind the camera, w at most 0, is outside of the line.
    cut : Cut or str
    within : (Z, Y, X) ndarray of bool, optional
        Where voxels may be added.

    Returns
    -------
    (Z, Y, X) ndarray of int
        A copy, of the same type.

    Raises
    ------
    ParameterError
        For an unknown cut, an outline without an area, or a projection that is none.
    LabelError
        When there are no voxels of the class to cut, or none would be left.
    GeometryError
        When mask and range differ in shape.

    Examples
    --------
    >>> import numpy as np
    >>> labels = np.ones((3, 6, 6), int)
    >>> square = [(0.5, 0.5), (0.5, 3.5), (3.5, 3.5), (3.5, 0.5)]
    >>> from_above = [[0, 0, 1, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]]
    >>> cut_class_in_view(labels, 1, square, from_above).sum(axis=(1, 2)).tolist()
    [27, 27, 27]
    """
    cut, before = _checked(labels, label, cut, within)
    matrix = np.asarray(projection, np.float64)
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
        raise ParameterError("The projection must be a finite (4, 4) matrix.")
    corners = np.asarray(outline, np.float64)
    if corners.ndim != 2 or corners.shape[1:] != (2,) or not np.isfinite(corners).all():
        raise ParameterError("The outline must be (P, 2) finite numbers.")
    low = np.floor(corners.min(axis=0))
    span = np.ceil(corners.max(axis=0)) - low
    if len(corners) < 3 or span.max() > LARGEST_PICTURE:
        raise ParameterError("The outline holds no voxel: draw a line around something.")
    scale = PIXELS / max(span.max(), 1)  # so fine that rounding to it does not show
    width, height = (int(n) + 1 for n in np.ceil(span * scale))
    picture = in_outline((width, height), (corners - low) * scale)
    asked = before if cut is not Cut.FILL else labels == 0
    after = before.copy()
    for z, (candidates, changed) in enumerate(zip(asked, after, strict=True)):
        rows, columns = np.nonzero(candidates)
        if not len(rows):
            continue
        x, y, _, w = matrix[:, 1:3] @ (rows, columns) + (matrix[:, :1] * z + matrix[:, 3:])
        ahead = w > 0
        divisor = np.where(ahead, w, 1.0)
        at = np.stack([x / divisor - low[0], y / divisor - low[1]]) * scale
        at = np.floor(np.clip(at, -1, 2 * PIXELS) + 0.5).astype(np.int64)
        ahead &= (at[0] >= 0) & (at[0] < width) & (at[1] >= 0) & (at[1] < height)
        inside = np.zeros(candidates.shape, np.bool_)
        inside[rows[ahead], columns[ahead]] = picture[at[0, ahead], at[1, ahead]]
        _apply(cut, changed, inside, candidates)
    return _result(labels, label, after, within)


def _result(labels: NDArray[Any], label: int, after: Mask, within: Mask | None) -> NDArray[Any]:
    """Return the mask with the class as it is after the cut."""
    if not after.any():
        raise LabelError(
            f"Nothing of class {label} would be left: draw the line around less of it, or around "
            "what is to stay where all else goes."
        )
    return with_shape(labels, label, after, within)


def _checked(
    labels: NDArray[Any], label: int, cut: Cut | str, within: Mask | None
) -> tuple[Cut, Mask]:
    """Return what to do and where the class is."""
    try:
        cut = Cut(cut)
    except ValueError:
        known = ", ".join(Cut)
        raise ParameterError(f"There is no cut {cut!r}; there are {known}.") from None
    if within is not None and within.shape != labels.shape:
        raise GeometryError("The mask and the range within it differ in shape.")
    before = labels == label
    if label <= 0 or (cut is not Cut.FILL and not before.any()):
        raise LabelError(f"The mask has no voxels of class {label} to {cut}.")
    return cut, before


def _apply(cut: Cut, mask: Mask, inside: Mask, candidates: Mask | bool = True) -> None:
    """Change a part of a mask in place."""
    if cut is Cut.CUT:
        mask &= ~inside
    elif cut is Cut.KEEP:
        mask &= inside
    else:
        mask |= inside & candidates


def in_outline(shape: tuple[int, int], outline: ArrayLike) -> NDArray[np.bool_]:
    """Tell which pixels have their centers in a closed line.

    Parameters
    ----------
    shape : (int, int)
    outline : (P, 2) array of float
        Corners, in pixels; the last one is joined to the first.

    Raises
    ------
    ParameterError
        For fewer than three corners, or a line around no center at all.
    """
    from skimage.draw import polygon

    corners = np.asarray(outline, np.float64)
    inside = np.zeros(shape, np.bool_)
    if corners.ndim == 2 and corners.shape[1] == 2 and len(corners) > 2:
        if not np.isfinite(corners).all():
            raise ParameterError("The outline must consist of finite numbers.")
        inside[polygon(corners[:, 0], corners[:, 1], shape)] = True
    if not inside.any():
        raise ParameterError("The outline holds no voxel: draw a line around something.")
    return inside

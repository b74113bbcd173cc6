"""Scissors: an outline drawn in one slice cuts, keeps or fills a class through many slices."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_medgs.errors import GeometryError, LabelError, ParameterError
from napari_medgs.segmentation.postprocess.class_edits import Mask, with_shape


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
    size = labels.shape[axis]
    first, last = (0, size - 1) if slices is None else (int(slices[0]), int(slices[1]))
    first, last = max(first, 0), min(last, size - 1)
    if first > last:
        raise ParameterError(f"The slices to {cut} must lie in the image, from 0 to {size - 1}.")
    flat = tuple(n for a, n in enumerate(labels.shape) if a != axis)
    inside = np.expand_dims(in_outline((flat[0], flat[1]), outline), axis)
    part: list[slice] = [slice(None)] * 3
    part[axis] = slice(first, last + 1)
    box, after = tuple(part), before.copy()
    if cut is Cut.CUT:
        after[box] &= ~inside
    elif cut is Cut.KEEP:
        after[box] &= inside
    else:
        after[box] |= inside
    return with_shape(labels, label, after, within)


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

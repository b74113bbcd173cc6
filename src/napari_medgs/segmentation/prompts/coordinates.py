"""Places and voxels of prompts, given as coordinates, lines or masks."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_medgs.data.grid import Grid
from napari_medgs.errors import GeometryError, LabelError
from napari_medgs.segmentation.prompts.kinds import LABELS


def to_voxels(
    grid: Grid,
    places: Sequence[Sequence[float]] | ArrayLike,
    world: bool = False,
    inside: bool = True,
) -> NDArray[np.float64]:
    """Return places as voxel coordinates.

    Parameters
    ----------
    grid : Grid
    places : (N, 3) array
        (z, y, x) in voxels, or (x, y, z) in RAS millimeters with ``world``.
    world : bool
    inside : bool
        Whether they must lie in the image.

    Returns
    -------
    (N, 3) ndarray
        (z, y, x).

    Raises
    ------
    GeometryError
        When they are no triples of finite numbers, or outside of the image.

    Examples
    --------
    >>> import numpy as np
    >>> to_voxels(Grid((2, 3, 4), 2 * np.eye(4)), [(2.0, 4.0, 6.0)], world=True).tolist()
    [[1.0, 2.0, 3.0]]
    """
    order = "x, y, z in millimeters" if world else "z, y, x in voxels"
    try:
        points = np.asarray(places)
    except ValueError:  # places of several lengths
        points = np.empty(0)
    number = points.dtype.kind in "iuf" and points.ndim == 2 and points.shape[1] == 3
    if not number or not np.isfinite(points).all():
        raise GeometryError(f"A place is three finite numbers: {order}.")
    points = points.astype(np.float64, copy=False)
    if world:
        inverse = np.linalg.inv(grid.affine)
        points = points @ inverse[:3, :3].T + inverse[:3, 3]
    outside = ((points < -0.5) | (points > np.asarray(grid.shape) - 0.5)).any(axis=1)
    if inside and outside.any():
        z, y, x = points[outside][0]
        raise GeometryError(
            f"The place ({z:.6g}, {y:.6g}, {x:.6g}) lies outside of the image of shape "
            f"{grid.shape} in voxels."
        )
    return points


def marked_voxels(
    grid: Grid, where: ArrayLike, world: bool = False
) -> NDArray[np.bool_] | tuple[NDArray[np.int64], ...]:
    """Return an index expression for the voxels of a mask or of a line.

    Parameters
    ----------
    grid : Grid
    where : (Z, Y, X) boolean array, or (N, 3) array
        A mask, or corners of a line; see :func:`to_voxels`.
    world : bool

    Returns
    -------
    ndarray of bool, or tuple of ndarray of int

    Raises
    ------
    GeometryError, LabelError
        When it does not fit the image, or marks nothing.

    Examples
    --------
    >>> z, y, x = marked_voxels(Grid((2, 3, 4)), [(1, 2, 0), (1, 2, 3)])
    >>> x.tolist()
    [0, 1, 2, 3]
    """
    try:
        array = np.asarray(where)
    except ValueError:  # corners of several lengths
        array = np.empty(1)
    if array.dtype != bool:
        from skimage.draw import line_nd

        if array.size == 0:
            raise LabelError("The scribble marks no voxel.")
        if array.ndim > 2 or (array.shape == grid.shape[1:] and array.shape[1] != 3):
            raise LabelError(
                f"The scribble is an image of {array.dtype}; give a mask of booleans, such as "
                "image == 1, or the corners of a line."
            )
        corners = to_voxels(grid, array, world)
        lines = [corners] if len(corners) == 1 else []
        for first, second in itertools.pairwise(corners):
            lines.append(np.stack(line_nd(first, second, endpoint=True), axis=1))
        voxels = np.round(np.concatenate(lines)).astype(int)
        return tuple(np.clip(voxels, 0, np.asarray(grid.shape) - 1).T)
    if array.shape != grid.shape:
        raise GeometryError(f"The scribble has shape {array.shape}, the image {grid.shape}.")
    if not array.any():
        raise LabelError("The scribble marks no voxel.")
    return array


def labels_as_int32(labels: NDArray[Any]) -> NDArray[np.int32]:
    """Return label values as int32.

    Parameters
    ----------
    labels : ndarray
        Of any shape and type.

    Returns
    -------
    ndarray of int32

    Raises
    ------
    LabelError
        When a value is no integer, or none that 32 bits hold.

    Examples
    --------
    >>> import numpy as np
    >>> labels_as_int32(np.array([-1, 0, 2])).dtype
    dtype('int32')
    """
    labels = np.asarray(labels)
    if labels.size and not np.can_cast(labels.dtype, np.int32):
        if labels.dtype.kind not in "iuf":
            raise LabelError(f"Labels are integers, not {labels.dtype}.")
        if labels.dtype.kind == "f" and not (labels == np.round(labels)).all():
            raise LabelError("Labels are integers; this image holds other numbers.")
        for value in (labels.min(), labels.max()):
            if not LABELS.min <= value <= LABELS.max:
                low, high = f"{LABELS.min:,}", f"{LABELS.max:,}"
                raise LabelError(f"Labels lie from {low} to {high}; this image holds {value}.")
    return labels.astype(np.int32, copy=False)

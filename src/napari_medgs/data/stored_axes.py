"""Places in the order of the stored file, and on the canonical grid.

A stored index is (z, y, x): for a file that places its voxels (NIfTI, DICOM, NRRD, MetaImage ..)
the reversed index (k, j, i) of its array as nibabel and ITK have it; for frames and pages (frame,
row, column). Where a grid came from no file, it is the canonical index.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_medgs.data.grid import Grid
from napari_medgs.data.orientation import UNPLACED_SOURCES, source_axes


def stored_axes(grid: Grid) -> tuple[tuple[int, int, int], tuple[bool, bool, bool]]:
    """Return which stored axis each canonical axis is, and which run the other way.

    Parameters
    ----------
    grid : Grid

    Returns
    -------
    order : (int, int, int)
        The stored axis (0, 1, 2 for z, y, x) of each canonical axis.
    flip : (bool, bool, bool)
        By canonical axis.

    Examples
    --------
    >>> stored_axes(Grid((4, 5, 6)))
    ((0, 1, 2), (False, False, False))
    """
    axes = source_axes(grid)
    if axes is None:
        return (0, 1, 2), (False, False, False)
    order, flip = axes
    if grid.source.get("kind") in UNPLACED_SOURCES:
        return order, flip
    return (2 - order[0], 2 - order[1], 2 - order[2]), flip


def stored_shape(grid: Grid) -> tuple[int, int, int]:
    """Return the numbers of voxels along the stored axes (z, y, x).

    Examples
    --------
    >>> stored_shape(Grid((4, 5, 6)))
    (4, 5, 6)
    """
    order, _ = stored_axes(grid)
    sizes = [0, 0, 0]
    for axis, stored in enumerate(order):
        sizes[stored] = grid.shape[axis]
    return (sizes[0], sizes[1], sizes[2])


def from_stored(grid: Grid, points: ArrayLike) -> NDArray[np.float64]:
    """Return canonical voxel coordinates of places given in the order of the stored file.

    Parameters
    ----------
    grid : Grid
    points : (..., 3) array_like
        (z, y, x) in voxels of the stored file.

    Returns
    -------
    (..., 3) ndarray of float64
        (z, y, x) on the canonical grid.

    Examples
    --------
    >>> from_stored(Grid((4, 5, 6)), (1, 2, 3)).tolist()
    [1.0, 2.0, 3.0]
    """
    order, flip = stored_axes(grid)
    found: NDArray[np.float64] = np.asarray(points, np.float64)[..., list(order)]
    last = np.asarray(grid.shape) - 1.0
    return np.where(flip, last - found, found)


def to_stored(grid: Grid, points: ArrayLike) -> NDArray[np.float64]:
    """Undo :func:`from_stored`.

    Parameters
    ----------
    grid : Grid
    points : (..., 3) array_like
        (z, y, x) on the canonical grid.

    Returns
    -------
    (..., 3) ndarray of float64
        (z, y, x) in voxels of the stored file.
    """
    order, flip = stored_axes(grid)
    last = np.asarray(grid.shape) - 1.0
    points = np.asarray(points, np.float64)
    result: NDArray[np.float64] = np.where(flip, last - points, points)[..., np.argsort(order)]
    return result


def box_from_stored(
    grid: Grid, start: ArrayLike, stop: ArrayLike
) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Return a box of whole voxels on the canonical grid.

    Parameters
    ----------
    grid : Grid
    start, stop : (z, y, x) array_like of int
        First voxel and one past the last, in the order of the stored file.

    Returns
    -------
    start, stop : (int, int, int)
        On the canonical grid.

    Examples
    --------
    >>> box_from_stored(Grid((4, 5, 6)), (0, 1, 2), (1, 3, 6))
    ((0, 1, 2), (1, 3, 6))
    """
    corners: NDArray[Any] = np.stack([np.asarray(start), np.asarray(stop) - 1])
    found = np.rint(from_stored(grid, corners)).astype(int)
    low, high = found.min(axis=0), found.max(axis=0) + 1
    return (int(low[0]), int(low[1]), int(low[2])), (int(high[0]), int(high[1]), int(high[2]))

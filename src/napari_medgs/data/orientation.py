"""Axis orders and flips: from any orientation to the canonical one and back, no resampling.

Canonical arrays have axes (z, y, x) whose indices grow to superior, posterior and left.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.data.grid import Grid
from napari_medgs.errors import GeometryError

SPL = np.array([[0.0, 0, -1, 0], [0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
"""Maps millimeters along superior, posterior, left (in this order) to RAS millimeters."""

UNPLACED_SOURCES = ("frames", "tiff", "ome-zarr", "medmnist")
"""Kinds of source files that have voxel sizes at most, but no orientation in the patient."""

Order = tuple[int, int, int]
Flip = tuple[bool, bool, bool]

# The RAS axis and direction of each canonical axis z, y, x.
_RAS_AXIS = (2, 1, 0)
_DIRECTION = (1, -1, -1)


def is_usable(affine: NDArray[Any]) -> bool:
    """Tell whether a 4 x 4 affine is finite and does not squeeze the volume flat."""
    affine = np.asarray(affine, dtype=np.float64)
    if affine.shape != (4, 4) or not np.isfinite(affine).all():
        return False
    with np.errstate(over="ignore"):
        sizes = np.linalg.norm(affine[:3, :3], axis=0)
    if not ((sizes > 0) & np.isfinite(sizes)).all():
        return False
    return bool(abs(np.linalg.det(affine[:3, :3] / sizes)) > 1e-4)


def canonical_axes(affine: NDArray[Any]) -> tuple[Order, Flip]:
    """Return which array axis becomes z, y and x, and which of them must be flipped.

    Parameters
    ----------
    affine : (4, 4) ndarray
        Maps an index of the array, in the array's own axis order, to RAS millimeters.

    Raises
    ------
    GeometryError
        When the affine is singular or not finite.
    """
    from nibabel.orientations import io_orientation

    if not is_usable(affine):
        raise GeometryError("The affine is singular or not finite; set the spacing by hand.")
    # Scaled columns: the choice of axes must not depend on how coarse a spacing is.
    axes = np.asarray(affine, dtype=np.float64)[:3, :3]
    unit = np.eye(4)
    unit[:3, :3] = axes / np.linalg.norm(axes, axis=0)
    found = io_orientation(unit)
    order = [int(np.flatnonzero(found[:, 0] == axis)[0]) for axis in _RAS_AXIS]
    flip = [bool(found[a, 1] != way) for a, way in zip(order, _DIRECTION, strict=True)]
    return (order[0], order[1], order[2]), (flip[0], flip[1], flip[2])


def canonical_affine(
    affine: NDArray[Any], shape: Sequence[int], order: Order, flip: Flip
) -> NDArray[np.float64]:
    """Return the affine of the reordered array, mapping (z, y, x, 1) to RAS millimeters.

    ``shape`` is that of the array in its own axis order.
    """
    change = np.zeros((4, 4))
    change[3, 3] = 1
    for axis, (old, flipped) in enumerate(zip(order, flip, strict=True)):
        change[old, axis] = -1.0 if flipped else 1.0
        change[old, 3] = shape[old] - 1.0 if flipped else 0.0
    # Adding 0 turns the minus zeros of the product into plain ones.
    result: NDArray[np.float64] = np.asarray(affine, dtype=np.float64) @ change + 0.0
    return result


def grid_of_axes(
    shape: Sequence[int], affine: NDArray[Any], source: dict[str, Any] | None = None
) -> Grid:
    """Return the canonical grid of an array in any axis order, with a record of that order.

    Parameters
    ----------
    shape : three ints
        Of the array in its own axis order.
    affine : (4, 4) ndarray
        Maps an index in that order to RAS millimeters; may be oblique or sheared.
    source : dict, optional
        More entries for ``Grid.source`` beside the axis order and flips.

    Raises
    ------
    GeometryError
        When the affine is singular or not finite.
    """
    order, flip = canonical_axes(affine)
    sizes = [int(n) for n in shape]
    record = {
        **(source or {}),
        "order": list(order),
        "flip": list(flip),
        "shape": sizes,
        "affine": np.asarray(affine, dtype=np.float64).tolist(),
    }
    z, y, x = (sizes[axis] for axis in order)
    return Grid((z, y, x), canonical_affine(affine, sizes, order, flip), record)


def to_canonical(array: NDArray[Any], order: Order, flip: Flip) -> NDArray[Any]:
    """Reorder the last three axes of an array to (z, y, x); a view."""
    lead = array.ndim - 3
    moved = np.transpose(array, (*range(lead), *(lead + a for a in order)))
    return moved[_slices(flip)]


def from_canonical(array: NDArray[Any], order: Order, flip: Flip) -> NDArray[Any]:
    """Undo :func:`to_canonical`; a view."""
    lead = array.ndim - 3
    back = np.argsort(order)
    return np.transpose(array[_slices(flip)], (*range(lead), *(lead + int(a) for a in back)))


def _slices(flip: Flip) -> tuple[Any, ...]:
    return (..., *(slice(None, None, -1 if flipped else None) for flipped in flip))


def spacing_affine(spacing: Sequence[float]) -> NDArray[np.float64]:
    """Return the canonical affine of a spacing (z, y, x) in mm, its first voxel at the origin.

    Raises
    ------
    GeometryError
        When the spacing is not three positive numbers.
    """
    try:
        sizes = np.asarray(spacing, dtype=np.float64)
    except (TypeError, ValueError):
        sizes = np.zeros(0)
    if sizes.shape != (3,) or not (np.isfinite(sizes).all() and (sizes > 0).all()):
        raise GeometryError(
            f"The spacing must be three positive numbers (z, y, x) in mm, not {spacing}."
        )
    affine: NDArray[np.float64] = SPL @ np.diag([*sizes, 1.0]) + 0.0
    return affine


def is_orientation_known(grid: Grid) -> bool:
    """Tell whether the source of a grid states how it lies in the patient.

    Parameters
    ----------
    grid : Grid
        One without a source counts as known: its affine was given.

    Examples
    --------
    >>> from napari_medgs.data.grid import Grid
    >>> is_orientation_known(Grid((4, 5, 6)))
    True
    >>> is_orientation_known(Grid((4, 5, 6), source={"kind": "frames"}))
    False
    """
    return not grid.source.get("assumed") and grid.source.get("kind") not in UNPLACED_SOURCES


def source_axes(grid: Grid) -> tuple[Order, Flip] | None:
    """Return axis order and flips of the file that a grid came from, None without such a record.

    A record that no longer fits the grid (resampled, cropped, moved) counts as none.
    """
    source = grid.source
    try:
        order = tuple(int(a) for a in source["order"])
        flip = tuple(bool(f) for f in source["flip"])
        shape = tuple(int(n) for n in source["shape"])
        affine = np.asarray(source["affine"], dtype=np.float64)
    except (KeyError, TypeError, ValueError):
        return None
    if sorted(order) != [0, 1, 2] or len(flip) != 3 or len(shape) != 3 or not is_usable(affine):
        return None
    if tuple(shape[a] for a in order) != grid.shape:
        return None
    axes = ((order[0], order[1], order[2]), (flip[0], flip[1], flip[2]))
    if not Grid(grid.shape, canonical_affine(affine, shape, *axes)).matches(grid):
        return None
    return axes


def to_source(array: NDArray[Any], grid: Grid) -> NDArray[Any]:
    """Bring a canonical array into the axis order of the file that its grid came from.

    Parameters
    ----------
    array : (..., Z, Y, X) ndarray
        Leading axes (channels) stay in front.
    grid : Grid
        The array's grid. Without a record of a file the array is returned as it is.

    Raises
    ------
    GeometryError
        When the array does not lie on the grid.
    """
    if array.shape[-3:] != grid.shape:
        raise GeometryError(f"The array has shape {array.shape[-3:]}, its grid {grid.shape}.")
    axes = source_axes(grid)
    return array if axes is None else from_canonical(array, *axes)


def from_source(array: NDArray[Any], grid: Grid) -> NDArray[Any]:
    """Undo :func:`to_source`: from the file's axis order to (..., Z, Y, X).

    Raises
    ------
    GeometryError
        When the array has not the file's shape.
    """
    axes = source_axes(grid)
    result = array if axes is None else to_canonical(array, *axes)
    if result.shape[-3:] != grid.shape:
        raise GeometryError(
            f"The array has shape {array.shape[-3:]}, which does not fit the grid {grid.shape}."
        )
    return result

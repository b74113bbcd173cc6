"""Arrays in the axis order of a file, and labels on the grid of an image."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.data.grid import Grid
from napari_medgs.data.orientation import is_orientation_known, source_axes, to_source
from napari_medgs.data.resampling import labels_with
from napari_medgs.data.volume import CLOSE
from napari_medgs.errors import GeometryError

PLACED_SOURCES = ("nifti", "dicom", "itk", "freesurfer")
"""Kinds of source files whose own axis order is kept when a result is written."""


def file_axes(data: NDArray[Any], grid: Grid) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Return canonical data in a file's axis order (i, j, k), with the affine of that order.

    Parameters
    ----------
    data : (C, Z, Y, X) ndarray
    grid : Grid
        Where they lie. If it was read from a file with its own geometry, that file's axes are
        used, else i, j, k run to left, posterior and superior.

    Returns
    -------
    array : (C, I, J, K) ndarray
        A view.
    affine : (4, 4) ndarray
        Maps (i, j, k, 1) to RAS millimeters.

    Raises
    ------
    GeometryError
        When data and grid differ in shape.
    """
    if data.shape[1:] != grid.shape:
        raise GeometryError(f"The data have shape {data.shape[1:]}, their grid {grid.shape}.")
    if source_axes(grid) is not None and grid.source.get("kind") in PLACED_SOURCES:
        return to_source(data, grid), np.asarray(grid.source["affine"], dtype=np.float64)
    return data.transpose(0, 3, 2, 1), grid.affine[:, [2, 1, 0, 3]]


def _offset(grid: Grid, like: Grid) -> tuple[NDArray[np.int64], float] | None:
    """Return the voxel of ``like`` at which a grid starts, and by how many voxels it is off.

    None where voxels do not coincide.
    """
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in grid.shape])).reshape(3, -1).T
    offsets = like.to_voxel(grid.to_world(corners)) - corners
    start = np.rint(offsets[0])
    off = np.abs(offsets - start).max()
    if not off <= CLOSE or np.abs(start).max() > 2**31:
        return None
    return start.astype(np.int64), float(off)


def is_part_of(grid: Grid, like: Grid) -> bool:
    """Tell whether two grids of different shapes have the same voxels where they overlap.

    Parameters
    ----------
    grid, like : Grid
        Those without a known orientation have no place to compare.

    Returns
    -------
    bool
        False for equal shapes, which are the same grid or a displaced one.
    """
    kinds = {grid.source.get("kind"), like.source.get("kind")}
    known = is_orientation_known(grid) and is_orientation_known(like)
    # OME-Zarr has places in the microscope, if none in the patient.
    if grid.shape == like.shape or not (known or kinds == {"ome-zarr"}):
        return False
    found = _offset(grid, like)
    if found is None:
        return False
    start, _ = found
    low, high = np.maximum(start, 0), np.minimum(start + grid.shape, like.shape)
    return bool((low < high).all())


def place_on_grid(
    labels: NDArray[Any],
    grid: Grid,
    like: Grid,
    name: str = "the segmentation",
    outside: int = 0,
) -> NDArray[Any]:
    """Pad and crop labels onto another grid of the same voxels.

    Parameters
    ----------
    labels : (Z, Y, X) ndarray
    grid : Grid
        Where the labels lie.
    like : Grid
        Where they should lie: the same axes and spacing, moved by whole voxels.
    name : str
        For messages.
    outside : int
        The label that means nothing, which voxels outside ``grid`` get.

    Returns
    -------
    (Z, Y, X) ndarray
        On ``like``, ``outside`` outside ``grid``; ``labels`` itself where the grids match.

    Raises
    ------
    GeometryError
        When the voxels of both grids do not coincide within a twentieth of a voxel; a warning
        tells where they are off by more than a thousandth.

    Examples
    --------
    >>> import numpy as np
    >>> from napari_medgs.data.grid import Grid
    >>> from napari_medgs.io._axes import place_on_grid
    >>> like = Grid((1, 2, 4))
    >>> affine = like.affine.copy()
    >>> affine[:3, 3] = like.to_world(np.array([0, 1, 1]))
    >>> place_on_grid(np.full((1, 1, 2), 5), Grid((1, 1, 2), affine), like)
    array([[[0, 0, 0, 0],
            [0, 5, 5, 0]]])
    """
    if grid.matches(like):
        return labels
    found = _offset(grid, like)
    if found is None:
        raise GeometryError(
            f"{name}: its voxels do not coincide with the image's; resample=True (--resample) "
            "takes the nearest ones."
        )
    start, off = found
    if off > 1e-3:
        warnings.warn(
            f"{name}: its voxels lie up to {off:.2g} voxels from the image's and are taken to "
            "coincide.",
            stacklevel=3,
        )
    low = np.maximum(start, 0)
    high = np.minimum(start + grid.shape, like.shape)
    placed = np.full(like.shape, outside, labels_with(labels[:0], outside).dtype)
    count = 0
    if (low < high).all():
        inner = labels[tuple(slice(a, b) for a, b in zip(low - start, high - start))]
        placed[tuple(slice(a, b) for a, b in zip(low, high))] = inner
        count = int(np.count_nonzero(inner != outside))
    lost = int(np.count_nonzero(labels != outside)) - count
    if lost:
        warnings.warn(f"{name}: {lost:,} labeled voxels lie outside the image.", stacklevel=3)
    return placed

"""Signed distances in mm on parts of a grid, smoothed and resampled."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs.data.grid import Grid
from napari_medgs.errors import MemoryEstimateError
from napari_medgs.metrics.volumes import Box

WIDE = 8  # times the radius of a Gaussian: voxels of a line below which all are multiplied


def shifted(grid: Grid, start: Sequence[Any] | NDArray[Any], shape: Sequence[int]) -> Grid:
    """Return the grid of another shape that begins at voxel ``start`` (z, y, x) of this one."""
    affine = grid.affine.copy()
    affine[:3, 3] = grid.to_world(np.asarray(start))
    return Grid((shape[0], shape[1], shape[2]), affine)


def check_size(grid: Grid, arrays: int) -> None:
    """Refuse a grid when that many float32 arrays of it do not fit into the free memory.

    Raises
    ------
    MemoryEstimateError
        The message says which spacing would fit.
    """
    import psutil

    needed = 4 * arrays * math.prod(grid.shape)
    free = int(psutil.virtual_memory().available)
    if needed > 0.9 * free:
        wider = (needed / (0.8 * free)) ** (1 / 3)
        spacing = " x ".join(f"{s * wider:.2g}" for s in grid.spacing)
        raise MemoryEstimateError(
            f"Surfaces on this grid need about {needed / 2**30:.1f} GiB and {free / 2**30:.1f} "
            f"GiB are free. A spacing of {spacing} mm fits."
        )


def signed_distance(
    mask: NDArray[np.bool_], box: Box, grid: Grid, sigma: float, spacing: Any = None
) -> tuple[Floats, Grid]:
    """Return the distance (mm, positive inside) to a mask's border, on a grid around its box.

    Parameters
    ----------
    mask : ndarray of bool
        The part of the whole mask in ``box``; the rest is empty.
    box : tuple of slice
    grid : Grid
        Of the whole mask. Distances are exact for orthogonal axes; shear is ignored.
    sigma : float
        The distance is smoothed by a Gaussian of this width in mm.
    spacing : (float, float, float), optional
        Spacing of a later resampling, which needs a wider margin.
    """
    import SimpleITK as sitk

    sizes = np.asarray(grid.spacing)
    margin = smoothing_margin(sigma, grid) + 1
    if spacing is not None:
        margin = margin + np.ceil(np.asarray(spacing) / sizes).astype(int)
    padded = np.pad(mask, [(m, m) for m in margin]).astype(np.uint8)
    # What is nearest to a voxel of the mask lies in its box or beside that.
    box_and_one = tuple(
        slice(m - 1, m + n + 1) for m, n in zip(margin.tolist(), mask.shape, strict=True)
    )
    near = padded[box_and_one]
    part = shifted(grid, np.array([s.start for s in box]) - margin, padded.shape)

    def to_nearest(inside: NDArray[np.uint8]) -> Floats:
        image = sitk.GetImageFromArray(inside)
        image.SetSpacing(tuple(float(s) for s in sizes[::-1]))
        distance: Floats = sitk.GetArrayFromImage(
            sitk.SignedMaurerDistanceMap(image, squaredDistance=False, useImageSpacing=True)
        )
        return distance

    # Both from voxel center to voxel center, so that the border lies midway between them.
    distance = to_nearest(padded)
    np.negative(distance, out=distance)
    np.copyto(distance[box_and_one], to_nearest(1 - near), where=near > 0)
    return smoothed(distance, part, sigma), part


def smoothed(values: Floats, grid: Grid, sigma: float) -> Floats:
    """Return values smoothed by a Gaussian of ``sigma`` mm, cut at 3 sigma, edges continued."""
    from scipy.ndimage import gaussian_filter1d

    if sigma == 0:
        return values
    for axis, spacing in enumerate(grid.spacing):
        width, size = sigma / spacing, values.shape[axis]
        if size < WIDE * int(3 * width + 0.5):
            # A product of matrices does many weights a voxel at many times the pace.
            moved = np.tensordot(_smoothing_matrix(size, width), values, axes=(1, axis))
            values = np.moveaxis(moved, 0, axis)
        else:
            values = gaussian_filter1d(values, width, axis, mode="nearest", truncate=3.0)
    return np.ascontiguousarray(values)


def _smoothing_matrix(size: int, width: float) -> Floats:
    """Return the weights of all voxels of a line (columns) in the smoothed ones (rows)."""
    from scipy.ndimage import gaussian_filter1d

    weights: Floats = gaussian_filter1d(
        np.eye(size), width, axis=0, mode="nearest", truncate=3.0
    ).astype(np.float32)
    return weights


def smoothing_margin(sigma: float, grid: Grid) -> NDArray[np.int64]:
    """Return the voxels along each axis that smoothing can move a surface, and one more."""
    return np.ceil(3 * sigma / np.asarray(grid.spacing)).astype(np.int64) + 1


def covering(grid: Grid, spacing: Any) -> Grid:
    """Return the grid of another spacing from the same first voxel to the last or beyond."""
    ratio = np.asarray(spacing) / grid.spacing
    shape = [math.ceil((size - 1) / r) + 1 for size, r in zip(grid.shape, ratio, strict=True)]
    affine = grid.affine.copy()
    affine[:3, :3] *= ratio
    return Grid((shape[0], shape[1], shape[2]), affine)


def resampled(values: Floats, grid: Grid, target: Grid) -> tuple[Floats, Grid]:
    """Interpolate by cubic splines on a grid whose axes are parallel, edges continued."""
    from scipy.interpolate import CubicSpline

    check_size(target, 3)
    to_old = np.linalg.inv(grid.affine) @ target.affine
    for axis, size in enumerate(grid.shape):
        where = (to_old[axis, axis] * np.arange(target.shape[axis]) + to_old[axis, 3]).clip(
            0, size - 1
        )
        if size == 1:
            weights = np.ones((len(where), 1))
        else:
            weights = CubicSpline(np.arange(size), np.eye(size), bc_type="natural")(where)
        moved = np.tensordot(weights.astype(np.float32), values, axes=(1, axis))
        values = np.moveaxis(moved, 0, axis)
    return np.ascontiguousarray(values), target

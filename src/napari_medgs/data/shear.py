"""Sheared grids, as gantry tilt makes them, and orthogonal ones that cover them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.data.grid import Grid
from napari_medgs.data.volume import Volume

_ORTHOGONAL = 1e-4  # cosine between axes, beyond which ITK refuses NIfTI files
_ROUND = 9  # decimals of voxel coordinates: a plane of voxels must not miss itself by 1e-16


def is_sheared(affine: NDArray[Any]) -> bool:
    """Tell whether the axes of an affine are not perpendicular, so that ITK refuses it.

    Parameters
    ----------
    affine : (4, 4) ndarray

    Examples
    --------
    >>> import numpy as np
    >>> from napari_medgs.data.shear import is_sheared
    >>> tilted = np.diag([1.0, 1.0, 3.0, 1.0])
    >>> tilted[1, 2] = 0.5
    >>> is_sheared(np.diag([1.0, 1.0, 3.0, 1.0])), is_sheared(tilted)
    (False, True)
    """
    axes = np.asarray(affine, dtype=np.float64)[:3, :3]
    unit = axes / np.linalg.norm(axes, axis=0)
    return bool(np.abs(unit.T @ unit - np.eye(3)).max() > _ORTHOGONAL)


def orthogonal_grid(grid: Grid) -> Grid:
    """Return a grid of perpendicular axes that covers a sheared one.

    Parameters
    ----------
    grid : Grid

    Returns
    -------
    Grid
        The same one where its axes are perpendicular. Otherwise the planes of its finest two
        axes stay where they are (for gantry tilt: the slices), with the same first axis and the
        same distances; more rows and columns cover what the tilt moves out.

    Examples
    --------
    >>> import numpy as np
    >>> from napari_medgs import Grid
    >>> from napari_medgs.data.shear import orthogonal_grid
    >>> affine = Grid((5, 8, 8)).affine
    >>> affine[:, 0] = [0, -0.5, 3, 0]
    >>> orthogonal_grid(Grid((5, 8, 8), affine)).shape
    (5, 10, 8)
    """
    if not is_sheared(grid.affine):
        return grid
    axes = grid.affine[:3, :3]
    sizes = np.round(np.asarray(grid.spacing) / max(grid.spacing), 3)
    order = sorted(range(3), key=lambda axis: (sizes[axis], -axis))  # finest first, x before y
    straight = np.zeros((3, 3))
    done: list[int] = []
    for axis in order:
        column = axes[:, axis].copy()
        for other in done:
            unit = straight[:, other] / np.linalg.norm(straight[:, other])
            column -= (unit @ axes[:, axis]) * unit
        straight[:, axis] = column
        done.append(axis)
    to_straight = np.round(np.linalg.inv(straight) @ axes, _ROUND)
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in grid.shape])).reshape(3, -1).T
    reached = corners @ to_straight.T
    low, high = np.floor(reached.min(axis=0)), np.ceil(reached.max(axis=0))
    affine = np.eye(4)
    affine[:3, :3] = straight
    affine[:3, 3] = grid.affine[:3, 3] + straight @ low
    z, y, x = (int(n) for n in high - low + 1)
    return Grid((z, y, x), affine, _kept(grid.source))


def _kept(source: dict[str, Any]) -> dict[str, Any]:
    """Return what of a source holds on other voxels: in which space they lie, if known."""
    kept: dict[str, Any] = {
        key: source[key] for key in ("kind", "assumed", "sform_code") if key in source
    }
    header = source.get("header")
    code = header.get("sform_code") or header.get("qform_code") if header else None
    return kept if code is None else {**kept, "sform_code": code}


def deshear(volume: Volume, background: Sequence[float] | None = None) -> Volume:
    """Return a volume on an orthogonal grid that covers it, linearly interpolated.

    Parameters
    ----------
    volume : Volume
    background : one float per channel, optional
        Values of the new voxels outside. By default 0, or the lowest value of a channel with
        negative ones.

    Returns
    -------
    Volume
        The same one where its axes are perpendicular; else in float32, or rounded to the
        type of integers.
    """
    from scipy.ndimage import affine_transform

    grid = orthogonal_grid(volume.grid)
    if grid is volume.grid:
        return volume
    back = np.round(np.linalg.inv(volume.affine) @ grid.affine, _ROUND)
    kind = volume.data.dtype
    data = np.empty((volume.channels, *grid.shape), kind)
    for c, channel in enumerate(volume.data):
        finite = channel[np.isfinite(channel)] if kind.kind == "f" else channel
        lowest = float(finite.min(initial=0))
        moved = affine_transform(
            channel.astype(np.float64 if kind.itemsize > 4 else np.float32, copy=False),
            back[:3, :3],
            back[:3, 3],
            grid.shape,
            order=1,
            mode="constant",
            cval=lowest if background is None else background[c],
            prefilter=False,
        )
        data[c] = np.rint(moved) if kind.kind in "iu" else moved
    return Volume(data, grid, volume.channel_names, volume.units)


def deshear_labels(
    labels: NDArray[Any], grid: Grid, *, outside: int = 0
) -> tuple[NDArray[Any], Grid]:
    """Return labels on an orthogonal grid that covers theirs, by the nearest voxel.

    Parameters
    ----------
    labels : (Z, Y, X) ndarray of integers
    grid : Grid
    outside : int
        Label of the new voxels outside.

    Returns
    -------
    labels : (Z, Y, X) ndarray of integers
    grid : Grid
        The same ones where the axes are perpendicular.
    """
    from napari_medgs.data.resampling import resample_labels

    straight = orthogonal_grid(grid)
    if straight is grid:
        return labels, grid
    plain = Grid(grid.shape, grid.affine)  # the place in the patient does not matter here
    return resample_labels(labels, plain, straight, outside=outside), straight

"""Label images of one grid on another, by the nearest voxel."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.data.grid import Grid
from napari_medgs.data.orientation import is_orientation_known
from napari_medgs.errors import GeometryError

_TIE = 1e-6  # voxels: halfway between two voxels the upper one counts, whatever is rounded where


def resample_labels(
    labels: NDArray[Any], grid: Grid, like: Grid, *, outside: int = 0, name: str = "The mask"
) -> NDArray[Any]:
    """Return labels on another grid: every voxel gets the label of the nearest voxel.

    Grids are compared in RAS millimeters, so that axis order, direction, units and voxel sizes of
    the files do not matter.

    Parameters
    ----------
    labels : (Z, Y, X) ndarray of integers
    grid : Grid
        Where the labels lie.
    like : Grid
        Where they should lie.
    outside : int
        The value of voxels beyond the labels' grid, half a voxel past its outermost centers.
    name : str
        What to call the labels in messages.

    Returns
    -------
    (Z, Y, X) ndarray of integers
        On ``like``; ``labels`` itself where the grids match.

    Raises
    ------
    GeometryError
        When shapes differ, one of the grids does not state where it lies, or the two do not
        overlap.

    Warns
    -----
    UserWarning
        When labels are lost, as they lie outside or are smaller than the new voxels.

    Notes
    -----
    The same voxels as SimpleITK's ``Resample`` with ``sitkNearestNeighbor``.

    Examples
    --------
    >>> import numpy as np
    >>> from napari_medgs import Grid
    >>> from napari_medgs.data.resampling import resample_labels
    >>> coarse = Grid((1, 2, 2)).with_spacing((1.0, 1.0, 1.0))
    >>> fine = coarse.with_spacing((1.0, 0.5, 0.5))
    >>> resample_labels(np.array([[[1, 2], [3, 0]]]), coarse, fine)[0].tolist()
    [[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 0, 0], [3, 3, 0, 0]]
    """
    from scipy.ndimage import affine_transform

    labels = np.asarray(labels)
    if labels.shape != grid.shape:
        raise GeometryError(f"{name} has shape {labels.shape}, its grid {grid.shape}.")
    if grid.matches(like):
        return labels
    for one, whose in ((grid, name), (like, "The image")):
        if not is_orientation_known(one):
            raise GeometryError(
                f"{whose} does not state how it lies in the patient, so that nothing can be "
                f"resampled: make {name[0].lower() + name[1:]} on the image's own voxels."
            )
    to_labels = np.linalg.inv(grid.affine) @ like.affine
    corners = np.array(np.meshgrid(*[(-0.5, n - 0.5) for n in like.shape])).reshape(3, -1).T
    reached = corners @ to_labels[:3, :3].T + to_labels[:3, 3]
    apart = (reached.max(axis=0) <= -0.5) | (reached.min(axis=0) >= np.asarray(grid.shape) - 0.5)
    if apart.any():
        raise GeometryError(
            f"{name} lies outside the image: they do not overlap anywhere in the patient. Is it "
            "the mask of another image?"
        )
    present = _values(labels)
    source, values = labels_with(labels, outside), None
    if labels.dtype.itemsize > 4:  # float64, in which scipy counts, does not hold all of them
        values = np.unique([*present.tolist(), outside])
        source = np.searchsorted(values, labels).astype(np.min_scalar_type(len(values)))
    moved = affine_transform(
        source,
        to_labels[:3, :3],
        to_labels[:3, 3] + _TIE,
        like.shape,
        output=source.dtype,
        order=0,
        mode="grid-constant",
        cval=outside if values is None else int(np.searchsorted(values, outside)),
        prefilter=False,
    )
    if values is not None:
        moved = values.astype(labels_with(labels[:0], outside).dtype)[moved]
    lost = np.setdiff1d(present, [*_values(moved).tolist(), 0, outside]).tolist()
    if lost:
        shown = ", ".join(map(str, lost[:10])) + (" ..." if len(lost) > 10 else "")
        warnings.warn(
            f"{name}: of label {shown} nothing is left on the image's voxels: it lies outside "
            "the image, or is smaller than a voxel.",
            stacklevel=2,
        )
    kept: NDArray[Any] = moved
    return kept


def _values(labels: NDArray[Any]) -> NDArray[Any]:
    """Return the values of labels, sorted."""
    if labels.dtype in (np.uint8, np.uint16):  # a tenth of the time that sorting takes
        return np.flatnonzero(np.bincount(labels.reshape(-1)))
    return np.unique(labels)


def labels_with(labels: NDArray[Any], value: int) -> NDArray[Any]:
    """Return labels in their type, or in one that holds another value, too."""
    limits = np.iinfo(labels.dtype)
    if limits.min <= value <= limits.max:
        return labels
    if labels.dtype == np.uint64:  # shares no integer type with negative values
        labels = labels.astype(np.int64)
    return labels.astype(np.promote_types(labels.dtype, np.min_scalar_type(value)))

"""Distances between the surfaces of two masks: Hausdorff, average, and normalized surface Dice.

The surface of a mask is the set of its voxels with a face neighbor outside; voxels at the edge of
the volume belong to it. Distances run between voxel centers, in millimeters, through the full
affine, so that they hold for oblique and sheared grids, where a distance transform would not.
Two empty masks have no score (NaN); one empty mask has Dice, IoU and NSD 0 and no distances (NaN),
as [1]_ recommends.

References
----------
.. [1] Maier-Hein et al., "Metrics reloaded: recommendations for image analysis validation",
   Nat. Methods 21, 2024.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.errors import GeometryError, ParameterError

if TYPE_CHECKING:
    from napari_medgs.data.grid import Grid
from napari_medgs.metrics.overlap import two_masks


def surface_distances(
    seg: NDArray[Any], truth: NDArray[Any], grid: Grid
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the distance of every surface voxel of one mask to the other's surface, in mm.

    Parameters
    ----------
    seg, truth : (Z, Y, X) ndarray
        Nonzero is inside.
    grid : Grid
        Only its affine is used.

    Returns
    -------
    to_truth, to_seg : (P,) and (Q,) ndarray
        One distance per surface voxel of ``seg`` and of ``truth``; infinite where the
        other mask is empty.

    Raises
    ------
    GeometryError
        When the shapes differ or are not volumes.

    Examples
    --------
    >>> import numpy as np
    >>> from napari_medgs.data.grid import Grid
    >>> seg, truth = np.zeros((1, 1, 9)), np.zeros((1, 1, 9))
    >>> seg[..., 2], truth[..., 5:7] = 1, 1
    >>> to_truth, to_seg = surface_distances(seg, truth, Grid((1, 1, 9)))
    >>> to_truth.tolist(), to_seg.tolist()
    ([3.0], [3.0, 4.0])
    """
    from scipy.spatial import KDTree

    seg, truth = two_masks(seg, truth)
    if seg.ndim != 3:
        raise GeometryError(f"Surface distances need volumes (z, y, x), not shape {seg.shape}.")
    ours, theirs = (grid.to_world(_surface_voxels(mask)) for mask in (seg, truth))
    if not len(ours) or not len(theirs):
        return np.full(len(ours), np.inf), np.full(len(theirs), np.inf)

    def nearest(points: NDArray[Any], surface: NDArray[Any]) -> NDArray[np.float64]:
        # Middle splits: regular grids make the default median splits of a KD-tree slow.
        tree = KDTree(surface, balanced_tree=False, compact_nodes=False)
        return np.asarray(tree.query(points, workers=-1)[0], np.float64)

    return nearest(ours, theirs), nearest(theirs, ours)


def hd95(seg: NDArray[Any], truth: NDArray[Any], grid: Grid) -> float:
    """Return the 95th percentile Hausdorff distance in mm; NaN when a mask is empty.

    The larger of the two directed 95th percentiles, as in [1]_, MONAI and DeepMind's
    surface-distance (MedPy pools both sets of distances instead).

    Parameters
    ----------
    seg, truth : (Z, Y, X) ndarray
        Nonzero is inside.
    grid : Grid
        Only its affine is used.

    Returns
    -------
    float

    Raises
    ------
    GeometryError
        When the shapes differ or are not volumes.

    References
    ----------
    .. [1] Maier-Hein et al., "Metrics reloaded: recommendations for image analysis validation",
       Nat. Methods 21, 2024.

    Examples
    --------
    >>> import numpy as np
    >>> from napari_medgs.data.grid import Grid
    >>> seg, truth = np.zeros((1, 1, 9)), np.zeros((1, 1, 9))
    >>> seg[..., 2], truth[..., 5] = 1, 1
    >>> hd95(seg, truth, Grid((1, 1, 9), np.diag([1.0, 1.0, 2.0, 1.0])))
    6.0
    """
    return hd95_and_asd(*surface_distances(seg, truth, grid))[0]


def asd(seg: NDArray[Any], truth: NDArray[Any], grid: Grid) -> float:
    """Return the average symmetric surface distance in mm; NaN when a mask is empty.

    The mean over the distances of both surfaces together.

    Parameters
    ----------
    seg, truth : (Z, Y, X) ndarray
        Nonzero is inside.
    grid : Grid
        Only its affine is used.

    Returns
    -------
    float

    Raises
    ------
    GeometryError
        When the shapes differ or are not volumes.

    Examples
    --------
    >>> import numpy as np
    >>> from napari_medgs.data.grid import Grid
    >>> seg, truth = np.zeros((1, 1, 9)), np.zeros((1, 1, 9))
    >>> seg[..., 2], truth[..., 5:7] = 1, 1
    >>> asd(seg, truth, Grid((1, 1, 9)))
    3.3333333333333335
    """
    return hd95_and_asd(*surface_distances(seg, truth, grid))[1]


def nsd(seg: NDArray[Any], truth: NDArray[Any], grid: Grid, tolerance: float = 1.0) -> float:
    """Return the normalized surface Dice (NSD) of two masks; NaN when both are empty.

    The fraction of the surface voxels of both masks that lie within a tolerance of the other
    mask's surface, as [1]_ defines it and MONAI computes it (DeepMind's surface-distance weighs
    each place with the area of its surface).

    Parameters
    ----------
    seg, truth : (Z, Y, X) ndarray
        Nonzero is inside.
    grid : Grid
        Only its affine is used.
    tolerance : float
        Distance in mm that still counts as agreement. It should be that between two experts.

    Returns
    -------
    float
        From 0 to 1; 0 when one mask is empty.

    Raises
    ------
    GeometryError
        When the shapes differ or are not volumes.
    ParameterError
        When the tolerance is negative or not finite.

    References
    ----------
    .. [1] Nikolov et al., "Clinically applicable segmentation of head and neck anatomy for
       radiotherapy", J. Med. Internet Res. 23, 2021.

    Examples
    --------
    >>> import numpy as np
    >>> from napari_medgs.data.grid import Grid
    >>> seg, truth = np.zeros((1, 1, 9)), np.zeros((1, 1, 9))
    >>> seg[..., 2], truth[..., 3:5] = 1, 1
    >>> round(nsd(seg, truth, Grid((1, 1, 9)), tolerance=1.0), 3)
    0.667
    """
    check_tolerance(tolerance)
    return nsd_of_distances(*surface_distances(seg, truth, grid), tolerance)


def check_tolerance(tolerance: float) -> None:
    """Refuse a tolerance that is no distance."""
    if not (np.isfinite(tolerance) and tolerance >= 0):
        raise ParameterError(f"The tolerance is a distance of 0 mm or more, not {tolerance}.")


def nsd_of_distances(
    to_truth: NDArray[np.float64], to_seg: NDArray[np.float64], tolerance: float
) -> float:
    """Return the NSD of two sets of directed distances."""
    total = len(to_truth) + len(to_seg)
    # Distances of whole voxels are subject to rounding: 3 x 0.1 is within 0.3.
    limit = tolerance * (1 + 1e-9) + 1e-9
    near = int(np.count_nonzero(to_truth <= limit)) + int(np.count_nonzero(to_seg <= limit))
    return near / total if total else float("nan")


def hd95_and_asd(
    to_truth: NDArray[np.float64], to_seg: NDArray[np.float64]
) -> tuple[float, float]:
    """Return HD95 and ASD of two sets of directed distances."""
    if not len(to_truth) or not len(to_seg):
        return float("nan"), float("nan")
    worst = max(float(np.percentile(to_truth, 95)), float(np.percentile(to_seg, 95)))
    return worst, float((to_truth.sum() + to_seg.sum()) / (len(to_truth) + len(to_seg)))


def _surface_voxels(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the indices (P, 3) of voxels with a face neighbor outside the mask or the volume."""
    padded = np.pad(mask, 1)
    inner = mask.copy()
    for axis in range(3):
        for start in (0, 2):
            shifted = [slice(1, -1)] * 3
            shifted[axis] = slice(start, start + mask.shape[axis])
            inner &= padded[tuple(shifted)]
    return np.argwhere(mask & ~inner)

"""Segmentation scores: Dice, IoU, Hausdorff and surface distances, normalized surface Dice.

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

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.errors import GeometryError, LabelError, ParameterError
from napari_medgs.metrics.volumes import Box, check_same_shape, label_boxes, label_values

if TYPE_CHECKING:
    from napari_medgs.data.grid import Grid

SCORES = ("dice", "iou", "hd95", "asd", "nsd")
"""The scores of a label, by their names in results."""


def dice(seg: NDArray[Any], truth: NDArray[Any]) -> float:
    """Return the Dice coefficient of two masks; NaN when both are empty.

    Parameters
    ----------
    seg, truth : ndarray
        Equal shapes; nonzero is inside.

    Returns
    -------
    float
        ``2 |A n B| / (|A| + |B|)``, from 0 to 1.

    Raises
    ------
    GeometryError
        When the shapes differ.

    Examples
    --------
    >>> import numpy as np
    >>> dice(np.array([1, 1, 0, 0]), np.array([0, 1, 0, 0]))
    0.6666666666666666
    """
    seg, truth = _masks(seg, truth)
    total = int(np.count_nonzero(seg)) + int(np.count_nonzero(truth))
    return 2 * int(np.count_nonzero(seg & truth)) / total if total else float("nan")


def iou(seg: NDArray[Any], truth: NDArray[Any]) -> float:
    """Return the intersection over union (Jaccard index) of two masks; NaN when both are empty.

    Parameters
    ----------
    seg, truth : ndarray
        Equal shapes; nonzero is inside.

    Returns
    -------
    float
        From 0 to 1.

    Raises
    ------
    GeometryError
        When the shapes differ.

    Examples
    --------
    >>> import numpy as np
    >>> iou(np.array([1, 1, 0, 0]), np.array([0, 1, 0, 0]))
    0.5
    """
    seg, truth = _masks(seg, truth)
    union = int(np.count_nonzero(seg | truth))
    return int(np.count_nonzero(seg & truth)) / union if union else float("nan")


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

    seg, truth = _masks(seg, truth)
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
    return _hd95_and_asd(*surface_distances(seg, truth, grid))[0]


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
    return _hd95_and_asd(*surface_distances(seg, truth, grid))[1]


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
    _check_tolerance(tolerance)
    return _nsd(*surface_distances(seg, truth, grid), tolerance)


def evaluate(
    seg: NDArray[Any],
    truth: NDArray[Any],
    grid: Grid,
    labels: Sequence[int] | None = None,
    *,
    tolerance: float = 1.0,
) -> dict[str, Any]:
    """Score a label image against the truth.

    Parameters
    ----------
    seg, truth : (Z, Y, X) integer ndarray
        0 is background. Voxels that are -1 (unlabeled) in the truth are ignored.
    grid : Grid
        The grid of both.
    labels : sequence of int, optional
        Which labels to score; all of either image by default.
    tolerance : float
        Of the normalized surface Dice, in mm; see :func:`nsd`.

    Returns
    -------
    dict
        ``{"labels": {"1": {...}, ...}, "mean": {...}, "tolerance_mm": 1.0}``, ready for JSON.
        Every label has ``dice``, ``iou``, ``nsd``, ``hd95`` and ``asd`` (mm), ``volume_ml``,
        ``volume_ml_truth`` and their ``volume_ratio``; None stands where a score is undefined:
        all five when a label is in neither image, the distances when it is in one only. The mean
        is over the labels with a score; ``labels`` counts the scored ones, ``without_distance``
        those of them that have none.

    Raises
    ------
    GeometryError, LabelError, ParameterError
        When shapes differ, values are not integers, there is no label to score, or the
        tolerance is no distance.

    Examples
    --------
    >>> import numpy as np
    >>> from napari_medgs.data.grid import Grid
    >>> truth = np.zeros((4, 4, 4), int)
    >>> truth[1:3, 1:3, 1:3] = 1
    >>> scores = evaluate(np.roll(truth, 1, axis=0), truth, Grid((4, 4, 4)))
    >>> scores["labels"]["1"]["dice"], scores["mean"]["hd95"]
    (0.5, 1.0)
    """
    _check_tolerance(tolerance)
    seg, truth = np.asarray(seg), np.asarray(truth)
    if not seg.shape == truth.shape == grid.shape:
        raise GeometryError(
            f"Segmentation {seg.shape}, truth {truth.shape} and grid {grid.shape} must have one "
            "shape: resample the segmentation to the truth first."
        )
    ignored = truth == -1 if np.issubdtype(truth.dtype, np.signedinteger) else None
    values = np.union1d(label_values(seg, "segmentation"), label_values(truth, "truth"))
    if labels is None:
        wanted = [int(v) for v in values if v > 0]
    else:
        wanted = sorted({int(v) for v in labels})
        if wanted and wanted[0] < 1:
            raise LabelError(f"Only labels above 0 are scored, not {wanted[0]}.")
    if not wanted:
        raise LabelError("There is no label to score: both images contain background only.")
    report: dict[str, Any] = {}
    boxes_seg, boxes_truth = label_boxes(seg, wanted), label_boxes(truth, wanted)
    for value in wanted:
        box = _union_box(boxes_seg.get(value), boxes_truth.get(value))
        report[str(value)] = _evaluate_label(seg, truth, ignored, grid, value, box, tolerance)
    scored = [entry for entry in report.values() if entry["dice"] is not None]
    mean: dict[str, Any] = {}
    for name in SCORES:
        known = [entry[name] for entry in scored if entry[name] is not None]
        mean[name] = float(np.mean(known)) if known else None
    mean["labels"] = len(scored)
    mean["without_distance"] = sum(entry["hd95"] is None for entry in scored)
    return {"labels": report, "mean": mean, "tolerance_mm": float(tolerance)}


def _evaluate_label(
    seg: NDArray[Any],
    truth: NDArray[Any],
    ignored: NDArray[np.bool_] | None,
    grid: Grid,
    value: int,
    box: Box | None,
    tolerance: float,
) -> dict[str, float | None]:
    if box is None:
        empty = {"volume_ml": 0.0, "volume_ml_truth": 0.0, "volume_ratio": None}
        return {**dict.fromkeys(SCORES), **empty}
    ours, theirs = seg[box] == value, truth[box] == value
    if ignored is not None:
        ours &= ~ignored[box]
    distances = surface_distances(ours, theirs, grid)
    scores = (
        dice(ours, theirs),
        iou(ours, theirs),
        *_hd95_and_asd(*distances),
        _nsd(*distances, tolerance),
    )
    entry: dict[str, float | None] = {
        name: None if np.isnan(score) else score for name, score in zip(SCORES, scores)
    }
    count, count_truth = int(np.count_nonzero(ours)), int(np.count_nonzero(theirs))
    entry["volume_ml"] = count * grid.voxel_volume / 1000
    entry["volume_ml_truth"] = count_truth * grid.voxel_volume / 1000
    entry["volume_ratio"] = count / count_truth if count_truth else None
    return entry


def _check_tolerance(tolerance: float) -> None:
    if not (np.isfinite(tolerance) and tolerance >= 0):
        raise ParameterError(f"The tolerance is a distance of 0 mm or more, not {tolerance}.")


def _nsd(to_truth: NDArray[np.float64], to_seg: NDArray[np.float64], tolerance: float) -> float:
    """NSD of two sets of directed distances."""
    total = len(to_truth) + len(to_seg)
    # Distances of whole voxels are subject to rounding: 3 x 0.1 is within 0.3.
    limit = tolerance * (1 + 1e-9) + 1e-9
    near = int(np.count_nonzero(to_truth <= limit)) + int(np.count_nonzero(to_seg <= limit))
    return near / total if total else float("nan")


def _hd95_and_asd(
    to_truth: NDArray[np.float64], to_seg: NDArray[np.float64]
) -> tuple[float, float]:
    """HD95 and ASD of two sets of directed distances."""
    if not len(to_truth) or not len(to_seg):
        return float("nan"), float("nan")
    worst = max(float(np.percentile(to_truth, 95)), float(np.percentile(to_seg, 95)))
    return worst, float((to_truth.sum() + to_seg.sum()) / (len(to_truth) + len(to_seg)))


def _surface_voxels(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Indices (P, 3) of the voxels with a face neighbor outside the mask or the volume."""
    padded = np.pad(mask, 1)
    inner = mask.copy()
    for axis in range(3):
        for start in (0, 2):
            shifted = [slice(1, -1)] * 3
            shifted[axis] = slice(start, start + mask.shape[axis])
            inner &= padded[tuple(shifted)]
    return np.argwhere(mask & ~inner)


def _union_box(a: Box | None, b: Box | None) -> Box | None:
    if a is None or b is None:
        return a or b
    z, y, x = (slice(min(s.start, t.start), max(s.stop, t.stop)) for s, t in zip(a, b))
    return (z, y, x)


def _masks(seg: NDArray[Any], truth: NDArray[Any]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    seg, truth = check_same_shape(seg, truth)
    return seg.astype(bool, copy=False), truth.astype(bool, copy=False)

"""Scores of a label image against the truth, label by label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.errors import GeometryError, LabelError
from napari_medgs.metrics.overlap import dice, iou
from napari_medgs.metrics.surface_distance import (
    check_tolerance,
    hd95_and_asd,
    nsd_of_distances,
    surface_distances,
)
from napari_medgs.metrics.volumes import Box, label_boxes, label_values

if TYPE_CHECKING:
    from napari_medgs.data.grid import Grid

SCORES = ("dice", "iou", "hd95", "asd", "nsd")
"""The scores of a label, by their names in results."""


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
    check_tolerance(tolerance)
    seg, truth = np.asarray(seg), np.asarray(truth)
    if not seg.shape == truth.shape == grid.shape:
        raise GeometryError(
            f"Segmentation {seg.shape}, truth {truth.shape} and grid {grid.shape} must have one "
            "shape: resample the segmentation to the truth first."
        )
    ignored = truth == -1 if np.issubdtype(truth.dtype, np.signedinteger) else None
    values = np.union1d(label_values(seg, "segmentation"), label_values(truth, "truth"))
    if values[0] < -1:
        where = "segmentation" if values[0] in seg else "truth"
        raise LabelError(
            f"The {where} holds the label {values[0]}; labels start at 0 (-1: unknown)."
        )
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
        *hd95_and_asd(*distances),
        nsd_of_distances(*distances, tolerance),
    )
    entry: dict[str, float | None] = {
        name: None if np.isnan(score) else score for name, score in zip(SCORES, scores)
    }
    count, count_truth = int(np.count_nonzero(ours)), int(np.count_nonzero(theirs))
    entry["volume_ml"] = count * grid.voxel_volume / 1000
    entry["volume_ml_truth"] = count_truth * grid.voxel_volume / 1000
    entry["volume_ratio"] = count / count_truth if count_truth else None
    return entry


def _union_box(a: Box | None, b: Box | None) -> Box | None:
    if a is None or b is None:
        return a or b
    z, y, x = (slice(min(s.start, t.start), max(s.stop, t.stop)) for s, t in zip(a, b))
    return (z, y, x)

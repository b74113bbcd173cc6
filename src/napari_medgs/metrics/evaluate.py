"""How near an image is to another, and a segmentation to the truth.

Conventions, chosen once for the whole project:

* Images are compared in units of their *span*: the truth's 0.5 to 99.5 percentile range becomes
  [0, 1] and both images are clipped to it, so that a few bright voxels do not decide the score.
  A given ``data_range`` switches this off.
* SSIM is that of Wang et al. 2004 with scikit-image's defaults: a 7-wide uniform window, sample
  covariances, k1 = 0.01, k2 = 0.03, the half window at the border left out.
* The surface of a mask is the set of its voxels with a face neighbour outside (the volume's edge
  is outside); distances run between voxel centres in millimetres through the full affine.
* HD95 is the larger of the two directed 95th percentiles (Metrics Reloaded, Maier-Hein et al.
  2024; also MONAI and DeepMind's surface-distance; MedPy pools the two sets instead).
  ASD is the symmetric average: the mean over both surfaces' distances together.
* Two empty masks have no score (NaN); one empty mask has Dice and IoU 0 and no distances (NaN).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.errors import GeometryError, ImageError, LabelError, ParameterError
from napari_medgs.metrics.volumes import Box, label_boxes, label_values

if TYPE_CHECKING:
    from napari_medgs.data.grid import Grid

PERCENTILES = (0.5, 99.5)
_SLAB = 16


def intensity_span(
    image: NDArray[Any], percentiles: tuple[float, float] = PERCENTILES
) -> tuple[float, float]:
    """Return the intensities at two percentiles of an image.

    Images above four million voxels are read at evenly spaced ones, as the fit does. Where the
    percentiles coincide (a small shape in much background) the whole range is returned.

    Raises
    ------
    ImageError
        When the image is constant.
    """
    sample = image if image.size <= 4_000_000 else image.reshape(-1)[:: image.size // 2_000_000]
    low, high = (float(v) for v in np.percentile(sample, percentiles))
    if not high > low:
        low, high = float(image.min()), float(image.max())
    if not high > low:
        raise ImageError("The image is constant: it has no intensity range to compare within.")
    return low, high


def psnr(truth: NDArray[Any], guess: NDArray[Any], data_range: float | None = None) -> float:
    """Return the peak signal-to-noise ratio in dB, from the mean over all voxels (pooled).

    Parameters
    ----------
    truth, guess : (Y, X), (Z, Y, X) or (C, Z, Y, X) ndarray
    data_range : float, optional
        The peak, in the images' units. By default both are scaled and clipped to the truth's
        percentile span (each channel to its own), and the peak is 1.

    Returns
    -------
    float
        Infinite for equal images.

    Raises
    ------
    GeometryError
        When the shapes differ.
    """
    truth, guess = _pair(truth, guess)
    mean = sum(_squares(*pair) for pair in _channels(truth, guess, data_range)) / truth.size
    return float("inf") if mean == 0 else float(-10 * np.log10(mean))


def nrmse(truth: NDArray[Any], guess: NDArray[Any]) -> float:
    """Return the root of squared errors over squared truth, ``|guess - truth| / |truth|``.

    Depends on where the intensities have their zero: meant for MRI, not for Hounsfield units.
    """
    truth, guess = _pair(truth, guess)
    errors = norm = 0.0
    for t, g in _planes(truth, guess):
        plane = t.astype(np.float64)
        norm += float(np.sum(plane * plane))
        plane -= g
        errors += float(np.sum(plane * plane))
    if norm == 0:
        raise ImageError("The true image is zero everywhere: its relative error is undefined.")
    return float(np.sqrt(errors / norm))


def ssim(
    truth: NDArray[Any],
    guess: NDArray[Any],
    data_range: float | None = None,
    *,
    slice_axis: int | None = None,
) -> float:
    """Return the mean structural similarity.

    Parameters
    ----------
    truth, guess : (Y, X), (Z, Y, X) or (C, Z, Y, X) ndarray
        The score of several channels is their mean.
    data_range : float, optional
        The range of values; by default the truth's percentile span, both images clipped to it.
    slice_axis : int, optional
        Axis (of z, y, x) across which a volume is cut into slices, each with 2D windows; the
        mean over slices is returned (what papers on slices quote). By default the windows of a
        volume are 3D. A single slice is always compared in 2D.

    Raises
    ------
    GeometryError, ParameterError
        When the shapes differ, or the image is smaller than the 7-wide window.

    Notes
    -----
    With 3D windows computed in float32, a slab of slices at a time: beyond its input a 256^3
    volume needs about 100 MB. Slabs overlap, so the result is that of the whole volume at once.
    """
    truth, guess = _pair(truth, guess)
    scores = []
    for t, g, scale in _channels(truth, guess, data_range):
        if t.ndim == 3 and slice_axis is None and 1 in t.shape:
            axis: int | None = t.shape.index(1)
        else:
            axis = slice_axis
        if t.ndim == 2:
            scores.append(_ssim_plain(t, g, scale))
        elif axis is None:
            scores.append(_ssim_3d(t, g, scale))
        else:
            slices = zip(np.moveaxis(t, axis, 0), np.moveaxis(g, axis, 0))
            scores.append(float(np.mean([_ssim_plain(a, b, scale) for a, b in slices])))
    return float(np.mean(scores))


def dice(seg: NDArray[Any], truth: NDArray[Any]) -> float:
    """Return the Dice coefficient of two masks (non-zero is inside); NaN when both are empty."""
    seg, truth = _masks(seg, truth)
    total = int(np.count_nonzero(seg)) + int(np.count_nonzero(truth))
    return 2 * int(np.count_nonzero(seg & truth)) / total if total else float("nan")


def iou(seg: NDArray[Any], truth: NDArray[Any]) -> float:
    """Return intersection over union (Jaccard) of two masks; NaN when both are empty."""
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
        Non-zero is inside.
    grid : Grid
        Only its affine is used.

    Returns
    -------
    to_truth, to_seg : (P,) and (Q,) ndarray
        One distance for each surface voxel of ``seg`` and of ``truth``; infinite where the
        other mask is empty.
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
    """Return the 95th percentile Hausdorff distance in mm; NaN when a mask is empty."""
    return _summarise(*surface_distances(seg, truth, grid))[0]


def asd(seg: NDArray[Any], truth: NDArray[Any], grid: Grid) -> float:
    """Return the average symmetric surface distance in mm; NaN when a mask is empty."""
    return _summarise(*surface_distances(seg, truth, grid))[1]


def evaluate(
    seg: NDArray[Any],
    truth: NDArray[Any],
    grid: Grid,
    labels: Sequence[int] | None = None,
) -> dict[str, Any]:
    """Score a label image against the truth.

    Parameters
    ----------
    seg, truth : (Z, Y, X) integer ndarray
        0 is background. Voxels that are -1 (unlabelled) in the truth are left out.
    grid : Grid
        The grid of both.
    labels : sequence of int, optional
        Which labels to score; all of either image by default.

    Returns
    -------
    dict
        ``{"labels": {"1": {...}, ...}, "mean": {...}}``, ready for JSON. Every label has
        ``dice``, ``iou``, ``hd95`` and ``asd`` (mm), ``volume_ml`` and ``volume_ml_truth``;
        None stands where a score is undefined: all four when a label is in neither image, the
        distances when it is in one only. The mean is over the labels with a score;
        ``labels`` counts the scored ones, ``without_distance`` those of them that have none.

    Raises
    ------
    GeometryError, LabelError
        When shapes differ, values are not integers, or there is no label to score.
    """
    seg, truth = np.asarray(seg), np.asarray(truth)
    if not seg.shape == truth.shape == grid.shape:
        raise GeometryError(
            f"Segmentation {seg.shape}, truth {truth.shape} and grid {grid.shape} must have one "
            "shape: resample the segmentation to the truth first."
        )
    left_out = truth == -1 if np.issubdtype(truth.dtype, np.signedinteger) else None
    values = np.union1d(label_values(seg, "segmentation"), label_values(truth, "truth"))
    if labels is None:
        wanted = [int(v) for v in values if v > 0]
    else:
        wanted = sorted({int(v) for v in labels})
        if wanted and wanted[0] < 1:
            raise LabelError(f"Only labels above 0 are scored, not {wanted[0]}.")
    if not wanted:
        raise LabelError("There is no label to score: both images hold background only.")
    report: dict[str, Any] = {}
    boxes_seg, boxes_truth = label_boxes(seg, wanted), label_boxes(truth, wanted)
    for value in wanted:
        box = _union_box(boxes_seg.get(value), boxes_truth.get(value))
        report[str(value)] = _evaluate_label(seg, truth, left_out, grid, value, box)
    scored = [entry for entry in report.values() if entry["dice"] is not None]
    mean: dict[str, Any] = {}
    for name in ("dice", "iou", "hd95", "asd"):
        known = [entry[name] for entry in scored if entry[name] is not None]
        mean[name] = float(np.mean(known)) if known else None
    mean["labels"] = len(scored)
    mean["without_distance"] = sum(entry["hd95"] is None for entry in scored)
    return {"labels": report, "mean": mean}


def _evaluate_label(
    seg: NDArray[Any],
    truth: NDArray[Any],
    left_out: NDArray[np.bool_] | None,
    grid: Grid,
    value: int,
    box: Box | None,
) -> dict[str, float | None]:
    names = ("dice", "iou", "hd95", "asd")
    if box is None:
        return {**dict.fromkeys(names), "volume_ml": 0.0, "volume_ml_truth": 0.0}
    ours, theirs = seg[box] == value, truth[box] == value
    if left_out is not None:
        ours &= ~left_out[box]
    scores = (
        dice(ours, theirs),
        iou(ours, theirs),
        *_summarise(*surface_distances(ours, theirs, grid)),
    )
    entry: dict[str, float | None] = {
        name: None if np.isnan(score) else score for name, score in zip(names, scores)
    }
    entry["volume_ml"] = int(np.count_nonzero(ours)) * grid.voxel_volume / 1000
    entry["volume_ml_truth"] = int(np.count_nonzero(theirs)) * grid.voxel_volume / 1000
    return entry


def _summarise(forth: NDArray[np.float64], back: NDArray[np.float64]) -> tuple[float, float]:
    """HD95 and ASD of two sets of directed distances."""
    if not len(forth) or not len(back):
        return float("nan"), float("nan")
    worst = max(float(np.percentile(forth, 95)), float(np.percentile(back, 95)))
    return worst, float((forth.sum() + back.sum()) / (len(forth) + len(back)))


def _surface_voxels(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Indices (P, 3) of the voxels with a face neighbour outside the mask or the volume."""
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
    seg, truth = _pair(seg, truth)
    return seg.astype(bool, copy=False), truth.astype(bool, copy=False)


def _pair(truth: NDArray[Any], guess: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    truth, guess = np.asarray(truth), np.asarray(guess)
    if truth.shape != guess.shape or truth.size == 0:
        raise GeometryError(
            f"Only equal shapes, not empty, can be compared: not {truth.shape} with {guess.shape}."
        )
    return truth, guess


# What makes a pair of images comparable: (low, high), clipped to, or a range.
_Scale = tuple[float, float] | float


def _channels(
    truth: NDArray[Any], guess: NDArray[Any], data_range: float | None
) -> Iterator[tuple[NDArray[Any], NDArray[Any], _Scale]]:
    if data_range is not None and not data_range > 0:
        raise ParameterError(f"The data range must be positive, not {data_range}.")
    if not 2 <= truth.ndim <= 4:
        raise GeometryError(f"Images have 2 to 4 axes (c, z, y, x), not {truth.ndim}.")
    for t, g in zip(truth, guess) if truth.ndim == 4 else ((truth, guess),):
        yield t, g, float(data_range) if data_range is not None else intensity_span(t)


def _planes(*arrays: NDArray[Any]) -> Iterator[tuple[NDArray[Any], ...]]:
    """Cut arrays of one shape into the same planes, in the order of memory for speed."""
    order = np.argsort(arrays[0].strides)[::-1]
    arrays = tuple(a.transpose(order) for a in arrays)
    for index in np.ndindex(arrays[0].shape[:-2]):
        yield tuple(a[index] for a in arrays)


def _scaled(image: NDArray[Any], scale: _Scale) -> NDArray[np.float32]:
    if isinstance(scale, float):
        return np.multiply(image, 1 / scale, dtype=np.float32, casting="unsafe")
    low, high = scale
    result = np.subtract(image, low, dtype=np.float32, casting="unsafe")
    result *= np.float32(1 / (high - low))
    return np.clip(result, 0, 1, out=result)


def _squares(truth: NDArray[Any], guess: NDArray[Any], scale: _Scale) -> float:
    total = 0.0
    for t, g in _planes(truth, guess):
        error = _scaled(t, scale)
        error -= _scaled(g, scale)
        total += float(np.vdot(error, error))
    return total


def _ssim_3d(truth: NDArray[Any], guess: NDArray[Any], scale: _Scale) -> float:
    """Mean over slabs that overlap by a window, so that each voxel counts once."""
    from napari_medgs.metrics.ssim import WINDOW

    pad = WINDOW // 2
    depth = len(truth) - 2 * pad
    total = 0.0
    for start in range(0, max(depth, 1), _SLAB):
        stop = min(start + _SLAB, depth)
        slab = slice(start, stop + 2 * pad)
        total += (stop - start) * _ssim_plain(truth[slab], guess[slab], scale)
    return total / depth


def _ssim_plain(truth: NDArray[Any], guess: NDArray[Any], scale: _Scale) -> float:
    from napari_medgs.metrics.ssim import similarity

    return similarity(_scaled(truth, scale), _scaled(guess, scale))

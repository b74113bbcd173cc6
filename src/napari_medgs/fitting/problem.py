"""From a volume and a mask to what the engine fits: scaled stacks, weights, class indices."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs._util.threads import run_chunks
from napari_medgs.data.field import FieldInfo
from napari_medgs.data.intensities import check_span, scale_to_unit
from napari_medgs.data.volume import Volume
from napari_medgs.errors import GeometryError, ImageError, LabelError, ParameterError
from napari_medgs.fitting.advanced import TargetParams
from napari_medgs.fitting.noise import noise_variance
from napari_medgs.fitting.params import FitParams
from napari_medgs.io.labels import as_labels
from napari_medgs.rendering.engine import StackTarget

UNLABELED = 255
MAX_CLASSES = 250


@dataclass
class FitProblem:
    """A fit's target with all that is needed to make a field of the answer.

    Attributes
    ----------
    info : FieldInfo
    background : (C,) ndarray of float32
    target : StackTarget
        On the slice-first grid, cropped in plane to what is not background.
    origin : (int, int)
        Row and column of the whole slice where the crop begins.
    error_outside_crop : float
        Squared error of plain background outside the crop, on the training slices.
    training_slices : (K,) ndarray of int
        Slices that carry an image, increasing.
    """

    info: FieldInfo
    background: Floats
    target: StackTarget
    origin: tuple[int, int]
    error_outside_crop: float
    training_slices: NDArray[np.int64]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Slices, rows and columns of the crop."""
        images = self.target.images
        depth, height, width = images.shape[1:] if len(images) else self.target.labels.shape
        return (depth, height, width)


def choose_slice_axis(volume: Volume, wanted: int | None) -> int:
    """Return the axis to fold along: the wanted one, a single slice's, or the coarsest."""
    shape = volume.grid.shape
    if wanted is not None:
        return wanted
    if 1 in shape:
        return shape.index(1)
    return volume.grid.coarsest_axis()


def scale_intensities(
    data: NDArray[Any],
    percentiles: tuple[float, float],
    out: Floats | None = None,
    threads: int | None = None,
) -> tuple[Floats, float, float]:
    """Map an image's percentile span to [0, 1] and clip; return it with scale and offset.

    Where the span is empty (a shape in much background, say) the full range is used.
    """
    sample = data if data.size <= 4_000_000 else data.reshape(-1)[:: data.size // 2_000_000]
    low, high = (float(v) for v in np.percentile(sample, percentiles))
    if not high > low:
        low, high = float(data.min()), float(data.max())
    if not high > low and data.min() == data.max():
        raise ImageError("The image is constant: there is nothing to fit.")
    check_span(low, high)
    scaled = np.empty(data.shape, np.float32) if out is None else out

    def scale(z: int) -> None:
        scale_to_unit(data[z], low, high, scaled[z])

    run_chunks(scale, len(data), threads)
    return scaled, high - low, low


def typical_background(scaled: Floats, threads: int | None = None) -> float:
    """Return the most common intensity of a scaled image, to 1/128 of its range."""
    from napari_medgs.fitting.init.voxels import histogram

    k = int(histogram(scaled, 128, threads).argmax())
    return 0.0 if k == 0 else (k + 0.5) / 128


def index_labels(
    mask: NDArray[Any], shape: tuple[int, ...]
) -> tuple[NDArray[np.uint8], list[int]]:
    """Turn label values into class indices.

    Parameters
    ----------
    mask : (Z, Y, X) integer ndarray
        Label values; -1 means unlabeled.

    Returns
    -------
    labels : (Z, Y, X) ndarray of uint8
        Class indices, 255 where unlabeled.
    values : list of int
        The value of each class; background (0) first.

    Raises
    ------
    GeometryError
        When the shapes differ.
    LabelError
        When values are not integers, below -1, or too many, or nothing is labeled.
    """
    mask = np.asarray(mask)
    if mask.shape != tuple(shape):
        raise GeometryError(
            f"The mask has shape {mask.shape}, the image {tuple(shape)}: they must share a grid."
        )
    mask = as_labels(mask)
    present = np.unique(mask)
    if present[0] < -1:
        raise LabelError(
            f"The mask holds the label {present[0]}; labels start at 0 (-1: unknown)."
        )
    values = [0] + [int(v) for v in present if v > 0]
    if len(values) < 2:
        raise LabelError("The mask is empty: it needs at least one label above 0.")
    if len(values) > MAX_CLASSES:
        raise LabelError(
            f"The mask holds {len(values) - 1} labels; at most {MAX_CLASSES - 1} can be fitted at "
            "once. Keep the ones you need."
        )
    indices = np.searchsorted(values, np.maximum(mask, 0)).astype(np.uint8)
    indices[mask == -1] = UNLABELED
    return indices, values


def make_problem(
    volume: Volume, params: FitParams, mask: NDArray[Any] | None, class_names: dict[int, str]
) -> FitProblem:
    """Check and scale everything a fit needs, slice axis first."""
    settings = params.advanced.target
    volume = volume.prepared()
    axis = choose_slice_axis(volume, params.slice_axis)
    data = np.moveaxis(volume.data, axis + 1, 1)
    depth = data.shape[1]
    images = np.empty(data.shape, np.float32)
    scales, offsets, background = [], [], []
    for channel in range(len(data)):
        _, scale, offset = scale_intensities(
            data[channel], params.percentiles, images[channel], params.threads
        )
        scales.append(scale)
        offsets.append(offset)
        background.append(typical_background(images[channel], params.threads))
    training = np.arange(depth)
    if params.holdout is not None:
        if depth < 2 * params.holdout + 1:
            raise ParameterError(
                f"Keeping every {params.holdout}th of {depth} slices leaves too few to fit; "
                "use a smaller step."
            )
        training = np.arange(0, depth, params.holdout)
    image_weights = np.zeros((len(images), depth), np.float32)
    image_weights[:, training] = params.lambda_img
    labels = np.zeros((0, 0, 0), np.uint8)
    seg_weights = np.zeros(depth, np.float32)
    values: list[int] = []
    if mask is not None and params.lambda_seg > 0:
        indices, values = index_labels(mask, volume.grid.shape)
        labels = np.ascontiguousarray(np.moveaxis(indices, axis, 0))
        believed = training if params.mask_slices is None else np.asarray(params.mask_slices)
        if believed.size and (believed.min() < 0 or believed.max() >= depth):
            raise ParameterError(f"mask_slices must lie in 0 .. {depth - 1}.")
        known = (labels != UNLABELED).any(axis=(1, 2))
        looked_at = images if params.holdout is None else images[:, training]
        seg_weights[believed] = params.lambda_seg * _class_scale(looked_at, background, settings)
        seg_weights[~known] = 0
        if params.empty_slices_unlabeled:
            painted = (labels > 0) & (labels != UNLABELED)
            seg_weights[~painted.any(axis=(1, 2))] = 0
        if not seg_weights.any():
            raise LabelError("No labeled slice is left to fit.")
        empty = settings.empty_logit if params.blend == "normalized" else settings.empty_logit_sum
        background += [empty] + [0.0] * (len(values) - 1)
    elif params.lambda_img == 0:
        raise ParameterError("lambda_img is 0 and there is no mask: nothing would be fitted.")
    names = ["background"] + [class_names.get(v, f"label {v}") for v in values[1:]]
    info = FieldInfo(
        grid=volume.grid,
        slice_axis=axis,
        blend=params.blend,
        degree=params.fold if depth > 1 else 0,
        image_channels=volume.channel_names,
        intensity_scale=tuple(scales),
        intensity_offset=tuple(offsets),
        class_names=tuple(names) if values else (),
        label_values=tuple(values),
        cutoff=params.cutoff,
        params=params.to_dict(),
    )
    target = StackTarget(
        images, image_weights, labels, seg_weights, len(values), params.loss == "l1"
    )
    problem = FitProblem(info, np.asarray(background, np.float32), target, (0, 0), 0.0, training)
    return crop_to_content(problem, settings)


def _class_scale(images: Floats, background: list[float], settings: TargetParams) -> float:
    """Return the weight of a voxel's cross-entropy, that of half its squared error being one.

    Errors as large as the noise say as much about an image as a class of probability 1/e about
    its labels: in noisy images classes weigh more, or thin ones would be lost in it.
    """
    noise = [
        noise_variance(image, level) for image, level in zip(images, background, strict=False)
    ]
    return max([settings.seg_scale, *(settings.seg_noise * variance for variance in noise)])


def crop_to_content(problem: FitProblem, settings: TargetParams) -> FitProblem:
    """Leave away rows and columns that hold nothing but background in every slice."""
    target = problem.target
    shape = target.images.shape[1:]
    interesting = [np.zeros(n, bool) for n in shape[1:]]
    for image, level in zip(target.images, problem.background, strict=False):
        span = np.maximum(image.max(axis=0) - level, level - image.min(axis=0)) > settings.flat
        interesting[0] |= span.any(axis=1)
        interesting[1] |= span.any(axis=0)
    if target.classes:
        span = ((target.labels > 0) & (target.labels != UNLABELED)).any(axis=0)
        interesting[0] |= span.any(axis=1)
        interesting[1] |= span.any(axis=0)
    box = []
    for hits in interesting:
        where = np.flatnonzero(hits)
        first, last = (where[0], where[-1] + 1) if where.size else (0, len(hits))
        box.append(slice(max(0, first - settings.margin), min(len(hits), last + settings.margin)))
    rows, columns = box
    size = (rows.stop - rows.start) * (columns.stop - columns.start)
    if size > 0.9 * shape[1] * shape[2]:
        return problem
    training = problem.training_slices
    squares = 0.0
    for image, level in zip(target.images, problem.background, strict=False):
        for z in training:
            whole = np.square(image[z] - level, dtype=np.float64).sum()
            squares += whole - np.square(image[z, rows, columns] - level, dtype=np.float64).sum()
    images = np.ascontiguousarray(target.images[:, :, rows, columns])
    labels = target.labels
    if target.classes:
        labels = np.ascontiguousarray(labels[:, rows, columns])
    return replace(
        problem,
        target=replace(target, images=images, labels=labels),
        origin=(int(rows.start), int(columns.start)),
        error_outside_crop=float(max(squares, 0.0)),
    )

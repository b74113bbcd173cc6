"""What a compressed field should look like: the image, the mask, or the field as it was."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs.data.field import GaussianField
from napari_medgs.data.intensities import scale_to_unit
from napari_medgs.data.volume import Volume
from napari_medgs.errors import GeometryError, LabelError, ParameterError
from napari_medgs.fitting.advanced import TargetParams
from napari_medgs.fitting.problem import UNLABELED, FitProblem, crop_to_content
from napari_medgs.io.labels import as_labels
from napari_medgs.rendering import render_stack
from napari_medgs.rendering.engine import StackTarget

BETWEEN_WEIGHT = 0.25
"""Loss weight of slices between those of the image, which stay as the field has them."""
COARSE = 1.5
"""Spacing of slices, in pixels, above which there are such."""
MOST_VOXELS = 32_000_000


@dataclass(frozen=True)
class TuningTarget:
    """What fine-tuning works towards.

    Attributes
    ----------
    problem : FitProblem
    factor : int
        Slices of its stack per slice of the field's grid.
    """

    problem: FitProblem
    factor: int


def scaled_images(field: GaussianField, volume: Volume) -> Floats:
    """Return the image as the field's values count it, clipped to 0 to 1, slices first.

    Parameters
    ----------
    field : GaussianField
    volume : Volume
        On the field's grid, with its contrasts.

    Returns
    -------
    (C, Z, Y, X) ndarray of float32

    Raises
    ------
    GeometryError, ParameterError
        When the image is not the field's.
    """
    info = field.info
    if not volume.grid.matches(info.grid):
        raise GeometryError(
            f"The image has {_shape(volume.grid.shape)} voxels on another grid than the field "
            f"({_shape(info.grid.shape)}); give the image that was fitted."
        )
    if len(volume.data) != len(info.image_channels):
        raise ParameterError(
            f"The image has {len(volume.data)} contrasts, the field {len(info.image_channels)}; "
            "give those that were fitted, in their order."
        )
    volume = volume.prepared()
    stacks = np.moveaxis(volume.data, info.slice_axis + 1, 1)
    images = np.empty(stacks.shape, np.float32)
    for c, (scale, low) in enumerate(
        zip(info.intensity_scale, info.intensity_offset, strict=True)
    ):
        scale_to_unit(stacks[c], low, low + scale, images[c])
    return images


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def class_indices(field: GaussianField, mask: NDArray[Any]) -> NDArray[np.uint8]:
    """Return the field's class of every voxel of a mask, slices first; 255 where not known.

    Raises
    ------
    LabelError, GeometryError
        When the mask is not the field's.
    """
    info = field.info
    if not info.class_names:
        raise LabelError("The field has no classes: leave out the mask.")
    mask = as_labels(np.asarray(mask))
    if mask.shape != info.grid.shape:
        raise GeometryError(
            f"The mask has {_shape(mask.shape)} voxels, the field {_shape(info.grid.shape)}: they "
            "must share a grid."
        )
    values = np.asarray(info.label_values)
    known = np.isin(mask, [*values, -1])
    if not known.all():
        raise LabelError(
            f"The mask holds the label {int(mask[~known][0])}, which the field has no class for; "
            "give the mask that was fitted."
        )
    order = np.argsort(values)
    found = order[np.searchsorted(values[order], np.maximum(mask, values.min()))]
    indices = found.astype(np.uint8)
    indices[mask == -1] = UNLABELED
    return np.ascontiguousarray(np.moveaxis(indices, info.slice_axis, 0))


def make_target(
    field: GaussianField,
    volume: Volume | None,
    mask: NDArray[Any] | None,
    threads: int | None = None,
) -> TuningTarget:
    """Return what fine-tuning works towards.

    Parameters
    ----------
    field : GaussianField
    volume : Volume, optional
        The image that was fitted; the field's own rendering otherwise.
    mask : (Z, Y, X) ndarray of int, optional
        The mask that was fitted; the field's own classes otherwise.
    threads : int, optional
        CPU threads; all by default.

    Returns
    -------
    TuningTarget

    Raises
    ------
    MedGSError
        When image or mask are not the field's.
    """
    info, settings = field.info, TargetParams()
    count, depth = len(info.image_channels), info.stack_shape[0]
    images = None if volume is None or not count else scaled_images(field, volume)
    labels = None if mask is None else class_indices(field, mask)
    factor, step = _slices_per_slice(field), training_step(field)
    own = None
    if images is None or (labels is None and info.class_names) or factor > 1 or step > 1:
        own = render_stack(_stretched(field, factor), threads=threads)
    given = np.arange(0, depth, step)
    weights = np.zeros((count, depth * factor - factor + 1), np.float32)
    scored = np.zeros(weights.shape[1], bool)
    scored[given * factor] = True
    weights[:, scored] = 1.0
    weights[:, ~scored] = BETWEEN_WEIGHT
    whole = np.empty(0, np.float32) if own is None else own[:count, : weights.shape[1]]
    target_images: Floats
    if images is None:
        target_images = np.ascontiguousarray(whole)
    elif factor == 1 and step == 1:
        target_images = images
    else:
        assert own is not None
        target_images = np.ascontiguousarray(whole)
        target_images[:, given * factor] = images[:, given]
    classes = len(info.class_names)
    seg = np.zeros(weights.shape[1], np.float32)
    if classes:
        seg[scored] = settings.seg_scale
        stack = np.full((weights.shape[1], *info.stack_shape[1:]), UNLABELED, np.uint8)
        if labels is None:
            assert own is not None
            labels = own[count:, ::factor].argmax(axis=0).astype(np.uint8)
        stack[given * factor] = labels[given]
    else:
        stack = np.zeros((0, 0, 0), np.uint8)
    target = StackTarget(target_images, weights, stack, seg, classes, scored=scored)
    problem = FitProblem(info, field.background, target, (0, 0), 0.0, given * factor)
    return TuningTarget(crop_to_content(problem, settings), factor)


def training_step(field: GaussianField) -> int:
    """Return the step of the slices that were fitted: others stay unseen."""
    step = field.info.params.get("holdout")
    if not isinstance(step, int) or isinstance(step, bool):
        return 1
    return step if 0 < step < field.info.stack_shape[0] else 1


def _slices_per_slice(field: GaussianField) -> int:
    """Return 2 where slices lie far apart, so that what lies between them is kept too."""
    grid, axis = field.info.grid, field.info.slice_axis
    pixel = min(s for k, s in enumerate(grid.spacing) if k != axis)
    coarse = grid.spacing[axis] > COARSE * pixel
    small = np.prod(grid.shape) <= MOST_VOXELS
    return 2 if coarse and small and grid.shape[axis] > 2 and training_step(field) == 1 else 1


def _stretched(field: GaussianField, factor: int) -> GaussianField:
    """Return the field on a grid of so many times the slices."""
    if factor == 1:
        return field
    axis = field.info.slice_axis
    grid = field.info.grid
    z, y, x = (n * factor - factor + 1 if k == axis else n for k, n in enumerate(grid.shape))
    affine = grid.affine.copy()
    affine[:3, axis] /= factor
    return field.on_grid(replace(grid, shape=(z, y, x), affine=affine))

"""Classes that an initial mask lacks: what is solved first, and the mask with what was found.

Strokes of a class that the mask does not have at all are no corrections: nothing is known of its
extent. So it is found as without a mask, from all strokes, except that it cannot have voxels deep
in the classes of the mask, nor far from its strokes. What is found completes the mask, which is
refined as any other.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.segmentation.prompts.collector import drawn_voxels, find_full_slices
from napari_medgs.segmentation.prompts.initial_mask import InitialMask
from napari_medgs.segmentation.prompts.prompts import Point, Prompts

REACH = 3.0  # of a class's strokes, in their largest extent
LEAST_EXTENT = 4.0  # finest voxels


@dataclass(frozen=True)
class LackingClasses:
    """Classes that are drawn, and that an initial mask does not have.

    Attributes
    ----------
    prompts : Prompts
        All strokes and points, without the mask and without background that only takes voxels
        away from its classes; copies.
    voxels : dict of int to (P, 3) ndarray of int
        By label: what is drawn, in canonical voxels.
    """

    prompts: Prompts
    voxels: dict[int, NDArray[Any]]


def lacking_classes(prompts: Prompts, initial: InitialMask) -> LackingClasses | None:
    """Return the classes that an initial mask lacks, and the prompts to find them.

    Parameters
    ----------
    prompts : Prompts
        Checked, with an initial mask or a prior.
    initial : InitialMask
        It.

    Returns
    -------
    LackingClasses or None
        None where the mask has all classes, or no background is marked where it has none: then
        only the mask tells what is around the new class.
    """
    shape, spacing = initial.labels.shape, initial.relative_spacing
    flat, label = drawn_voxels(prompts, shape, spacing)
    drawn = set(np.unique(label[label > 0]).tolist())
    lacking = sorted(drawn.difference(initial.values.tolist()))
    if not lacking:
        return None
    alone = replace(
        prompts,
        labels=_without_corrections(prompts, initial.labels),
        points=tuple(p for p in prompts.points if _says_more(p, prompts, initial.labels, drawn)),
        boxes=tuple(box for box in prompts.boxes if box.label in drawn),
        initial=None,
        prior=None,
        locked=frozenset(),
        result=None,
    )
    left = set(np.unique(drawn_voxels(alone, shape, spacing)[1]).tolist())
    if not {0, *lacking} <= left:
        return None
    voxels = {k: np.stack(np.unravel_index(flat[label == k], shape), axis=1) for k in lacking}
    return LackingClasses(alone, voxels)


def _without_corrections(prompts: Prompts, mask: NDArray[Any]) -> NDArray[Any] | None:
    """Return a copy of the strokes without background in a mask's classes, full slices as is."""
    if prompts.labels is None:
        return None
    strokes = prompts.labels.copy()
    if prompts.background_value is not None:
        taken = (strokes == prompts.background_value) & (mask > 0)
        for axis in range(3):
            full = find_full_slices(strokes, prompts.unlabeled, axis)
            np.moveaxis(taken, axis, 0)[full] = False
        strokes[taken] = prompts.unlabeled
    return strokes


def _says_more(point: Point, prompts: Prompts, mask: NDArray[Any], drawn: set[int]) -> bool:
    """Tell whether a point says anything beside the mask."""
    if not point.positive:
        return point.label in drawn
    place = np.clip(np.round(point.position), 0, np.asarray(mask.shape) - 1).astype(int)
    return not (prompts.is_background(point.label) and mask[tuple(place)] > 0)


def completed(initial: InitialMask, labels: NDArray[Any], lacking: LackingClasses) -> InitialMask:
    """Return an initial mask with the classes that it lacks, as they were found.

    Parameters
    ----------
    initial : InitialMask
    labels : (Z, Y, X) ndarray of int
        As found without the mask.
    lacking : LackingClasses

    Returns
    -------
    InitialMask
        What is free of it stays so.
    """
    highest = np.min_scalar_type(max(lacking.voxels))
    out = initial.labels.astype(np.promote_types(initial.labels.dtype, highest))
    for k, drawn in lacking.voxels.items():
        box, near = _reach_of(drawn, initial)
        mine = near & (labels[box] == k) & (initial.labels[box] == 0)
        out[box][mine] = k
    return replace(initial, labels=out)


def _reach_of(
    drawn: NDArray[Any], initial: InitialMask
) -> tuple[tuple[slice, ...], NDArray[np.bool_]]:
    """Return a box, and which of its voxels are within the reach of what is drawn of a class."""
    from scipy.ndimage import distance_transform_edt

    spacing = initial.relative_spacing
    extent = max(LEAST_EXTENT, float((np.ptp(drawn, axis=0) * spacing).max()))
    pad = np.ceil(REACH * extent / spacing).astype(int)
    low = np.maximum(drawn.min(axis=0) - pad, 0)
    high = np.minimum(drawn.max(axis=0) + pad + 1, initial.labels.shape)
    away = np.ones(high - low, np.bool_)
    away[tuple((drawn - low).T)] = False
    near: NDArray[np.bool_] = distance_transform_edt(away, sampling=spacing) <= REACH * extent
    return tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True)), near

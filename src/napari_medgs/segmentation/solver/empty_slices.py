"""Slices past the ends of all classes, in which strokes say that nothing is there."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.segmentation.prompts.markers import Markers

REACH = 0.25  # of the strokes' extent, around their convex hull
LEAST_COVERED = 0.5  # of a class in the slice, by strokes around it or across it
LEAST_FREED = 0.8  # of a class in the slice, by strokes within what is labeled
ON_LABELS = 0.9  # of strokes that lie within it


def empty_slices(
    markers: Markers, labels_of: Callable[[int], NDArray[np.uint8]]
) -> NDArray[np.int64]:
    """Return the slices that background strokes cover as far as a solve labels anything there.

    A stroke against a leak covers a part of what is labeled, and does not say that a class has
    ended. Strokes that lie within what is labeled, as corrections do, must do more: what each of
    them would free of a mask is counted, not what lies between them.

    Parameters
    ----------
    markers : Markers
    labels_of : callable
        Returns the class indices (rows, columns) of a slice after a solve.

    Returns
    -------
    (S,) ndarray of int64
        Some of :meth:`~napari_medgs.segmentation.prompts.markers.Markers.background_slices`.
    """
    axis, _ = markers.annotated_slices()
    rest = [a for a in range(3) if a != axis]
    found: Iterable[int] = markers.background_slices().tolist()
    kept = []
    for z in found:
        on = (markers.voxels[:, axis] == z) & markers.user_marked
        if _cover(markers.voxels[on][:, rest], labels_of(z)):
            kept.append(z)
    return np.array(kept, np.int64)


def _cover(drawn: NDArray[Any], labels: NDArray[np.uint8]) -> bool:
    """Return whether pixels (P, 2) cover most of every class of a slice."""
    within = (labels[tuple(drawn.T)] > 0).mean() >= ON_LABELS
    covers, least = (_freed, LEAST_FREED) if within else (_enclosed, LEAST_COVERED)
    classes = np.unique(labels[labels > 0])
    return all(covers(drawn, labels == k).mean() >= least for k in classes)


def _freed(drawn: NDArray[Any], mine: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which pixels of a class lie in the balls that pixels within it would free."""
    from scipy.ndimage import distance_transform_edt

    depth = distance_transform_edt(np.pad(mine, 1))[1:-1, 1:-1]
    pixels, centers = np.argwhere(mine), drawn[mine[tuple(drawn.T)]]
    found = np.zeros(len(pixels), np.bool_)
    for center in centers:
        found |= np.hypot(*(pixels - center).T) <= 2 * depth[tuple(center)] - 1
    return found


def _enclosed(drawn: NDArray[Any], mine: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which pixels of a class lie within or near the hull of others (P, 2)."""
    from scipy.ndimage import distance_transform_edt
    from skimage.morphology import convex_hull_image

    pixels = np.argwhere(mine)
    low = np.minimum(drawn.min(axis=0), pixels.min(axis=0))
    shape = np.maximum(drawn.max(axis=0), pixels.max(axis=0)) - low + 1
    marks = np.zeros(shape, np.bool_)
    marks[tuple((drawn - low).T)] = True
    reach = REACH * float(np.hypot(*np.ptp(drawn, axis=0)))
    near = distance_transform_edt(~convex_hull_image(marks)) <= reach
    found: NDArray[np.bool_] = near[tuple((pixels - low).T)]
    return found

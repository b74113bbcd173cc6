"""Slices past the ends of all classes, in which strokes say that nothing is there."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.segmentation.prompts.markers import Markers

REACH = 0.25  # of the strokes' extent, around their convex hull
LEAST_COVERED = 0.5  # of what a solve labels in the slice


def empty_slices(
    markers: Markers, labels_of: Callable[[int], NDArray[np.uint8]]
) -> NDArray[np.int64]:
    """Return the slices that background strokes cover as far as a solve labels anything there.

    A stroke against a leak covers a part of what is labeled, and does not say that a class has
    ended.

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
        if _covers(markers.voxels[on][:, rest], labels_of(z) > 0):
            kept.append(z)
    return np.array(kept, np.int64)


def _covers(drawn: NDArray[Any], labeled: NDArray[np.bool_]) -> bool:
    """Return whether most of the labeled pixels lie within or near the hull of others (P, 2)."""
    from scipy.ndimage import distance_transform_edt
    from skimage.morphology import convex_hull_image

    pixels = np.argwhere(labeled)
    if not len(pixels):
        return True
    low = np.minimum(drawn.min(axis=0), pixels.min(axis=0))
    shape = np.maximum(drawn.max(axis=0), pixels.max(axis=0)) - low + 1
    marks = np.zeros(shape, np.bool_)
    marks[tuple((drawn - low).T)] = True
    reach = REACH * float(np.hypot(*np.ptp(drawn, axis=0)))
    near = distance_transform_edt(~convex_hull_image(marks)) <= reach
    return bool(near[tuple((pixels - low).T)].mean() >= LEAST_COVERED)

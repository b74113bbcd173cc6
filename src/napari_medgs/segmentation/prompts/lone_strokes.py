"""Strokes that are alone in the slice that they were drawn in."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_medgs.segmentation.prompts.markers import MIN_MARKERS, Markers

MOST_MARKERS = 20_000  # painted areas are no strokes
TOUCHING = 1.8  # voxels, of neighbors by a corner


def lone_strokes(markers: Markers) -> NDArray[np.int64]:
    """Return which strokes are alone in the slice that they were drawn in.

    A stroke of the background is alone where no class is marked in its slice, a stroke of a class
    where neither the background nor another class is.

    Parameters
    ----------
    markers : Markers

    Returns
    -------
    (P,) ndarray of int64
        The stroke's number of every marker, from 1 on; 0 for all other markers, and for classes
        that nothing else shows.
    """
    number = np.zeros(len(markers.voxels), np.int64)
    axis, annotated = markers.annotated_slices()
    if not len(annotated):
        return number
    for k in range(markers.count):
        mine = np.flatnonzero(markers.user_marked & (markers.classes == k))
        if not len(mine):
            continue
        stroke = _of_class(markers, k, mine, axis)
        if (stroke == 0).any():
            number[mine] = np.where(stroke > 0, stroke + number.max(), 0)
    return number


def _of_class(markers: Markers, k: int, mine: NDArray[np.int64], axis: int) -> NDArray[np.int64]:
    """Return the number of the stroke alone that each of a class's markers belongs to, else 0."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import cKDTree

    number = np.zeros(len(mine), np.int64)
    company = markers.classes != k if k else markers.classes > 0
    drawn = markers.voxels[markers.user_marked & company]
    size = markers.voxels.max(axis=0) + 1
    # Strokes of another orientation cross many slices with a few voxels each.
    least = [1 if a == axis else MIN_MARKERS for a in range(3)]
    shown = [np.bincount(drawn[:, a], minlength=size[a]) >= least[a] for a in range(3)]
    own = np.flatnonzero(~shown[axis][markers.voxels[mine, axis]])
    if not len(own) or len(own) > MOST_MARKERS:
        return number
    voxels = markers.voxels[mine[own]]
    pairs = cKDTree(voxels).query_pairs(TOUCHING, output_type="ndarray")
    best = np.zeros(len(own), np.int64)
    total = 0
    for a in [axis, *(a for a in range(3) if a != axis)]:
        inside = pairs[voxels[pairs[:, 0], a] == voxels[pairs[:, 1], a]]
        links = coo_matrix((np.ones(len(inside)), tuple(inside.T)), (len(own), len(own)))
        count, stroke = connected_components(links, directed=False)
        length = np.bincount(stroke)[stroke]
        # A line lies in slices of two orientations: it was drawn in one of those annotated.
        larger = length > best
        best[larger] = length[larger]
        alone = ~shown[a][voxels[larger, a]]
        number[own[larger]] = np.where(alone, total + 1 + stroke[larger], 0)
        total += count
    return number

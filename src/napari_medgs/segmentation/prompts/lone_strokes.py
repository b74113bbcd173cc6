"""Strokes of the background that are alone in the slice that they were drawn in."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_medgs.segmentation.prompts.markers import MIN_MARKERS, Markers

MOST_MARKERS = 20_000  # painted areas are no strokes
TOUCHING = 1.8  # voxels, of neighbors by a corner


def lone_background_strokes(markers: Markers) -> NDArray[np.int64]:
    """Return which strokes of the background are alone in the slice that they were drawn in.

    Parameters
    ----------
    markers : Markers

    Returns
    -------
    (P,) ndarray of int64
        The stroke's number of every marker, from 1 on; 0 for all other markers.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import cKDTree

    number = np.zeros(len(markers.voxels), np.int64)
    axis, annotated = markers.annotated_slices()
    if not len(annotated):
        return number
    order = [axis, *(a for a in range(3) if a != axis)]
    drawn = markers.voxels[markers.user_marked & (markers.classes > 0)]
    size = markers.voxels.max(axis=0) + 1
    # Strokes of another orientation cross many slices with a few voxels each.
    least = [1 if a == axis else MIN_MARKERS for a in range(3)]
    shown = [np.bincount(drawn[:, a], minlength=size[a]) >= least[a] for a in range(3)]
    alone = markers.user_marked & (markers.classes == 0)
    own = np.flatnonzero(alone & ~shown[axis][markers.voxels[:, axis]])
    if not len(own) or len(own) > MOST_MARKERS:
        return number
    voxels = markers.voxels[own]
    pairs = cKDTree(voxels).query_pairs(TOUCHING, output_type="ndarray")
    best = np.zeros(len(own), np.int64)
    total = 0
    for a in order:
        inside = pairs[voxels[pairs[:, 0], a] == voxels[pairs[:, 1], a]]
        links = coo_matrix((np.ones(len(inside)), tuple(inside.T)), (len(own), len(own)))
        count, stroke = connected_components(links, directed=False)
        size = np.bincount(stroke)[stroke]
        # A line lies in slices of two orientations: it was drawn in one of those annotated.
        larger = size > best
        best[larger] = size[larger]
        alone = ~shown[a][voxels[larger, a]]
        number[own[larger]] = np.where(alone, total + 1 + stroke[larger], 0)
        total += count
    return number

"""Thin parts that two annotated slices cut at places so far apart that interpolation loses them.

Signed distances that are interpolated between two outlines without an overlap are positive nowhere
between them: a rib, or an oblique vessel, seems to end after one slice and to begin anew before
the next. Where each slice shows one such outline of a class, it moves from one to the other
(as in object-centered shape-based interpolation); where there are several, nothing is known of the
class between the slices.

References
----------
Higgins, Morice and Ritman 1993, *Shape-based interpolation of tree-like structures in
three-dimensional images*, IEEE TMI 12(3).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Floats

FIXED, UNKNOWN, MOVED = 0, 1, 2  # what happens to a class between two slices
ONE_PART = 0.8  # of a class in a slice, from which on its largest part stands for it
LEAST_BETWEEN = 0.5  # of the smaller outline that interpolation must leave in the middle


def oblique_parts(
    labels: NDArray[np.uint8],
    distances: Floats,
    max_depth: float,
    scattered: frozenset[int] = frozenset(),
) -> tuple[Floats, NDArray[np.uint8]]:
    """Find thin classes that interpolation loses between two slices, and how they move.

    Parameters
    ----------
    labels : (S, rows, columns) ndarray of uint8
        Of neighboring annotated slices.
    distances : (S, K, rows, columns) ndarray of float32
        Signed distances of every class, positive inside.
    max_depth : float
        Largest distance inside of classes that are thin.
    scattered : frozenset of int
        Classes that are left out.

    Returns
    -------
    moves : (S - 1, K, 2) ndarray of float32
        From one slice to the next, in pixels; 0 unless ``MOVED``.
    kinds : (S - 1, K) ndarray of uint8
        ``FIXED``, ``UNKNOWN`` or ``MOVED``; ``FIXED`` for the background.

    Examples
    --------
    >>> import numpy as np
    >>> from scipy.ndimage import distance_transform_edt as edt
    >>> labels = np.zeros((2, 9, 20), np.uint8)
    >>> labels[0, 3:6, 2:5] = labels[1, 3:6, 12:15] = 1
    >>> distances = np.array([[edt(p == k) - edt(p != k) for k in (0, 1)] for p in labels])
    >>> moves, kinds = oblique_parts(labels, distances, 3.0)
    >>> moves[0, 1].tolist(), kinds.tolist()
    ([0.0, 10.0], [[0, 2]])
    """
    count, classes = distances.shape[:2]
    moves = np.zeros((max(count - 1, 0), classes, 2), np.float32)
    kinds = np.full(moves.shape[:2], FIXED, np.uint8)
    deepest = distances.max(axis=(2, 3))
    thin = (deepest > 0) & (deepest <= max_depth)
    for s, k in np.argwhere(thin[:-1] & thin[1:]).tolist():
        if k == 0 or k in scattered:
            continue
        between = np.count_nonzero(distances[s, k] + distances[s + 1, k] > 0)
        smaller = min(np.count_nonzero(labels[z] == k) for z in (s, s + 1))
        if between >= LEAST_BETWEEN * smaller:
            continue
        here, there = _center(labels[s] == k), _center(labels[s + 1] == k)
        if here is None or there is None:
            kinds[s, k] = UNKNOWN
        else:
            kinds[s, k], moves[s, k] = MOVED, there - here
    return moves, kinds


def _center(mask: NDArray[np.bool_]) -> NDArray[np.float64] | None:
    """Return the center of a mask's largest part; None where there are several."""
    from scipy.ndimage import label

    parts, _ = label(mask)
    sizes = np.bincount(parts[mask])
    if sizes.max() < ONE_PART * sizes.sum():
        return None
    center: NDArray[np.float64] = np.argwhere(parts == sizes.argmax()).mean(axis=0)
    return center

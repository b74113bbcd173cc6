"""Polygons filled on a pixel grid, and masks outlined along the edges of their pixels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_DIGITS = 6  # of a pixel: positions are compared after rounding


def fill_polygons(
    polygons: Sequence[NDArray[np.float64]], shape: tuple[int, int]
) -> NDArray[np.bool_]:
    """Return the pixels whose centers lie inside polygons.

    Parameters
    ----------
    polygons : sequence of (N, 2) ndarray
        Closed polygons of (row, column); pixel centers have whole numbers.
    shape : (rows, columns)

    Returns
    -------
    (rows, columns) ndarray of bool

    Notes
    -----
    By the even-odd rule over all polygons together: one within another is a hole, and so is a part
    that a channel of no width (keyhole) joins to the outside. A center on the boundary belongs to
    the part below or right of the line.

    Examples
    --------
    >>> import numpy as np
    >>> from napari_medgs.io.dicom.contours import fill_polygons
    >>> square = np.array([[0.5, 0.5], [0.5, 2.5], [1.5, 2.5], [1.5, 0.5]])
    >>> fill_polygons([square], (3, 4)).astype(int)
    array([[0, 0, 0, 0],
           [0, 1, 1, 0],
           [0, 0, 0, 0]])
    """
    rows, columns = shape
    rounded = [np.round(p, _DIGITS) for p in polygons if len(p) > 2]
    if not rounded:
        return np.zeros(shape, np.bool_)
    start = np.concatenate(rounded)
    stop = np.concatenate([np.roll(p, -1, axis=0) for p in rounded])
    # From the upper to the lower end: a line passed in both ways then cancels exactly.
    swapped = (start[:, 0] > stop[:, 0])[:, None]
    upper, lower = np.where(swapped, stop, start), np.where(swapped, start, stop)
    first = np.ceil(upper[:, 0]).clip(0, rows).astype(np.int64)
    last = np.ceil(lower[:, 0]).clip(0, rows).astype(np.int64)
    count = last - first
    edge = np.repeat(np.arange(len(count)), count)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count) + first[edge]
    up, down = upper[edge], lower[edge]
    slope = (down[:, 1] - up[:, 1]) / (down[:, 0] - up[:, 0])
    crossing = np.round(up[:, 1] + (row - up[:, 0]) * slope, _DIGITS)
    column = np.ceil(crossing).clip(0, columns).astype(np.int64)
    crossed = np.zeros((rows, columns + 1), np.int32)
    np.add.at(crossed, (row, column), 1)
    return (np.cumsum(crossed[:, :-1], axis=1) & 1).astype(np.bool_)


def outline_mask(mask: NDArray[np.bool_]) -> list[NDArray[np.float64]]:
    """Return polygons along pixel edges that enclose exactly the pixels of a mask.

    Parameters
    ----------
    mask : (rows, columns) ndarray of bool

    Returns
    -------
    list of (N, 2) ndarray
        One polygon of (row, column) for each part whose pixels share edges. Corners lie between
        pixel centers, so that :func:`fill_polygons` gives the same mask. Holes are joined to the
        outside by a channel of no width along pixel edges, as PS3.3 C.8.8.6.3 advises.

    Examples
    --------
    >>> import numpy as np
    >>> from napari_medgs.io.dicom.contours import fill_polygons, outline_mask
    >>> ring = np.ones((3, 3), bool)
    >>> ring[1, 1] = False
    >>> polygons = outline_mask(ring)
    >>> len(polygons), bool((fill_polygons(polygons, ring.shape) == ring).all())
    (1, True)
    """
    from scipy.ndimage import find_objects, label
    from skimage.measure import find_contours

    parts, _ = label(mask)
    polygons = []
    for number, box in enumerate(find_objects(parts), 1):
        part = np.pad(parts[box] == number, 1).astype(np.float64)
        rings = [_corners(line) for line in find_contours(part, 0.5)]
        rings.sort(key=lambda ring: -abs(_area(ring)))
        polygon = rings[0]
        for hole in sorted(rings[1:], key=lambda ring: float(ring[:, 1].min())):
            polygon = _join_hole(polygon, hole)
        corner = np.array([box[0].start - 1, box[1].start - 1])
        polygons.append(polygon + corner)
    return polygons


def _corners(line: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the pixel corners that a contour at level 0.5 rounds off.

    It runs through the middles of pixel edges. Between two of them lies one pixel corner, the
    center of the four pixels that the contour passes there.
    """
    corners = np.floor((line[:-1] + line[1:]) / 2) + 0.5
    turns = (np.roll(corners, -1, axis=0) - corners) != (corners - np.roll(corners, 1, axis=0))
    kept: NDArray[np.float64] = corners[turns.any(axis=1)]
    return kept


def _area(ring: NDArray[np.float64]) -> float:
    """Return the signed area of a polygon."""
    after = np.roll(ring, -1, axis=0)
    return float((ring[:, 0] * after[:, 1] - ring[:, 1] * after[:, 0]).sum() / 2)


def _join_hole(polygon: NDArray[np.float64], hole: NDArray[np.float64]) -> NDArray[np.float64]:
    """Join a hole to a polygon, from its leftmost corner straight to the next edge on the left."""
    hole = np.roll(hole, -int(hole[:, 1].argmin()), axis=0)
    row, column = hole[0]
    after = np.roll(polygon, -1, axis=0)
    low, high = np.minimum(polygon[:, 0], after[:, 0]), np.maximum(polygon[:, 0], after[:, 0])
    upright = (polygon[:, 1] == after[:, 1]) & (polygon[:, 1] < column)
    crossed = np.flatnonzero(upright & (low <= row) & (row <= high))
    edge = int(crossed[polygon[crossed, 1].argmax()])
    gate = np.array([[row, polygon[edge, 1]]])
    return np.concatenate([polygon[: edge + 1], gate, hole, hole[:1], gate, polygon[edge + 1 :]])

"""Connected components and holes: kernels that visit the voxels of the classes only."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from napari_medgs.segmentation.params import IslandRule
from napari_medgs.segmentation.prompts.markers import Markers

_options: dict[str, Any] = {"nogil": True, "cache": True}


@njit(**_options)
def _flood(labels: Any, voxels: Any, reached: Any) -> int:
    """Mark every voxel 6-connected to a start within the start's own class."""
    depth, height, width = labels.shape
    stack = np.empty(1024, np.int64)
    size = 0
    count = 0
    for start in range(len(voxels)):
        z, y, x = voxels[start, 0], voxels[start, 1], voxels[start, 2]
        if reached[z, y, x] or labels[z, y, x] == 0:
            continue
        reached[z, y, x] = True
        stack[0] = (z * height + y) * width + x
        size = 1
        while size > 0:
            size -= 1
            place = stack[size]
            count += 1
            w = place % width
            v = (place // width) % height
            u = place // (width * height)
            mine = labels[u, v, w]
            if size + 6 > len(stack):
                bigger = np.empty(2 * len(stack), np.int64)
                bigger[:size] = stack[:size]
                stack = bigger
            for side in range(6):
                a, b, c = u, v, w
                if side == 0:
                    a += 1
                elif side == 1:
                    a -= 1
                elif side == 2:
                    b += 1
                elif side == 3:
                    b -= 1
                elif side == 4:
                    c += 1
                else:
                    c -= 1
                if a < 0 or b < 0 or c < 0 or a >= depth or b >= height or c >= width:
                    continue
                if labels[a, b, c] == mine and not reached[a, b, c]:
                    reached[a, b, c] = True
                    stack[size] = (a * height + b) * width + c
                    size += 1
    return count


@njit(**_options)
def _drop_unreached(labels: Any, reached: Any) -> int:
    """Make foreground that was not reached background; return how many voxels."""
    dropped = 0
    depth, height, width = labels.shape
    for z in range(depth):
        for y in range(height):
            for x in range(width):
                if labels[z, y, x] != 0 and not reached[z, y, x]:
                    labels[z, y, x] = 0
                    dropped += 1
    return dropped


def drop_islands(labels: NDArray[np.uint8], markers: Markers, rule: IslandRule) -> int:
    """Turn connected components that the rule does not keep into background, in place.

    Parameters
    ----------
    labels : (Z, Y, X) ndarray of uint8
    markers : Markers
        Of all classes, slice-first.
    rule : IslandRule

    Returns
    -------
    int
        Voxels changed.
    """
    if rule is IslandRule.KEEP:
        return 0
    if rule is IslandRule.CONNECTED:
        reached = np.zeros(labels.shape, np.bool_)
        marked = markers.voxels[markers.classes > 0]
        _flood(labels, np.ascontiguousarray(marked), reached)
        return int(_drop_unreached(labels, reached))
    from scipy.ndimage import label as components

    changed = 0
    for k, box in _boxes(labels, markers.count):
        part = labels[box]
        pieces, count = components(part == k)
        if count > 1:
            sizes = np.bincount(pieces.reshape(-1))
            sizes[0] = 0
            lost = (pieces > 0) & (pieces != sizes.argmax())
            part[lost] = 0
            changed += int(np.count_nonzero(lost))
    return changed


def fill_holes(labels: NDArray[np.uint8], markers: Markers) -> int:
    """Turn background enclosed by one class into that class, in place, unless it is marked.

    Parameters
    ----------
    labels : (Z, Y, X) ndarray of uint8
    markers : Markers

    Returns
    -------
    int
        Voxels changed.
    """
    from scipy.ndimage import binary_fill_holes
    from scipy.ndimage import label as components

    changed = 0
    marked = markers.voxels[markers.classes == 0]
    for k, box in _boxes(labels, markers.count):
        part = labels[box]
        holes = binary_fill_holes(part == k) & (part == 0)
        if not holes.any():
            continue
        start = [s.start for s in box]
        inside = ((marked >= start) & (marked < [s.stop for s in box])).all(axis=1)
        local = marked[inside] - start
        pieces, _ = components(holes)
        kept = np.unique(pieces[tuple(local.T)])
        holes &= ~np.isin(pieces, kept[kept > 0])
        part[holes] = k
        changed += int(np.count_nonzero(holes))
    return changed


def _boxes(labels: NDArray[np.uint8], count: int) -> list[tuple[int, tuple[slice, ...]]]:
    from scipy.ndimage import find_objects

    found = find_objects(labels, max_label=count - 1)
    return [(k + 1, box) for k, box in enumerate(found) if box is not None]

"""Fast GrowCut: grow from seeds by shortest paths, as 3D Slicer's segment editor does.

Every voxel takes the label of the seed with the shortest path to it over the 26 neighbors, where a
step costs the absolute difference of the intensities. That is the fixed point of GrowCut's
cellular automaton. Slicer adds a distance penalty to steps ("seed locality"), 0 by default.

Zhu, Kolesov, Gao, Kikinis and Tannenbaum 2014, *An effective interactive medical image
segmentation method using Fast GrowCut*, MICCAI Workshop on Interactive Medical Image Computing.
"""

from __future__ import annotations

import heapq
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray


@njit(cache=True)
def _grow(image: Any, labels: Any, distance: Any, locality: Any) -> None:
    """Dijkstra's algorithm from all marked voxels at once; both outputs are changed in place."""
    channels, depth, height, width = image.shape
    heap = [(np.float32(0), np.int64(0))]
    heap.pop()
    for z in range(depth):
        for y in range(height):
            for x in range(width):
                if labels[z, y, x]:
                    distance[z, y, x] = 0
                    heap.append((np.float32(0), np.int64((z * height + y) * width + x)))
    heapq.heapify(heap)
    while heap:
        cost, flat = heapq.heappop(heap)
        x = flat % width
        y = flat // width % height
        z = flat // (width * height)
        if cost > distance[z, y, x]:
            continue
        for i in range(max(z - 1, 0), min(z + 2, depth)):
            for j in range(max(y - 1, 0), min(y + 2, height)):
                for k in range(max(x - 1, 0), min(x + 2, width)):
                    step = np.float32(0)
                    for c in range(channels):
                        step = max(step, abs(image[c, i, j, k] - image[c, z, y, x]))
                    step += locality[i - z + 1, j - y + 1, k - x + 1]
                    if cost + step < distance[i, j, k]:
                        distance[i, j, k] = cost + step
                        labels[i, j, k] = labels[z, y, x]
                        heapq.heappush(heap, (cost + step, np.int64((i * height + j) * width + k)))


def fast_grow_cut(
    images: NDArray[np.float32],
    marks: NDArray[np.uint8],
    spacing: tuple[float, float, float],
    seed_locality: float = 0.0,
) -> NDArray[Any]:
    """Return class indices; of several contrasts the largest difference counts.

    Parameters
    ----------
    images : (C, Z, Y, X) ndarray of float32
    marks : (Z, Y, X) ndarray of uint8
        0 unlabeled, k + 1 for class k.
    spacing : (z, y, x) in mm
    seed_locality : float
        Cost of a step per millimeter.

    Returns
    -------
    (Z, Y, X) ndarray of int64
    """
    steps = np.stack(np.meshgrid(*[np.arange(-1, 2)] * 3, indexing="ij"), -1)
    length = np.sqrt(((steps * np.asarray(spacing)) ** 2).sum(axis=-1))
    labels = marks.astype(np.uint8).copy()
    distance = np.full(marks.shape, np.inf, np.float32)
    _grow(images, labels, distance, (seed_locality * length).astype(np.float32))
    return labels.astype(np.int64) - 1

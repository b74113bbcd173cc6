"""Catchment basins of the gradient magnitude and the saddles between them, once per image.

The basins are the nodes of a minimum spanning tree whose edges are the lowest saddles.

References
----------
Cousty, Bertrand, Najman and Couprie 2009, *Watershed cuts: minimum spanning forests and the drop
of water principle*, IEEE TPAMI 31(8). Meyer and Najman 2010, *Segmentation, minimum spanning tree
and hierarchies*, in Mathematical Morphology (filtering by area).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs._util.threads import run_chunks

MIN_AREA = 2  # voxels: smaller basins join their lowest neighbor
LEVELS = 65535
SAMPLE = 1_000_000
MAX_PERCENTILE = 99.9  # of the gradient magnitude: the highest level

_options: dict[str, Any] = {"nogil": True, "cache": True}


@njit(**_options)
def _gradient_magnitude(image: Any, relative_spacing: Any, z: int, out: Any) -> None:
    """Write the gradient magnitude in slice z, summed over channels."""
    channels, depth, height, width = image.shape
    up, down = min(z + 1, depth - 1), max(z - 1, 0)
    for y in range(height):
        below, above = max(y - 1, 0), min(y + 1, height - 1)
        for x in range(width):
            left, right = max(x - 1, 0), min(x + 1, width - 1)
            total = np.float32(0)
            for c in range(channels):
                part = image[c]
                dz = (part[up, y, x] - part[down, y, x]) / (
                    max(up - down, 1) * relative_spacing[0]
                )
                dy = (part[z, above, x] - part[z, below, x]) / (
                    max(above - below, 1) * relative_spacing[1]
                )
                dx = (part[z, y, right] - part[z, y, left]) / (
                    max(right - left, 1) * relative_spacing[2]
                )
                total += np.float32(np.sqrt(dz * dz + dy * dy + dx * dx))
            out[z, y, x] = total


@njit(**_options)
def find_root(parent: Any, i: int) -> int:
    """Return the root of i in a forest of parents (negative at roots), with path halving."""
    while parent[i] >= 0:
        above = parent[i]
        if parent[above] >= 0:
            parent[i] = parent[above]
        i = above
    return i


@njit(**_options)
def _flood_by_area(
    order: Any,
    level: Any,
    shape: Any,
    least: int,
    basin: Any,
    component: Any,
    first: Any,
    second: Any,
    saddle_level: Any,
) -> int:
    """Flood by increasing level; write the saddles between basins, lowest first.

    ``basin`` and ``component`` are union-find forests over voxels: minus the size at a root, -1
    for voxels that were not visited. Returns the number of saddles.
    """
    rows, columns = shape[1], shape[2]
    plane = rows * columns
    count = 0
    visited = np.zeros(len(order), np.bool_)
    near = np.empty(6, np.int64)
    for i in order:
        visited[i] = True
        z, rest = divmod(i, plane)
        y, x = divmod(rest, columns)
        found = 0
        for side in range(6):
            if side == 0:
                inside, j = z > 0, i - plane
            elif side == 1:
                inside, j = z < shape[0] - 1, i + plane
            elif side == 2:
                inside, j = y > 0, i - columns
            elif side == 3:
                inside, j = y < rows - 1, i + columns
            elif side == 4:
                inside, j = x > 0, i - 1
            else:
                inside, j = x < columns - 1, i + 1
            if not inside or not visited[j]:
                continue
            # The lowest neighbor first: a voxel joins the basin of its steepest descent.
            k = found
            while k > 0 and level[near[k - 1]] > level[j]:
                near[k] = near[k - 1]
                k -= 1
            near[k] = j
            found += 1
        for k in range(found):
            j = near[k]
            a, b = find_root(component, i), find_root(component, j)
            if a == b:
                continue
            if -component[a] >= least and -component[b] >= least:
                first[count], second[count], saddle_level[count] = i, j, level[i]
                count += 1
            else:
                p, q = find_root(basin, i), find_root(basin, j)
                if basin[p] > basin[q]:
                    p, q = q, p
                basin[p] += basin[q]
                basin[q] = p
            if component[a] > component[b]:
                a, b = b, a
            component[a] += component[b]
            component[b] = a
    return count


@njit(**_options)
def _number(parent: Any) -> Any:
    """Number the trees of a forest; return each voxel's number and how many there are."""
    out = np.full(len(parent), -1, np.int32)
    count = 0
    for i in range(len(parent)):
        r = find_root(parent, i)
        if out[r] < 0:
            out[r] = count
            count += 1
        out[i] = out[r]
    return out, count


def _levels(image: Floats, relative_spacing: NDArray[np.float64]) -> NDArray[np.uint16]:
    """Return every voxel's gradient magnitude on a scale of 65,536 levels, flat."""
    magnitude = np.empty(image.shape[1:], np.float32)
    run_chunks(
        lambda z: _gradient_magnitude(image, relative_spacing, z, magnitude), len(magnitude)
    )
    flat = magnitude.reshape(-1)
    high = float(np.percentile(flat[:: max(1, flat.size // SAMPLE)], MAX_PERCENTILE))
    flat *= np.float32(LEVELS / max(high, 1e-12))
    level: NDArray[np.uint16] = np.minimum(flat, LEVELS).astype(np.uint16)
    return level


class CatchmentBasins:
    """Catchment basins of an image's gradient magnitude and the saddles between them.

    Parameters
    ----------
    image : (C, Z, Y, X) ndarray of float32
        Smoothed channels.
    relative_spacing : (3,) ndarray
        Voxel sizes over the finest one.

    Attributes
    ----------
    labels : (Z, Y, X) ndarray of int32
        Index of every voxel's basin.
    count : int
        Number of basins.
    gradient_levels : (Z, Y, X) ndarray of uint16
        Level of every voxel's gradient magnitude.
    first, second : (count - 1,) ndarray of int32
        Basins on both sides of every saddle: a minimum spanning tree, lowest edge first.
    saddle_heights : (count - 1,) ndarray of uint16
        Level of every saddle.
    """

    def __init__(self, image: Floats, relative_spacing: NDArray[np.float64]) -> None:
        shape = image.shape[1:]
        level = _levels(image, relative_spacing)
        # Two bytes per voxel are sorted by radix, in linear time.
        order = np.argsort(level, kind="stable").astype(np.int32)
        basin, component = np.full(len(order), -1, np.int32), np.full(len(order), -1, np.int32)
        most = len(order) // MIN_AREA + 1
        first, second = np.empty(most, np.int32), np.empty(most, np.int32)
        saddle_heights = np.empty(most, np.uint16)
        saddles = _flood_by_area(
            order,
            level,
            np.asarray(shape),
            MIN_AREA,
            basin,
            component,
            first,
            second,
            saddle_heights,
        )
        numbers, self.count = _number(basin)
        self.first, self.second = numbers[first[:saddles]], numbers[second[:saddles]]
        self.saddle_heights = saddle_heights[:saddles].copy()
        self.gradient_levels = level.reshape(shape)
        self.labels: NDArray[np.int32] = numbers.reshape(shape)

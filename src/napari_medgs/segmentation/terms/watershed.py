"""The image's basins and the passes between them, made once for an image.

Sources: Cousty, Bertrand, Najman and Couprie 2009, *Watershed cuts: minimum spanning forests and
the drop of water principle*, IEEE TPAMI 31(8); the merging by area follows Meyer and Najman 2010,
*Segmentation, minimum spanning tree and hierarchies*.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs._util.threads import run_chunks

LEAST_AREA = 2  # voxels: smaller basins join their lowest neighbour
LEVELS = 65535
SAMPLE = 1_000_000
STEEPEST = 99.9  # percentile of the slope at which levels end

_options: dict[str, Any] = {"nogil": True, "cache": True}


@njit(**_options)
def _slope(image: Any, units: Any, z: int, out: Any) -> None:
    """Write the gradient magnitude in slice z, summed over contrasts."""
    channels, depth, height, width = image.shape
    up, down = min(z + 1, depth - 1), max(z - 1, 0)
    for y in range(height):
        below, above = max(y - 1, 0), min(y + 1, height - 1)
        for x in range(width):
            left, right = max(x - 1, 0), min(x + 1, width - 1)
            total = np.float32(0)
            for c in range(channels):
                part = image[c]
                dz = (part[up, y, x] - part[down, y, x]) / (max(up - down, 1) * units[0])
                dy = (part[z, above, x] - part[z, below, x]) / (max(above - below, 1) * units[1])
                dx = (part[z, y, right] - part[z, y, left]) / (max(right - left, 1) * units[2])
                total += np.float32(np.sqrt(dz * dz + dy * dy + dx * dx))
            out[z, y, x] = total


@njit(**_options)
def find_root(parent: Any, i: int) -> int:
    """Return the root of i in a forest of parents (negative at roots), halving the way to it."""
    while parent[i] >= 0:
        above = parent[i]
        if parent[above] >= 0:
            parent[i] = parent[above]
        i = above
    return i


@njit(**_options)
def _merge(
    order: Any,
    level: Any,
    shape: Any,
    least: int,
    basin: Any,
    lake: Any,
    first: Any,
    second: Any,
    height: Any,
) -> int:
    """Raise the water voxel by voxel; write passes between basins, lowest first.

    ``basin`` and ``lake`` are forests over voxels: -1 for a dry voxel's, minus the size at a root.
    Returns the number of passes.
    """
    rows, columns = shape[1], shape[2]
    plane = rows * columns
    count = 0
    wet = np.zeros(len(order), np.bool_)
    near = np.empty(6, np.int64)
    for i in order:
        wet[i] = True
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
            if not inside or not wet[j]:
                continue
            # The lowest neighbour first: a voxel's basin is where its water runs to.
            k = found
            while k > 0 and level[near[k - 1]] > level[j]:
                near[k] = near[k - 1]
                k -= 1
            near[k] = j
            found += 1
        for k in range(found):
            j = near[k]
            a, b = find_root(lake, i), find_root(lake, j)
            if a == b:
                continue
            if -lake[a] >= least and -lake[b] >= least:
                first[count], second[count], height[count] = i, j, level[i]
                count += 1
            else:
                p, q = find_root(basin, i), find_root(basin, j)
                if basin[p] > basin[q]:
                    p, q = q, p
                basin[p] += basin[q]
                basin[q] = p
            if lake[a] > lake[b]:
                a, b = b, a
            lake[a] += lake[b]
            lake[b] = a
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


def _levels(image: Floats, units: NDArray[np.float64]) -> NDArray[np.uint16]:
    """Return every voxel's slope on a scale of whole numbers, flat."""
    slope = np.empty(image.shape[1:], np.float32)
    run_chunks(lambda z: _slope(image, units, z, slope), len(slope))
    flat = slope.reshape(-1)
    high = float(np.percentile(flat[:: max(1, flat.size // SAMPLE)], STEEPEST))
    flat *= np.float32(LEVELS / max(high, 1e-12))
    level: NDArray[np.uint16] = np.minimum(flat, LEVELS).astype(np.uint16)
    return level


class Basins:
    """The basins of an image's gradient magnitude and the passes between them.

    Parameters
    ----------
    image : (C, Z, Y, X) ndarray of float32
        Smoothed contrasts.
    units : (3,) ndarray
        Voxel sizes over the finest one.

    Attributes
    ----------
    basins : (Z, Y, X) ndarray of int32
        The basin of every voxel.
    count : int
        Number of basins.
    levels : (Z, Y, X) ndarray of uint16
        Slope of every voxel.
    first, second : (count - 1,) ndarray of int32
        Basins on both sides of every pass: a spanning tree of lowest passes, lowest first.
    heights : (count - 1,) ndarray of uint16
        Level of every pass.
    """

    def __init__(self, image: Floats, units: NDArray[np.float64]) -> None:
        shape = image.shape[1:]
        level = _levels(image, units)
        # Two bytes a voxel are sorted by radix, in linear time.
        order = np.argsort(level, kind="stable").astype(np.int32)
        basin, lake = np.full(len(order), -1, np.int32), np.full(len(order), -1, np.int32)
        most = len(order) // LEAST_AREA + 1
        first, second = np.empty(most, np.int32), np.empty(most, np.int32)
        heights = np.empty(most, np.uint16)
        passes = _merge(
            order, level, np.asarray(shape), LEAST_AREA, basin, lake, first, second, heights
        )
        numbers, self.count = _number(basin)
        self.first, self.second = numbers[first[:passes]], numbers[second[:passes]]
        self.heights = heights[:passes].copy()
        self.levels = level.reshape(shape)
        self.basins: NDArray[np.int32] = numbers.reshape(shape)

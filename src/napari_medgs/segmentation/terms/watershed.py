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
from napari_medgs.segmentation.terms.basin_kernels import (
    descend,
    ends_of,
    find_saddles,
    join_listed,
    join_minima,
    join_parts,
    number_roots,
)

LARGE_PART = 400  # voxels of a part from which on saddles between parts are listed
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


def _spanning_tree(
    level: NDArray[np.uint16], shape: NDArray[np.int64], basin: NDArray[np.int32], count: int
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Return the saddles and ranks of the minimum spanning tree of basins, lowest first.

    Parts grow by the lowest saddle of each (Boruvka): passes over all voxels in memory order
    instead of one flood in the order of levels, which is slow for its scattered reads. Once
    parts are large their saddles are few, and listed.
    """
    saddles, ranks = np.empty(max(count - 1, 0), np.int64), np.empty(max(count - 1, 0), np.int32)
    none = np.empty(0, np.int64), np.empty(0, np.int32), np.empty((0, 2), np.int32)
    part, parts, found = basin.copy(), count, 0
    between = len(level)
    while parts > 1:
        lowest = np.full(parts, np.iinfo(np.int64).max)
        lowest_rank = np.full(parts, -1, np.int32)
        between = find_saddles(level, shape, part, lowest, lowest_rank, *none)
        found, parts = join_parts(part, shape, lowest, lowest_rank, saddles, ranks, found)
        if parts * LARGE_PART < len(level):
            break
    if parts > 1:
        listed = np.empty(between, np.int64)
        listed_ranks, sides = np.empty(between, np.int32), np.empty((between, 2), np.int32)
        left = find_saddles(level, shape, part, none[0], none[1], listed, listed_ranks, sides)
        found = join_listed(
            listed[:left], listed_ranks[:left], sides, parts, saddles, ranks, found
        )
    order = np.lexsort((ranks[:found], saddles[:found]))
    return saddles[order], ranks[order]


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
        size = np.asarray(shape, np.int64)
        basin = np.empty(len(level), np.int32)
        run_chunks(lambda z: descend(level, size, z, basin), shape[0])
        join_minima(level, size, basin)
        self.count = int(number_roots(basin))
        saddles, ranks = _spanning_tree(level, size, basin, self.count)
        self.first = np.empty(len(saddles), np.int32)
        self.second = np.empty(len(saddles), np.int32)
        ends_of(saddles, ranks, size, basin, self.first, self.second)
        self.saddle_heights = (saddles >> 32).astype(np.uint16)
        self.gradient_levels = level.reshape(shape)
        self.labels: NDArray[np.int32] = basin.reshape(shape)

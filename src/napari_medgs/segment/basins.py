"""A second opinion: the image's basins, flooded from the strokes over the lowest passes.

Sums of small costs let a long way through a quiet region look as expensive as a short one over an
edge. The highest edge on the way (minimax paths, which is what a seeded watershed follows) does
not. The hierarchy of basins is made once for an image, so that a flood takes milliseconds.

Sources: Cousty, Bertrand, Najman and Couprie 2009, *Watershed cuts: minimum spanning forests and
the drop of water principle*, IEEE TPAMI 31(8); the merging by area follows Meyer and Najman 2010,
*Segmentation, minimum spanning tree and hierarchies*.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from napari_medgs.field import Floats
from napari_medgs.parallel import run_chunks

LEAST_AREA = 2  # voxels: smaller basins join their lowest neighbour
LEVELS = 65535
SAMPLE = 1_000_000
STEEPEST = 99.9  # percentile of the slope at which levels end
MOST = 1.8  # toll of all classes but the flood's, where left-out slices confirm it wholly
POWER = 2.0

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
def _root(parent: Any, i: int) -> int:
    """Return the root of i, halving the way to it."""
    while parent[i] >= 0:
        above = parent[i]
        if parent[above] >= 0:
            parent[i] = parent[above]
        i = above
    return i


@njit(**_options)
def _merge(
    order: Any, shape: Any, least: int, basin: Any, lake: Any, first: Any, second: Any
) -> int:
    """Raise the water voxel by voxel; write passes between basins, lowest first.

    ``basin`` and ``lake`` are forests over voxels: -1 for a dry voxel's, minus the size at a root.
    Returns the number of passes.
    """
    height, width = shape[1], shape[2]
    plane = height * width
    count = 0
    wet = np.zeros(len(order), np.bool_)
    for i in order:
        wet[i] = True
        z, rest = divmod(i, plane)
        y, x = divmod(rest, width)
        for side in range(6):
            if side == 0:
                inside, j = z > 0, i - plane
            elif side == 1:
                inside, j = z < shape[0] - 1, i + plane
            elif side == 2:
                inside, j = y > 0, i - width
            elif side == 3:
                inside, j = y < height - 1, i + width
            elif side == 4:
                inside, j = x > 0, i - 1
            else:
                inside, j = x < width - 1, i + 1
            if not inside or not wet[j]:
                continue
            a, b = _root(lake, i), _root(lake, j)
            if a == b:
                continue
            if -lake[a] >= least and -lake[b] >= least:
                first[count], second[count] = i, j
                count += 1
            else:
                p, q = _root(basin, i), _root(basin, j)
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
        r = _root(parent, i)
        if out[r] < 0:
            out[r] = count
            count += 1
        out[i] = out[r]
    return out, count


@njit(**_options)
def _flood(first: Any, second: Any, start: Any) -> Any:
    """Return the class that reaches each basin over the lowest passes, from those not negative."""
    parent = np.full(len(start), -1, np.int32)
    label = start.copy()
    for e in range(len(first)):
        a, b = _root(parent, first[e]), _root(parent, second[e])
        if a == b or (label[a] >= 0 and label[b] >= 0):
            continue
        if parent[a] > parent[b]:
            a, b = b, a
        parent[a] += parent[b]
        parent[b] = a
        label[a] = max(label[a], label[b])
    out = np.empty(len(start), np.int32)
    for i in range(len(start)):
        out[i] = label[_root(parent, i)]
    return out


@dataclass(frozen=True)
class Flood:
    """What a flood says about every basin, and how far that is to be trusted.

    Attributes
    ----------
    basins : (Z, Y, X) ndarray of int32
    label : (N,) ndarray of int32
        Class of every basin.
    toll : float
        What the other classes pay.
    """

    basins: NDArray[np.int32]
    label: NDArray[np.int32]
    toll: float

    def add_toll(self, points: NDArray[Any], total: Floats) -> None:
        """Add what each class pays at points (P, 3) in slice-first voxels to ``total`` (P, K)."""
        most = np.asarray(self.basins.shape) - 1
        z, y, x = np.clip(np.round(points).astype(np.int64), 0, most).T
        total += np.float32(self.toll)
        total[np.arange(len(total)), self.label[self.basins[z, y, x]]] -= np.float32(self.toll)


def _by_slope(image: Floats, units: NDArray[np.float64]) -> NDArray[np.int32]:
    """Return flat voxel indices from the quietest to the steepest."""
    slope = np.empty(image.shape[1:], np.float32)
    run_chunks(lambda z: _slope(image, units, z, slope), len(slope))
    flat = slope.reshape(-1)
    high = float(np.percentile(flat[:: max(1, flat.size // SAMPLE)], STEEPEST))
    flat *= np.float32(LEVELS / max(high, 1e-12))
    level = np.minimum(flat, LEVELS).astype(np.uint16)
    # Two bytes a voxel are sorted by radix, in linear time.
    return np.argsort(level, kind="stable").astype(np.int32)


class Basins:
    """The basins of an image's gradient magnitude and the passes between them.

    Parameters
    ----------
    image : (C, Z, Y, X) ndarray of float32
        Smoothed contrasts.
    units : (3,) ndarray
        Voxel sizes over the finest one.
    """

    def __init__(self, image: Floats, units: NDArray[np.float64]) -> None:
        shape = image.shape[1:]
        order = _by_slope(image, units)
        basin, lake = np.full(len(order), -1, np.int32), np.full(len(order), -1, np.int32)
        most = len(order) // LEAST_AREA + 1
        first, second = np.empty(most, np.int32), np.empty(most, np.int32)
        passes = _merge(order, np.asarray(shape), LEAST_AREA, basin, lake, first, second)
        numbers, self.count = _number(basin)
        self.first, self.second = numbers[first[:passes]], numbers[second[:passes]]
        self.basins: NDArray[np.int32] = numbers.reshape(shape)

    def flood(self, where: NDArray[Any], classes: NDArray[Any], count: int) -> NDArray[np.int32]:
        """Return every basin's class from marks in basins ``where``; most marks decide there."""
        hits = np.bincount(where * count + classes, minlength=self.count * count)
        hits = hits.reshape(self.count, count)
        start = np.where(hits.any(axis=1), hits.argmax(axis=1), -1).astype(np.int32)
        reached: NDArray[np.int32] = _flood(self.first, self.second, start)
        return reached

    def opinion(
        self, voxels: NDArray[Any], classes: NDArray[Any], count: int, groups: NDArray[Any]
    ) -> Flood | None:
        """Flood from marks and find from left-out slices how far the outcome is to be trusted.

        Parameters
        ----------
        voxels : (P, 3) ndarray of int
        classes : (P,) ndarray of int
        count : int
            Number of classes.
        groups : (P,) ndarray of int
            The annotated slice of every mark, negative where it is on none.

        Returns
        -------
        Flood or None
            None with fewer than two annotated slices, which leave nothing to find out, or where
            the flood is no better than chance.
        """
        places = np.unique(groups[groups >= 0])
        if len(places) < 2:
            return None
        where = self.basins[tuple(voxels.T)].astype(np.int64)
        right, number = np.zeros(count), np.zeros(count)
        for place in places:
            asked = groups == place
            told = self.flood(where[~asked], classes[~asked], count)[where[asked]]
            mine = classes[asked]
            hits = np.bincount(mine, told == mine, count)
            total = np.bincount(mine, minlength=count)
            # A class that the other slices do not show cannot be foretold.
            known = (total > 0) & np.isin(np.arange(count), classes[~asked])
            right[known] += hits[known] / total[known]
            number += known
        seen = number > 0
        if not seen.any():
            return None
        share = float((right[seen] / number[seen]).mean())
        trust = (share * count - 1) / (count - 1)
        if trust <= 0:
            return None
        return Flood(self.basins, self.flood(where, classes, count), MOST * trust**POWER)

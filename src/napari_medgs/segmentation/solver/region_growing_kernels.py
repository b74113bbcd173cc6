"""Kernels of region growing: its seeds, and shortest paths of integer costs.

Dijkstra's algorithm needs no heap where costs are small integers: a ring of queues, one for each
cost that is still possible, gives the next voxel at once.

References
----------
Dial 1969, *Algorithm 360: shortest-path forest with topological ordering*, Communications of the
ACM 12.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

FAR = 2**31 - 1  # cost where no path leads to
LEVELS = 1024  # of intensities, so that no step costs more
SHIFT = 6  # of 16 bits, for so many levels
ROWS = 9  # rows of neighbors, of up to three voxels each
UNKNOWN = np.float32(-1e38)  # scores below this are none

_options: dict[str, Any] = {"nogil": True, "cache": True}


@njit(**_options)
def seed_from_decided(
    image: Any, factors: Any, slot: Any, voxels: Any, decided: Any, best: Any, first: int,
    last: int, factor: int, values: Any, rows: Any, places: Any, label: Any, cost: Any,
) -> None:  # fmt: skip
    """List the neighbors of voxels first .. last-1, and let decided ones around be their seeds.

    Parameters
    ----------
    image : (C, Z, Y, X) uint16
    factors : (C,) float32
    slot : (Z, Y, X) int32
        Index into the band, negative outside; from B on voxels are decided.
    voxels : (B, 3) int32
    decided : (Z, Y, X) uint8, best : (Z, Y, X) float32
    factor : int
        Of the steps of all classes but the background.
    values : (B, C) int32
        Out: the intensities times the factors.
    rows : (B, 9) int32
        Out: of every row of neighbors, the first one in the band, -1 for none.
    places : (B,) int64
        Out: positions in memory.
    label : (B,) uint8, cost : (B,) int32
        In: class and 0 for markers, ``FAR`` elsewhere; out: those of decided neighbors, too.
    """
    channels, depth, height, width = image.shape
    count = len(voxels)
    for i in range(first, last):
        z, y, x = voxels[i, 0], voxels[i, 1], voxels[i, 2]
        places[i] = (np.int64(z) * height + y) * width + x
        for c in range(channels):
            values[i, c] = np.int32(factors[c] * image[c, z, y, x])
        low, high = max(x - 1, 0), min(x + 2, width)
        marked = cost[i] == 0
        r = 0
        for u in range(z - 1, z + 2):
            for v in range(y - 1, y + 2):
                found = -1
                if 0 <= u < depth and 0 <= v < height:
                    for w in range(low, high):
                        j = slot[u, v, w]
                        if 0 <= j < count:
                            if found < 0:
                                found = j
                            continue
                        if marked or best[u, v, w] < UNKNOWN:
                            continue
                        most = 0
                        for c in range(channels):
                            other = np.int32(factors[c] * image[c, u, v, w])
                            most = max(most, abs(values[i, c] - other))
                        step = most >> SHIFT
                        if decided[u, v, w] > 0:
                            step *= factor
                        if step < cost[i]:
                            cost[i] = step
                            label[i] = decided[u, v, w]
                rows[i, r] = found
                r += 1


@njit(**_options)
def _append(node: Any, queue: Any, head: Any, tail: Any, after: Any, before: Any) -> None:
    """Put a voxel at the end of a queue."""
    after[node] = -1
    before[node] = tail[queue]
    if tail[queue] >= 0:
        after[tail[queue]] = node
    else:
        head[queue] = node
    tail[queue] = node


@njit(**_options)
def _remove(node: Any, queue: Any, head: Any, tail: Any, after: Any, before: Any) -> None:
    """Take a voxel out of a queue."""
    left, right = before[node], after[node]
    if left >= 0:
        after[left] = right
    else:
        head[queue] = right
    if right >= 0:
        before[right] = left
    else:
        tail[queue] = left


@njit(**_options)
def grow_from_seeds(
    values: Any, rows: Any, places: Any, height: int, width: int, factor: int, label: Any,
    cost: Any,
) -> None:  # fmt: skip
    """Relax costs along shortest paths from all voxels that have one; labels go with them.

    Parameters
    ----------
    values : (B, C) int32, rows : (B, 9) int32, places : (B,) int64
        As :func:`seed_from_decided` gives them.
    height, width : int
        Of a slice.
    factor : int
        Of the steps of all classes but the background.
    label : (B,) uint8, cost : (B,) int32
        In: of the seeds, ``FAR`` elsewhere. Out: of all voxels that a path leads to.
    """
    count, channels = values.shape
    queues = LEVELS
    while queues < LEVELS * factor:
        queues *= 2
    ring = queues - 1  # a mask: the queue of a cost is its remainder
    head, tail = np.full(queues, -1, np.int32), np.full(queues, -1, np.int32)
    after, before = np.empty(count, np.int32), np.empty(count, np.int32)
    waiting = 0
    for i in range(count):
        if cost[i] < FAR:
            _append(i, cost[i] & ring, head, tail, after, before)
            waiting += 1
    level = 0
    while waiting > 0:
        i = head[level & ring]
        if i < 0:
            level += 1
            continue
        _remove(i, level & ring, head, tail, after, before)
        waiting -= 1
        right = 1 if (places[i] + 1) % width else 0  # neighbors do not wrap around
        times = factor if label[i] > 0 else 1
        for r in range(ROWS):
            j = rows[i, r]
            if j < 0:
                continue
            end = places[i] + ((r // 3 - 1) * height + r % 3 - 1) * width + right
            while j < count and places[j] <= end:
                if cost[j] > level:
                    most = 0
                    for c in range(channels):
                        most = max(most, abs(values[i, c] - values[j, c]))
                    value = level + (most >> SHIFT) * times
                    if value < cost[j]:
                        if cost[j] < FAR:
                            _remove(j, cost[j] & ring, head, tail, after, before)
                        else:
                            waiting += 1
                        cost[j] = value
                        label[j] = label[i]
                        _append(j, value & ring, head, tail, after, before)
                j += 1


@njit(**_options)
def touch_own(voxels: Any, decided: Any, label: Any, first: int, last: int, touching: Any) -> None:
    """Find which of voxels first .. last-1 have their label around them, or are background.

    Parameters
    ----------
    voxels : (B, 3) int32
    decided : (Z, Y, X) uint8
        Labels before.
    label : (B,) uint8
    first, last : int
    touching : (B,) bool
        Out: whether the voxel or one of its 26 neighbors had the label.
    """
    depth, height, width = decided.shape
    for i in range(first, last):
        z, y, x = voxels[i, 0], voxels[i, 1], voxels[i, 2]
        found = label[i] == 0
        for u in range(max(z - 1, 0), min(z + 2, depth)):
            for v in range(max(y - 1, 0), min(y + 2, height)):
                for w in range(max(x - 1, 0), min(x + 2, width)):
                    found |= decided[u, v, w] == label[i]
        touching[i] = found


@njit(**_options)
def smooth_around(
    image: Any, noisy: Any, weights: Any, voxels: Any, first: int, last: int, done: Any, out: Any
) -> None:
    """Smooth the noisy channels at voxels first .. last-1 and their neighbors.

    Parameters
    ----------
    image : (C, Z, Y, X) uint16
    noisy : (C,) bool
        Others are copied.
    weights : (3, 3, 3) float32
    voxels : (B, 3) int32
    first, last : int
    done : (Z, Y, X) uint8
        1 where the value is there, 2 where all neighbors' are; changed in place. Threads may both
        find the same ones.
    out : (C, Z, Y, X) uint16
        Changed in place.
    """
    channels, depth, height, width = image.shape
    for i in range(first, last):
        a, b, d = voxels[i, 0], voxels[i, 1], voxels[i, 2]
        if done[a, b, d] == 2:
            continue
        for z in range(max(a - 1, 0), min(a + 2, depth)):
            for y in range(max(b - 1, 0), min(b + 2, height)):
                for x in range(max(d - 1, 0), min(d + 2, width)):
                    if done[z, y, x] > 0:
                        continue
                    for c in range(channels):
                        if not noisy[c]:
                            out[c, z, y, x] = image[c, z, y, x]
                            continue
                        total, mass = np.float32(0), np.float32(0)
                        for u in range(max(z - 1, 0), min(z + 2, depth)):
                            for v in range(max(y - 1, 0), min(y + 2, height)):
                                for w in range(max(x - 1, 0), min(x + 2, width)):
                                    part = weights[u - z + 1, v - y + 1, w - x + 1]
                                    total += part * np.float32(image[c, u, v, w])
                                    mass += part
                        out[c, z, y, x] = np.uint16(total / mass + np.float32(0.5))
                    done[z, y, x] = 1
        done[a, b, d] = 2

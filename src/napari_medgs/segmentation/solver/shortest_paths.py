"""GIL-free shortest paths: on a graph of nodes, and on the voxels of a band.

Both use one binary heap with positions, so that every node lies in it once and no more memory is
needed than a few numbers a node.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

_options: dict[str, Any] = {"nogil": True, "cache": True, "fastmath": {"contract", "nsz"}}


@njit(**_options)
def _rise(heap: Any, place: Any, key: Any, start: int) -> None:
    """Move the entry at ``start`` towards the root until its parent is not greater."""
    k = start
    node = heap[k]
    value = key[node]
    while k > 0:
        parent = (k - 1) >> 1
        other = heap[parent]
        if key[other] <= value:
            break
        heap[k] = other
        place[other] = k
        k = parent
    heap[k] = node
    place[node] = k


@njit(**_options)
def _sink(heap: Any, place: Any, key: Any, size: int) -> None:
    """Move the root down until no child is smaller."""
    k = 0
    node = heap[0]
    value = key[node]
    while True:
        child = 2 * k + 1
        if child >= size:
            break
        if child + 1 < size and key[heap[child + 1]] < key[heap[child]]:
            child += 1
        other = heap[child]
        if key[other] >= value:
            break
        heap[k] = other
        place[other] = k
        k = child
    heap[k] = node
    place[node] = k


@njit(**_options)
def _put(heap: Any, place: Any, key: Any, size: int, node: int) -> int:
    """Bring a node whose key fell to its place, in or into the heap; return the heap's size."""
    if place[node] < 0:
        heap[size] = node
        place[node] = size
        size += 1
    _rise(heap, place, key, place[node])
    return size


@njit(**_options)
def _pop(heap: Any, place: Any, key: Any, size: int) -> int:
    """Take the node with the smallest key out of a heap of ``size`` and mark it as done (-2)."""
    node = heap[0]
    place[node] = -2
    if size > 1:
        heap[0] = heap[size - 1]
        _sink(heap, place, key, size - 1)
    return node


@njit(**_options)
def graph_distances(
    offsets: Any,
    neighbours: Any,
    slopes: Any,
    lengths: Any,
    floor: Any,
    toll: Any,
    paid: Any,
    starts: Any,
    bound: Any,
    distance: Any,
) -> None:
    """Relax ``distance`` to the shortest paths from some nodes.

    Parameters
    ----------
    offsets, neighbours : (N + 1,), (E,) int32
        Compressed neighbour lists.
    slopes, lengths : (E,) float32
        What an edge costs where its slope is paid in full, and its length.
    floor : float
        Cost of unit length.
    toll : (N,) float32
        The mean of an edge's ends times its length is added.
    paid : (N,) float32
        Share of the slope that is paid: the mean of an edge's ends.
    starts : (S,) int32
        The nodes whose distances have just been set.
    bound : (N,) float32
        Longer ways to a node are of no interest.
    distance : (N,) float32
        In: start values there; infinity elsewhere, or the result of an earlier call. Out: the
        distances, nowhere more than before.
    """
    count = len(distance)
    heap = np.empty(count, np.int32)
    place = np.full(count, -1, np.int32)
    size = 0
    for k in range(len(starts)):
        i = starts[k]
        size = _put(heap, place, distance, size, i)
    while size > 0:
        i = _pop(heap, place, distance, size)
        size -= 1
        reached = distance[i]
        half = floor + np.float32(0.5) * toll[i]
        for e in range(offsets[i], offsets[i + 1]):
            j = neighbours[e]
            if place[j] == -2:
                continue
            share = np.float32(0.5) * (paid[i] + paid[j])
            value = reached + share * slopes[e] + lengths[e] * (half + np.float32(0.5) * toll[j])
            if value < distance[j] and value <= bound[j]:
                distance[j] = value
                size = _put(heap, place, distance, size, j)


@njit(**_options)
def band_distances(
    image: Any,
    slot: Any,
    voxels: Any,
    steps: Any,
    lengths: Any,
    jump_scales: Any,
    floor: Any,
    toll: Any,
    paid: Any,
    bound: Any,
    distance: Any,
) -> None:
    """Relax ``distance`` over voxels of a band, from those where it is finite.

    A step of length l between voxels whose largest jump over contrasts is j costs
    l (floor + p (scale j)^2) plus l times the mean toll of its ends, where p is the mean of the
    shares paid at its ends; every direction has its scale.

    Parameters
    ----------
    image : (C, Z, Y, X) float32
    slot : (Z, Y, X) int32
        Index into the band, negative outside.
    voxels : (B, 3) int32
    steps : (S, 3) int, lengths, jump_scales : (S,) float32
    toll, paid, distance : (B,) float32
    bound : (B,) float32
        Longer ways to a voxel are of no interest.
    """
    channels, depth, height, width = image.shape
    count = len(distance)
    heap = np.empty(count, np.int32)
    place = np.full(count, -1, np.int32)
    size = 0
    for i in range(count):
        if distance[i] < np.inf:
            size = _put(heap, place, distance, size, i)
    while size > 0:
        i = _pop(heap, place, distance, size)
        size -= 1
        reached = distance[i]
        half = floor + np.float32(0.5) * toll[i]
        z, y, x = voxels[i, 0], voxels[i, 1], voxels[i, 2]
        for s in range(len(steps)):
            u, v, w = z + steps[s, 0], y + steps[s, 1], x + steps[s, 2]
            if u < 0 or v < 0 or w < 0 or u >= depth or v >= height or w >= width:
                continue
            j = slot[u, v, w]
            if j < 0 or place[j] == -2:
                continue
            jump = np.float32(0)
            for c in range(channels):
                jump = max(jump, abs(image[c, z, y, x] - image[c, u, v, w]))
            jump *= jump_scales[s]
            steep = np.float32(0.5) * (paid[i] + paid[j]) * jump * jump
            value = reached + lengths[s] * (steep + half + np.float32(0.5) * toll[j])
            if value < distance[j] and value <= bound[j]:
                distance[j] = value
                size = _put(heap, place, distance, size, j)

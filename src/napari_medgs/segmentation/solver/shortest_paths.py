"""Dijkstra's algorithm without the GIL: on a graph of nodes, and on the voxels of a narrow band.

Both use an indexed binary heap: every node is in it at most once, and memory is a few numbers per
node.
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
    neighbors: Any,
    gradient_costs: Any,
    lengths: Any,
    base_cost: Any,
    unary: Any,
    gradient_weight: Any,
    starts: Any,
    bound: Any,
    distance: Any,
) -> None:
    """Relax ``distance`` to the shortest paths from some nodes.

    Parameters
    ----------
    offsets, neighbors : (N + 1,), (E,) int32
        Compressed neighbor lists.
    gradient_costs, lengths : (E,) float32
        Integral of the squared image gradient along every edge, and its length.
    base_cost : float
        Base cost per unit length.
    unary : (N,) float32
        Data cost per length; an edge takes the mean of its ends.
    gradient_weight : (N,) float32
        Factor of the gradient's cost; an edge takes the mean of its ends.
    starts : (S,) int32
        The nodes whose distances have just been set.
    bound : (N,) float32
        Costlier paths to a node are not followed.
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
        half = base_cost + np.float32(0.5) * unary[i]
        for e in range(offsets[i], offsets[i + 1]):
            j = neighbors[e]
            if place[j] == -2:
                continue
            factor = np.float32(0.5) * (gradient_weight[i] + gradient_weight[j])
            value = (
                reached
                + factor * gradient_costs[e]
                + lengths[e] * (half + np.float32(0.5) * unary[j])
            )
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
    difference_scales: Any,
    base_cost: Any,
    unary: Any,
    gradient_weight: Any,
    bound: Any,
    distance: Any,
) -> None:
    """Relax ``distance`` over voxels of a band, from those where it is finite.

    A step of length l between voxels whose largest difference over the channels is d costs
    l (base_cost + w (s d)^2 + u), where w and u are the means of the gradient weights and of the
    data costs at its ends, and s is the scale of the step's direction.

    Parameters
    ----------
    image : (C, Z, Y, X) float32
    slot : (Z, Y, X) int32
        Index into the band, negative outside.
    voxels : (B, 3) int32
    steps : (S, 3) int, lengths, difference_scales : (S,) float32
    unary, gradient_weight, distance : (B,) float32
    bound : (B,) float32
        Costlier paths to a voxel are not followed.
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
        half = base_cost + np.float32(0.5) * unary[i]
        z, y, x = voxels[i, 0], voxels[i, 1], voxels[i, 2]
        for s in range(len(steps)):
            u, v, w = z + steps[s, 0], y + steps[s, 1], x + steps[s, 2]
            if u < 0 or v < 0 or w < 0 or u >= depth or v >= height or w >= width:
                continue
            j = slot[u, v, w]
            if j < 0 or place[j] == -2:
                continue
            difference = np.float32(0)
            for c in range(channels):
                difference = max(difference, abs(image[c, z, y, x] - image[c, u, v, w]))
            difference *= difference_scales[s]
            steep = (
                np.float32(0.5)
                * (gradient_weight[i] + gradient_weight[j])
                * difference
                * difference
            )
            value = reached + lengths[s] * (steep + half + np.float32(0.5) * unary[j])
            if value < distance[j] and value <= bound[j]:
                distance[j] = value
                size = _put(heap, place, distance, size, j)

"""Shortest paths without the GIL: on a graph of nodes, and on the voxels of a narrow band.

Nodes wait in buckets of nearly equal distance, as in Dial's algorithm, which takes half the time
of a heap. A node that gets nearer within its own bucket is expanded again, so that distances are
exactly those of Dijkstra's algorithm.

References
----------
Meyer and Sanders 2003, *Delta-stepping: a parallelizable shortest path algorithm*, Journal of
Algorithms 49(1).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

# Buckets are as wide as 1/1024 of the power of two below a distance: the high bits of its float32.
SHIFT = 13
SMALLEST = int(np.float32(2.0**-10).view(np.int32))  # distances below share the first bucket
BUCKETS = int(np.float32(2.0**21).view(np.int32) - SMALLEST >> SHIFT) + 1  # and above, the last
HEAD, TAIL, COUNT = 0, BUCKETS, 2 * BUCKETS
_options: dict[str, Any] = {"nogil": True, "cache": True, "fastmath": {"contract", "nsz"}}


@njit(**_options)
def _remove(ends: Any, links: Any, node: int) -> None:
    """Take a node out of its bucket."""
    before, after, bucket = links[node, 0], links[node, 1], links[node, 2]
    if before >= 0:
        links[before, 1] = after
    else:
        ends[HEAD + bucket] = after
    if after >= 0:
        links[after, 0] = before
    else:
        ends[TAIL + bucket] = before
    links[node, 2] = -1


@njit(**_options)
def _put(ends: Any, links: Any, bits: Any, node: int) -> None:
    """Bring a node to the end of the bucket of its distance, out of the one that it is in.

    Parameters
    ----------
    ends : (2 BUCKETS,) int32
        First and last node of every bucket, -1 where it is empty.
    links : (N, 3) int32
        Nodes before and after in a bucket, and the bucket; -1 where there is none.
    bits : (N,) int32
        The distances, read as integers.
    """
    bucket = min(max(bits[node] - SMALLEST, 0) >> SHIFT, BUCKETS - 1)
    if links[node, 2] == bucket:
        return
    if links[node, 2] >= 0:
        _remove(ends, links, node)
    last = ends[TAIL + bucket]
    links[node, 0], links[node, 1], links[node, 2] = last, -1, bucket
    if last >= 0:
        links[last, 1] = node
    else:
        ends[HEAD + bucket] = node
    ends[TAIL + bucket] = node


@njit(**_options)
def _empty_buckets(nodes: int) -> Any:
    """Return ``ends`` and ``links`` with no node in a bucket."""
    return np.full(COUNT, -1, np.int32), np.full((nodes, 3), -1, np.int32)


@njit(**_options)
def _take_nearest(ends: Any, links: Any, bucket: int) -> tuple[int, int]:
    """Take a node out of the first bucket that has one, and return both; -1 where none has.

    Buckets before the given one are empty: distances only rise on the way.
    """
    while bucket < BUCKETS:
        node = ends[HEAD + bucket]
        if node >= 0:
            _remove(ends, links, node)
            return node, bucket
        bucket += 1
    return -1, bucket


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
    ends, links = _empty_buckets(len(distance))
    bits = distance.view(np.int32)
    for k in range(len(starts)):
        _put(ends, links, bits, starts[k])
    i, bucket = _take_nearest(ends, links, 0)
    while i >= 0:
        reached = distance[i]
        half = base_cost + np.float32(0.5) * unary[i]
        for e in range(offsets[i], offsets[i + 1]):
            j = neighbors[e]
            if distance[j] <= reached:
                continue
            factor = np.float32(0.5) * (gradient_weight[i] + gradient_weight[j])
            value = (
                reached
                + factor * gradient_costs[e]
                + lengths[e] * (half + np.float32(0.5) * unary[j])
            )
            if value < distance[j] and value <= bound[j]:
                distance[j] = value
                _put(ends, links, bits, j)
        i, bucket = _take_nearest(ends, links, bucket)


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
    ends, links = _empty_buckets(len(distance))
    bits = distance.view(np.int32)
    for i in range(len(distance)):
        if distance[i] < np.inf:
            _put(ends, links, bits, i)
    i, bucket = _take_nearest(ends, links, 0)
    while i >= 0:
        reached = distance[i]
        half = base_cost + np.float32(0.5) * unary[i]
        z, y, x = voxels[i, 0], voxels[i, 1], voxels[i, 2]
        for s in range(len(steps)):
            u, v, w = z + steps[s, 0], y + steps[s, 1], x + steps[s, 2]
            if u < 0 or v < 0 or w < 0 or u >= depth or v >= height or w >= width:
                continue
            j = slot[u, v, w]
            if j < 0 or distance[j] <= reached:
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
                _put(ends, links, bits, j)
        i, bucket = _take_nearest(ends, links, bucket)

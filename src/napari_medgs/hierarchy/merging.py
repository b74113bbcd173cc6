"""Greedy merging of neighboring regions, cheapest pair first, to a binary tree."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

HUB = 256  # neighbors from which on a region's costs are renewed when they are looked at only

_options: dict[str, Any] = {"nogil": True, "cache": True}


@njit(**_options)
def _log_det(scatter: Any, mass: float, floor: float, work: Any) -> float:
    """Return log det(scatter / mass + floor * I) of a symmetric matrix, by Cholesky."""
    n = len(scatter)
    if n == 1:
        return np.log(scatter[0, 0] / mass + floor)
    total = 0.0
    for i in range(n):
        for j in range(i + 1):
            value = scatter[i, j] / mass
            if i == j:
                value += floor
            for k in range(j):
                value -= work[i, k] * work[j, k]
            if i == j:
                value = max(value, 1e-12)
                total += np.log(value)
                work[i, i] = np.sqrt(value)
            else:
                work[i, j] = value / work[j, j]
    return total


@njit(**_options)
def _cost(
    a: int,
    b: int,
    length: float,
    strength: float,
    mass: Any,
    mean: Any,
    scatter: Any,
    spread: Any,
    boundary: float,
    power: float,
    floor: float,
    joint: Any,
    work: Any,
) -> float:
    """Return the cost of merging regions ``a`` and ``b`` across their common boundary."""
    n = mean.shape[1]
    ma, mb = mass[a], mass[b]
    m = ma + mb
    factor = ma * mb / m
    for i in range(n):
        di = mean[b, i] - mean[a, i]
        for j in range(i + 1):
            joint[i, j] = (
                scatter[a, i, j] + scatter[b, i, j] + factor * di * (mean[b, j] - mean[a, j])
            )
    loss = 0.5 * (m * _log_det(joint, m, floor, work) - spread[a] - spread[b])
    cost = max(loss, 0.0) / length**power
    if boundary != 0.0:
        cost *= (strength / length) ** boundary
    return cost


# An indexed binary heap of edges by key, then number.


@njit(inline="always", **_options)
def _before(key: Any, e: int, f: int) -> bool:
    return key[e] < key[f] or (key[e] == key[f] and e < f)


@njit(**_options)
def _up(heap: Any, place: Any, key: Any, at: int) -> None:
    edge = heap[at]
    while at > 0:
        parent = (at - 1) >> 1
        if not _before(key, edge, heap[parent]):
            break
        heap[at] = heap[parent]
        place[heap[at]] = at
        at = parent
    heap[at] = edge
    place[edge] = at


@njit(**_options)
def _down(heap: Any, place: Any, key: Any, at: int, size: int) -> None:
    edge = heap[at]
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        if child + 1 < size and _before(key, heap[child + 1], heap[child]):
            child += 1
        if not _before(key, heap[child], edge):
            break
        heap[at] = heap[child]
        place[heap[at]] = at
        at = child
    heap[at] = edge
    place[edge] = at


@njit(**_options)
def _move(heap: Any, place: Any, key: Any, edge: int, value: float, size: int) -> None:
    """Give an edge another key."""
    before = key[edge]
    key[edge] = value
    if value < before:
        _up(heap, place, key, place[edge])
    elif value > before:
        _down(heap, place, key, place[edge], size)


@njit(**_options)
def _remove(heap: Any, place: Any, key: Any, edge: int, size: int) -> int:
    """Take an edge out; return the new size."""
    at = place[edge]
    size -= 1
    last = heap[size]
    place[edge] = -1
    if last != edge:
        heap[at] = last
        place[last] = at
        _up(heap, place, key, at)
        _down(heap, place, key, place[last], size)
    return size


# A hash table (linear probing) from a pair of regions to their edge.


@njit(inline="always", **_options)
def _slot(a: int, b: int, mask: int) -> int:
    low, high = (a, b) if a < b else (b, a)
    mixed = np.uint64(low) * np.uint64(0x9E3779B97F4A7C15) ^ np.uint64(high) * np.uint64(
        0xC2B2AE3D27D4EB4F
    )
    mixed ^= mixed >> np.uint64(29)
    return int(np.int64(mixed & np.uint64(mask)))


@njit(**_options)
def _find(table: Any, ends: Any, a: int, b: int) -> int:
    """Return the place of a pair in the table, or of the free place where it belongs."""
    mask = len(table) - 1
    at = _slot(a, b, mask)
    while True:
        edge = table[at]
        if edge < 0:
            return at
        p, q = ends[edge, 0], ends[edge, 1]
        if (p == a and q == b) or (p == b and q == a):
            return at
        at = (at + 1) & mask


@njit(**_options)
def _forget(table: Any, ends: Any, a: int, b: int) -> None:
    """Remove a pair, closing the gap."""
    mask = len(table) - 1
    gap = _find(table, ends, a, b)
    table[gap] = -1
    at = gap
    while True:
        at = (at + 1) & mask
        edge = table[at]
        if edge < 0:
            return
        home = _slot(ends[edge, 0], ends[edge, 1], mask)
        if ((at - home) & mask) >= ((at - gap) & mask):
            table[gap] = edge
            table[at] = -1
            gap = at


@njit(**_options)
def merge_regions(
    ends: Any,
    length: Any,
    strength: Any,
    mass: Any,
    mean: Any,
    scatter: Any,
    boundary: float,
    power: float,
    floor: float,
    children: Any,
    altitude: Any,
    bridge: Any,
) -> int:
    """Merge until no neighbors are left; all arrays but the last three are used up.

    Parameters
    ----------
    ends : (E, 2) ndarray of int32
        The regions at both sides of every boundary, each pair once.
    length, strength : (E,) ndarray of float64
        Area of the boundary, and the sum of contrast differences over it.
    mass : (N,) ndarray of float64
        Voxels of every region.
    mean : (N, C) ndarray of float64
    scatter : (N, C, C) ndarray of float64
        Sum of squared deviations from the mean.
    boundary, power, floor : float
        Exponents of the boundary's strength and length; variance added to every contrast.
    children : (N - 1, 2) ndarray of int32
        Written: what is merged to node N + k in step k, the larger first.
    altitude : (N - 1,) ndarray of float64
        Written: the highest cost up to step k.
    bridge : (N - 1, 2) ndarray of int32
        Written: two neighboring regions, one of each child.

    Returns
    -------
    int
        Number of merges.
    """
    n, contrasts = mean.shape
    edges = len(ends)
    work, joint = np.zeros((contrasts, contrasts)), np.zeros((contrasts, contrasts))
    spread = np.empty(n)
    for i in range(n):
        spread[i] = mass[i] * _log_det(scatter[i], mass[i], floor, work)
    # Circular lists of half-edges: 2 e + s belongs to region ends[e, s].
    following, previous = np.empty(2 * edges, np.int32), np.empty(2 * edges, np.int32)
    first, degree = np.full(n, -1, np.int32), np.zeros(n, np.int32)
    for e in range(edges):
        for s in range(2):
            h, region = 2 * e + s, ends[e, s]
            start = first[region]
            if start < 0:
                first[region], following[h], previous[h] = h, h, h
            else:
                last = previous[start]
                following[last], previous[h], following[h], previous[start] = h, last, start, h
            degree[region] += 1
    capacity = 8
    while capacity < 2 * edges:
        capacity *= 2
    table = np.full(capacity, -1, np.int32)
    touching = ends.copy()  # one pair of first regions of every boundary
    longest = length.copy()
    key, heap, place = np.empty(edges), np.empty(edges, np.int32), np.empty(edges, np.int32)
    for e in range(edges):
        table[_find(table, ends, ends[e, 0], ends[e, 1])] = e
        key[e] = _cost(
            ends[e, 0], ends[e, 1], length[e], strength[e],
            mass, mean, scatter, spread, boundary, power, floor, joint, work,
        )  # fmt: skip
        heap[e] = place[e] = e
    size = edges
    for at in range(edges // 2, -1, -1):
        if at < size:
            _down(heap, place, key, at, size)
    node = np.arange(n).astype(np.int32)
    changed = np.empty(max(edges, 1), np.int32)
    merges, highest = 0, 0.0
    while size > 0:
        edge = heap[0]
        a, b = ends[edge, 0], ends[edge, 1]
        if degree[a] > HUB or degree[b] > HUB:  # its key may be of an earlier state
            now = _cost(
                a, b, length[edge], strength[edge],
                mass, mean, scatter, spread, boundary, power, floor, joint, work,
            )  # fmt: skip
            if now > key[edge]:
                _move(heap, place, key, edge, now, size)
                continue
        highest = max(highest, key[edge])
        ta, tb = touching[edge, 0], touching[edge, 1]
        if degree[a] < degree[b] or (degree[a] == degree[b] and node[b] < node[a]):
            a, b, ta, tb = b, a, tb, ta
        # ``a`` takes ``b`` in.
        if mass[a] > mass[b] or (mass[a] == mass[b] and node[a] < node[b]):
            children[merges, 0], children[merges, 1] = node[a], node[b]
            bridge[merges, 0], bridge[merges, 1] = ta, tb
        else:
            children[merges, 0], children[merges, 1] = node[b], node[a]
            bridge[merges, 0], bridge[merges, 1] = tb, ta
        altitude[merges] = highest
        m = mass[a] + mass[b]
        factor = mass[a] * mass[b] / m
        for i in range(contrasts):
            di = mean[b, i] - mean[a, i]
            for j in range(contrasts):
                scatter[a, i, j] += scatter[b, i, j] + factor * di * (mean[b, j] - mean[a, j])
        for i in range(contrasts):
            mean[a, i] += (mean[b, i] - mean[a, i]) * (mass[b] / m)
        mass[a] = m
        spread[a] = m * _log_det(scatter[a], m, floor, work)
        node[a] = n + merges
        merges += 1
        moved = 0
        h = first[b]
        count = degree[b]
        for _ in range(count):
            after = following[h]
            e, s = h >> 1, h & 1
            c = ends[e, 1 - s]
            _forget(table, ends, b, c)
            if c == a:
                target, gone = a, h ^ 1
                size = _remove(heap, place, key, e, size)
            else:
                at = _find(table, ends, a, c)
                same = table[at]
                if same < 0:
                    ends[e, s] = a
                    table[at] = e
                    start = first[a]
                    if start < 0:
                        first[a], following[h], previous[h] = h, h, h
                    else:
                        last = previous[start]
                        following[last], previous[h] = h, last
                        following[h], previous[start] = start, h
                    degree[a] += 1
                    changed[moved] = e
                    moved += 1
                    h = after
                    continue
                length[same] += length[e]
                strength[same] += strength[e]
                if longest[e] > longest[same]:
                    longest[same] = longest[e]
                    t = 0 if ends[same, 0] == a else 1
                    touching[same, t], touching[same, 1 - t] = touching[e, s], touching[e, 1 - s]
                changed[moved] = same
                moved += 1
                target, gone = c, h ^ 1
                size = _remove(heap, place, key, e, size)
            # Take the other half of a boundary that is no longer one of its own out.
            if degree[target] == 1:
                first[target] = -1
            else:
                p, q = previous[gone], following[gone]
                following[p], previous[q] = q, p
                if first[target] == gone:
                    first[target] = q
            degree[target] -= 1
            h = after
        degree[b] = 0
        if degree[a] <= HUB:
            moved = 0
            h = first[a]
            for _ in range(degree[a]):
                changed[moved] = h >> 1
                moved += 1
                h = following[h]
        for k in range(moved):
            e = changed[k]
            now = _cost(
                ends[e, 0], ends[e, 1], length[e], strength[e],
                mass, mean, scatter, spread, boundary, power, floor, joint, work,
            )  # fmt: skip
            _move(heap, place, key, e, now, size)
    return merges

"""Kernels of catchment basins: steepest descent, and the lowest saddles between parts."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

_options: dict[str, Any] = {"nogil": True, "cache": True}


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


@njit(**_options)
def _beside(side: int, i: int, z: int, y: int, x: int, shape: Any) -> tuple[bool, int]:
    """Return whether voxel i has a neighbor on one of its six sides, and the neighbor's index."""
    depth, rows, columns = shape[0], shape[1], shape[2]
    if side == 0:
        return z > 0, i - rows * columns
    if side == 1:
        return z < depth - 1, i + rows * columns
    if side == 2:
        return y > 0, i - columns
    if side == 3:
        return y < rows - 1, i + columns
    if side == 4:
        return x > 0, i - 1
    return x < columns - 1, i + 1


@njit(**_options)
def descend(level: Any, shape: Any, z: int, parent: Any) -> None:
    """Write the lowest neighbor that is flooded before each voxel of slice z; else itself.

    Voxels are flooded by level, those of one level by index.
    """
    rows, columns = shape[1], shape[2]
    for y in range(rows):
        for x in range(columns):
            i = (z * rows + y) * columns + x
            lowest, best = level[i], i
            for side in range(6):
                inside, j = _beside(side, i, z, y, x, shape)
                if not inside or level[j] > level[i] or (level[j] == level[i] and j > i):
                    continue
                if best == i or level[j] < lowest:
                    lowest, best = level[j], j
            parent[i] = best


@njit(**_options)
def join_minima(level: Any, shape: Any, parent: Any) -> None:
    """Join every minimum to the first voxel that is flooded beside it, unless that descends to it.

    So no basin has a single voxel.
    """
    columns = shape[2]
    for i in range(len(parent)):
        if parent[i] != i:
            continue
        z, rest = divmod(i, shape[1] * columns)
        y, x = divmod(rest, columns)
        next_one = -1
        for side in range(6):
            inside, j = _beside(side, i, z, y, x, shape)
            if not inside:
                continue
            if (
                next_one < 0
                or level[j] < level[next_one]
                or (level[j] == level[next_one] and j < next_one)
            ):
                next_one = j
        if next_one >= 0 and parent[next_one] != i:
            parent[i] = next_one


@njit(**_options)
def number_roots(parent: Any) -> int:
    """Replace every voxel's parent by the number of its root; return how many there are.

    Numbers grow with the first voxel of a tree.
    """
    for i in range(len(parent)):
        root = i
        while parent[root] != root:
            root = parent[root]
        while parent[i] != root:
            above = parent[i]
            parent[i] = root
            i = above
    # Numbers are written as -1 - number, so that they are told from parents.
    count = 0
    for i in range(len(parent)):
        root = parent[i]
        if root < 0:
            continue  # a root whose number an earlier voxel of its tree has asked for
        if parent[root] >= 0:
            parent[root] = -1 - count
            count += 1
        parent[i] = parent[root]
    for i in range(len(parent)):
        parent[i] = -1 - parent[i]
    return count


@njit(**_options)
def _keep_lowest(part: int, saddle: Any, rank: Any, lowest: Any, lowest_rank: Any) -> None:
    if saddle < lowest[part] or (saddle == lowest[part] and rank < lowest_rank[part]):
        lowest[part], lowest_rank[part] = saddle, rank


@njit(**_options)
def find_saddles(
    level: Any, shape: Any, part: Any, lowest: Any, lowest_rank: Any, saddles: Any, ranks: Any,
    sides: Any,
) -> int:  # fmt: skip
    """Find the lowest saddle of every part, or list all saddles between parts if there is room.

    A saddle lies between a voxel and a neighbor that is flooded before it. Saddles are ordered by
    the voxel's level and index, which make its number, then by the neighbor's level and side,
    which make its rank. ``sides`` (E, 2) become the parts on both sides.

    Returns the number of saddles between parts.
    """
    depth, rows, columns = shape[0], shape[1], shape[2]
    plane = rows * columns
    count = 0
    listed = len(saddles) > 0
    for z in range(depth):
        for y in range(rows):
            row = (z * rows + y) * columns
            # Along an axis without a next voxel a voxel is compared with itself: it is one part.
            below = plane if z < depth - 1 else 0
            beside = columns if y < rows - 1 else 0
            for x in range(columns):
                i = row + x
                own = part[i]
                after = 1 if x < columns - 1 else 0
                if part[i + after] == own and part[i + beside] == own and part[i + below] == own:
                    continue
                a = np.int64(level[i])
                for axis in range(3):
                    j = i + (below if axis == 0 else beside if axis == 1 else after)
                    other = part[j]
                    if other == own:
                        continue
                    b = np.int64(level[j])
                    if b >= a:
                        saddle, rank = (b << 32) | j, a * 8 + 2 * axis
                    else:
                        saddle, rank = (a << 32) | i, b * 8 + 2 * axis + 1
                    if listed:
                        saddles[count], ranks[count] = saddle, rank
                        sides[count, 0], sides[count, 1] = own, other
                    else:
                        _keep_lowest(own, saddle, rank, lowest, lowest_rank)
                        _keep_lowest(other, saddle, rank, lowest, lowest_rank)
                    count += 1
    return count


@njit(**_options)
def _voxels_of(saddle: Any, rank: Any, columns: int, plane: int) -> Any:
    """Return the two voxels of a saddle, the one that is flooded later first."""
    voxel = saddle & 0xFFFFFFFF
    side = rank & 7
    size = plane if side < 2 else columns if side < 4 else 1
    return voxel, voxel + size if side & 1 else voxel - size


@njit(**_options)
def _unite(parent: Any, a: int, b: int) -> bool:
    """Join the trees of two nodes; return whether they were apart."""
    a, b = find_root(parent, a), find_root(parent, b)
    if a == b:
        return False
    if parent[a] > parent[b]:
        a, b = b, a
    parent[a] += parent[b]
    parent[b] = a
    return True


@njit(**_options)
def join_parts(
    part: Any, shape: Any, lowest: Any, lowest_rank: Any, saddles: Any, ranks: Any, found: int
) -> Any:
    """Join the parts of all voxels at their lowest saddles, written from ``found`` on.

    Returns the number of saddles and of parts.
    """
    columns, plane = shape[2], shape[1] * shape[2]
    parent = np.full(len(lowest), -1, np.int32)
    for k in range(len(parent)):
        if lowest_rank[k] < 0:
            continue
        i, j = _voxels_of(lowest[k], lowest_rank[k], columns, plane)
        if _unite(parent, part[i], part[j]):
            saddles[found], ranks[found] = lowest[k], lowest_rank[k]
            found += 1
    numbers, count = _number(parent)
    for i in range(len(part)):
        part[i] = numbers[part[i]]
    return found, count


@njit(**_options)
def join_listed(
    listed: Any, listed_ranks: Any, sides: Any, parts: int, saddles: Any, ranks: Any, found: int
) -> int:
    """Join parts at the lowest of listed saddles until all are one; see :func:`join_parts`."""
    left = len(listed)
    while left > 0:
        lowest = np.full(parts, -1, np.int64)
        for e in range(left):
            for s in range(2):
                own = lowest[sides[e, s]]
                if (
                    own < 0
                    or listed[e] < listed[own]
                    or (listed[e] == listed[own] and listed_ranks[e] < listed_ranks[own])
                ):
                    lowest[sides[e, s]] = e
        parent = np.full(parts, -1, np.int32)
        for k in range(parts):
            e = lowest[k]
            if e >= 0 and _unite(parent, sides[e, 0], sides[e, 1]):
                saddles[found], ranks[found] = listed[e], listed_ranks[e]
                found += 1
        numbers, parts = _number(parent)
        between = 0
        for e in range(left):
            a, b = numbers[sides[e, 0]], numbers[sides[e, 1]]
            if a != b:
                listed[between], listed_ranks[between] = listed[e], listed_ranks[e]
                sides[between, 0], sides[between, 1] = a, b
                between += 1
        left = between
    return found


@njit(**_options)
def ends_of(saddles: Any, ranks: Any, shape: Any, basin: Any, first: Any, second: Any) -> None:
    """Write the basins on both sides of every saddle, that of the voxel flooded later first."""
    for e in range(len(saddles)):
        i, j = _voxels_of(saddles[e], ranks[e], shape[2], shape[1] * shape[2])
        first[e], second[e] = basin[i], basin[j]

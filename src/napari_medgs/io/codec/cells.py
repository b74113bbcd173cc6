"""Where Gaussians lie, to a cell: counts in halves of halves of a box, and near neighbors."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from napari_medgs.io.codec.coder import code_adaptive, code_plain

NEIGHBORS = 4
WINDOW = 96
"""Earlier Gaussians among which neighbors are looked for."""
SMALL, DEEPEST = 24, 128
_HEAP = 32
COUNT_NODES = (SMALL + 1 + 32) * _HEAP


@njit(nogil=True, cache=True)
def _code_count(state: Any, data: Any, left: int, count: int, chances: Any, seen: Any) -> int:
    """Code how many of ``count`` are in the first half."""
    low, high, node, steps = 0, count, 1, 0
    group = count
    if count > SMALL:
        group = SMALL + 1
        while (count >> (group - SMALL + 3)) > 0 and group < SMALL + 31:
            group += 1
    while low < high:
        middle = (low + high) >> 1
        bit = 1 if left > middle else 0
        if node < _HEAP:
            bit = code_adaptive(state, data, bit, chances, seen, group * _HEAP + node, 60)
        else:
            bit = code_plain(state, data, bit, 1)
        if bit:
            low = middle + 1
        else:
            high = middle
        node = 2 * node + bit
        steps += 1
    return low


@njit(nogil=True, cache=True)
def code_cells(
    state: Any, data: Any, size: Any, cells: Any, order: Any, chances: Any, seen: Any
) -> None:
    """Code the cells of all Gaussians of a box.

    Parameters
    ----------
    state, data
        Of the coder.
    size : (3,) ndarray of int64
        Cells of the box along x, y, t.
    cells : (N, 3) ndarray of int64
        Written when reading: in the order of the file.
    order : (N,) ndarray of int64
        Set to the order in which the rows of ``cells`` are coded.
    chances, seen : (COUNT_NODES,) ndarray of int64
    """
    reading = state[4] != 0
    total = len(order)
    for i in range(total):
        order[i] = i
    spare = np.empty(total, np.int64)
    boxes = np.zeros((DEEPEST, 8), np.int64)
    for a in range(3):
        boxes[0, 3 + a] = size[a]
    boxes[0, 7] = total
    depth = 1
    while depth > 0:
        depth -= 1
        x0, x1, x2, s0, s1, s2, first, count = boxes[depth]
        if count == 0:
            continue
        if s0 == 1 and s1 == 1 and s2 == 1:
            if reading:
                for i in range(first, first + count):
                    cells[i, 0], cells[i, 1], cells[i, 2] = x0, x1, x2
            continue
        axis = 2
        if s1 > s2:
            axis = 1
        if s0 > max(s1, s2):
            axis = 0
        start = boxes[depth, axis]
        half = (boxes[depth, 3 + axis] + 1) >> 1
        left = 0
        if not reading:
            right = 0
            for i in range(first, first + count):
                row = order[i]
                if cells[row, axis] < start + half:
                    order[first + left] = row
                    left += 1
                else:
                    spare[right] = row
                    right += 1
            for i in range(right):
                order[first + left + i] = spare[i]
        left = _code_count(state, data, left, count, chances, seen)
        # The second half waits below the first.
        for a in range(8):
            boxes[depth + 1, a] = boxes[depth, a]
        boxes[depth, axis] = start + half
        boxes[depth, 3 + axis] -= half
        boxes[depth, 6], boxes[depth, 7] = first + left, count - left
        depth += 1
        boxes[depth, 3 + axis] = half
        boxes[depth, 7] = left
        depth += 1


@njit(nogil=True, cache=True)
def find_neighbors(cells: Any, neighbors: Any) -> None:
    """Find for every Gaussian the nearest ones before it; of equal ones the latest.

    Parameters
    ----------
    cells : (N, 3) ndarray of int64
        In the order of the file.
    neighbors : (N, NEIGHBORS) ndarray of int64
        Filled with indices; where there are too few, the nearest again, or -1 for none at all.
    """
    best = np.zeros(NEIGHBORS, np.int64)
    for i in range(len(cells)):
        found = 0
        for j in range(i - 1, max(-1, i - 1 - WINDOW), -1):
            distance = np.int64(0)
            for a in range(3):
                step = cells[i, a] - cells[j, a]
                distance += step * step
            if found == NEIGHBORS and distance >= best[NEIGHBORS - 1]:
                continue
            k = found if found < NEIGHBORS else NEIGHBORS - 1
            while k > 0 and best[k - 1] > distance:
                best[k] = best[k - 1]
                neighbors[i, k] = neighbors[i, k - 1]
                k -= 1
            best[k] = distance
            neighbors[i, k] = j
            found = min(found + 1, NEIGHBORS)
        for k in range(found, NEIGHBORS):
            neighbors[i, k] = neighbors[i, 0] if found else -1


def divide(cells: NDArray[np.int64], most: int) -> list[NDArray[np.int64]]:
    """Divide Gaussians into compact groups of at most ``most`` by halving the longest side.

    Parameters
    ----------
    cells : (N, 3) ndarray of int64
    most : int

    Returns
    -------
    list of ndarray of int64
        Rows of each group.
    """
    groups: list[NDArray[np.int64]] = []
    waiting = [np.arange(len(cells), dtype=np.int64)]
    while waiting:
        rows = waiting.pop()
        if len(rows) <= most:
            groups.append(rows)
            continue
        here = cells[rows]
        axis = int(np.argmax(here.max(axis=0) - here.min(axis=0)))
        order = rows[np.argsort(here[:, axis], kind="stable")]
        middle = len(rows) // 2
        waiting += [order[middle:], order[:middle]]
    return groups

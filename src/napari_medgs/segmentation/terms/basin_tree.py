"""Seeded watersheds on the minimum spanning tree of catchment basins, in two sweeps.

A basin belongs to the marker from which the highest saddle on the way is lowest. In a tree there
is one way, so that the best marker of every basin is found by one sweep from the leaves to the
root and one back: the tree is the same for all saddle heights, and nodes are numbered in the order
of a depth-first search, so that both sweeps read memory in order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from napari_medgs._typing import Floats

NEVER = np.iinfo(np.int64).max
_options: dict[str, Any] = {"nogil": True, "cache": True}


@njit(**_options)
def _depth_first(first: Any, second: Any, parent: Any, edge: Any, basin: Any, node: Any) -> None:
    """Number the basins of a tree so that every one comes after its parent."""
    count = len(parent)
    offsets = np.zeros(count + 1, np.int32)
    for e in range(len(first)):
        offsets[first[e] + 1] += 1
        offsets[second[e] + 1] += 1
    for i in range(count):
        offsets[i + 1] += offsets[i]
    ends, place = np.empty(2 * len(first), np.int32), offsets[:-1].copy()
    for e in range(len(first)):
        ends[place[first[e]]] = e
        place[first[e]] += 1
        ends[place[second[e]]] = e
        place[second[e]] += 1
    node[:] = -1
    stack, above = np.empty(count, np.int32), np.empty(count, np.int32)
    found = 0
    for root in range(count):  # one tree, but for an image that falls into parts
        if node[root] >= 0:
            continue
        stack[0], above[0], size = root, -1, 1
        while size:
            size -= 1
            i, e = stack[size], above[size]
            node[i] = found
            basin[found], edge[found] = i, e
            parent[found] = -1 if e < 0 else node[first[e] if second[e] == i else second[e]]
            found += 1
            for k in range(offsets[i], offsets[i + 1]):
                other = second[ends[k]] if first[ends[k]] == i else first[ends[k]]
                if ends[k] != e:
                    stack[size], above[size] = other, ends[k]
                    size += 1


@njit(**_options)
def flood_tree(
    parent: Any, edge: Any, levels: Any, nodes: Any, kinds: Any, starts: Any, best: Any, label: Any
) -> None:
    """Write the class of every node: that of the marker which floods it first.

    Parameters
    ----------
    parent, edge : (N,) int32
        Of a :class:`BasinTree`.
    levels : (N,) int32
        Of the saddle to the parent. Equal ones flood in the order of edges.
    nodes, kinds, starts : (S,) int32
        Marked nodes, their classes, and the levels at which they begin to flood.
    best : (N,) int64
        Scratch: the last event on the way from the best marker. Events are saddles and markers,
        by level; markers come first, and all have an order.
    label : (N,) uint8
        In: a class for nodes that nothing reaches.
    """
    count = len(parent)
    best[:] = NEVER
    for s in range(len(nodes)):
        event = (np.int64(starts[s]) << 32) | s
        if event < best[nodes[s]]:
            best[nodes[s]], label[nodes[s]] = event, kinds[s]
    for v in range(count - 1, 0, -1):
        p = parent[v]
        if p < 0 or best[v] == NEVER:
            continue
        event = max(best[v], (np.int64(levels[v]) << 32) | (len(nodes) + edge[v]))
        if event < best[p]:
            best[p], label[p] = event, label[v]
    for v in range(1, count):
        p = parent[v]
        if p < 0 or best[p] == NEVER:
            continue
        event = max(best[p], (np.int64(levels[v]) << 32) | (len(nodes) + edge[v]))
        if event < best[v]:
            best[v], label[v] = event, label[p]


@njit(**_options)
def count_votes(labels: Any, basin: Any, table: Any, first: int, last: int, out: Any) -> None:
    """Write the fractions of votes (N, K) by basin, for nodes first .. last-1.

    Parameters
    ----------
    labels : (R, N) uint8
        By node.
    basin : (N,) int32
        Of every node.
    table : (R + 1,) float32
        Fraction by number of votes.
    """
    votes = np.zeros(out.shape[1], np.int64)
    for v in range(first, last):
        votes[:] = 0
        for r in range(len(labels)):
            votes[labels[r, v]] += 1
        row = out[basin[v]]
        for k in range(len(row)):
            row[k] = table[votes[k]]


def ordered_levels(heights: Floats) -> NDArray[np.int32]:
    """Return integers that compare as float32 numbers do.

    Examples
    --------
    >>> levels = ordered_levels(np.array([-2.5, -1.0, 0.0, 3.0], np.float32))
    >>> bool((np.diff(levels.astype(np.int64)) > 0).all())
    True
    """
    bits = (np.asarray(heights, np.float32) + np.float32(0)).view(np.int32)  # no negative zero
    return bits ^ ((bits >> 31) & np.int32(0x7FFFFFFF))


@dataclass(frozen=True, eq=False)
class BasinTree:
    """The minimum spanning tree of basins with its nodes in depth-first order.

    Attributes
    ----------
    parent : (N,) ndarray of int32
        Node above every node, which has a lower number; -1 for the root.
    edge : (N,) ndarray of int32
        Saddle to the parent.
    basin, node : (N,) ndarray of int32
        Basin of every node and node of every basin.
    """

    parent: NDArray[np.int32]
    edge: NDArray[np.int32]
    basin: NDArray[np.int32]
    node: NDArray[np.int32]

    @classmethod
    def of_saddles(
        cls, count: int, first: NDArray[np.int32], second: NDArray[np.int32]
    ) -> BasinTree:
        """Number the nodes of a tree.

        Parameters
        ----------
        count : int
            Of basins.
        first, second : (E,) ndarray of int32
            Basins on both sides of every saddle; without cycles.

        Returns
        -------
        BasinTree

        Examples
        --------
        >>> tree = BasinTree.of_saddles(3, np.array([2, 1], np.int32), np.array([1, 0], np.int32))
        >>> tree.basin.tolist(), tree.parent.tolist(), tree.edge.tolist()
        ([0, 1, 2], [-1, 0, 1], [-1, 1, 0])
        """
        parent, edge, basin, node = (np.empty(count, np.int32) for _ in range(4))
        _depth_first(first, second, parent, edge, basin, node)
        return cls(parent, edge, basin, node)

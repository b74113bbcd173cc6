"""The whole image in K parts: cuts of the tree with a least size, which nest."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from napari_medgs.errors import ParameterError
from napari_medgs.hierarchy.nodes import NestedParts

_options: dict[str, Any] = {"nogil": True, "cache": True}


@dataclass(frozen=True)
class PartCut:
    """The whole image divided into parts.

    Attributes
    ----------
    tree : PartTree
    nodes : tuple of int
        The node that each part grew around. A cut into more parts keeps all numbers and divides
        one of the parts, whose larger side keeps its number.
    leaf_part : (L,) ndarray of int32
        Part of every leaf, from 0.
    """

    tree: NestedParts
    nodes: tuple[int, ...]
    leaf_part: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.nodes)

    def labels(self, rendered: bool = True) -> NDArray[np.int32]:
        """Return the parts as a label image, (Z, Y, X), from 1.

        Parameters
        ----------
        rendered : bool
            Every voxel gets the part with the largest share of the blend, but a part that would
            lose more than half of its voxels so keeps its cells. Otherwise every voxel gets the
            part of its cell, which takes no time and has rougher borders.
        """
        if not rendered:
            return self.leaf_part[self.tree.cells] + 1
        labels = self.tree.need_renderer().labels(self.leaf_part, len(self))
        cells = self.leaf_part[self.tree.cells]
        found = np.bincount(labels.reshape(-1), minlength=len(self))
        thin = 2 * found < np.bincount(cells.reshape(-1), minlength=len(self))
        return np.where(thin[cells], cells, labels) + 1


@njit(**_options)
def _assign(children: Any, bridge: Any, part: Any) -> None:
    """Give leaves without a part that of the neighboring leaf across their merge, bottom up.

    ``part`` (2 L - 1,) has the parts' nodes set, all others are -1; leaves are filled in.
    """
    merges = len(children)
    leaves = merges + 1
    holds = part >= 0  # whether a node holds a part, or is one
    for k in range(merges - 1, -1, -1):  # down from the parts' nodes
        node = leaves + k
        if part[node] >= 0:
            for s in range(2):
                part[children[k, s]] = part[node]
                holds[children[k, s]] = True
    for k in range(merges):
        a, b = children[k, 0], children[k, 1]
        holds[leaves + k] = holds[leaves + k] or holds[a] or holds[b]
        if holds[a] == holds[b]:
            continue
        small, neighbor = (b, bridge[k, 0]) if holds[a] else (a, bridge[k, 1])
        number = part[neighbor]
        stack = [small]
        while len(stack):
            top = stack.pop()
            if top < leaves:
                part[top] = number
            else:
                stack.append(children[top - leaves, 0])
                stack.append(children[top - leaves, 1])


def cut_tree(tree: NestedParts, count: int, min_fraction: float = 1e-3) -> PartCut:
    """Divide the whole image into a number of parts, the dearest splits first.

    A split counts only where both sides have the least size; a smaller side joins the part that
    its cells border on. Cuts of one tree with one least size nest.

    Parameters
    ----------
    tree : PartTree
    count : int
        At least 2. The cut has fewer parts where the least size allows no more.
    min_fraction : float
        Least size, as a fraction of the voxels that Gaussians reach, from 0 to 0.5.

    Returns
    -------
    PartCut

    Raises
    ------
    ParameterError
        When the count is below 2 or above the number of cells, the fraction is out of its range,
        or no split has two sides of the least size.

    Examples
    --------
    >>> import napari_medgs as mg
    >>> head = mg.make_phantom(spacing=8.0)
    >>> tree = mg.part_tree(mg.Volume(head.image[None], head.grid))
    >>> parts = tree.cut(4).labels()
    >>> sorted(set(parts.ravel().tolist()))
    [1, 2, 3, 4]
    """
    if count < 2:
        raise ParameterError(f"A cut has 2 parts or more, not {count}.")
    if count > tree.leaves:
        raise ParameterError(
            f"The image has {tree.leaves:,} cells, fewer than the {count:,} parts asked for."
        )
    if not 0 <= min_fraction <= 0.5:
        raise ParameterError(f"The least size must be from 0 to 0.5, not {min_fraction}.")
    least = max(min_fraction * tree.covered, 1)
    nodes: list[int] = [tree.root]
    queue: list[tuple[float, int, int]] = []

    def offer(part: int) -> None:
        node = _split_of(tree, nodes[part], least)
        if node is not None:
            heapq.heappush(queue, (-float(tree.height[node]), -node, part))

    offer(0)
    while queue and len(nodes) < count:
        _, negative, part = heapq.heappop(queue)
        first, second = (int(c) for c in tree.children[-negative - tree.leaves])
        if tree.voxels[second] > tree.voxels[first]:
            first, second = second, first
        nodes[part] = first
        nodes.append(second)
        offer(part)
        offer(len(nodes) - 1)
    if len(nodes) < 2:
        raise ParameterError(
            f"No two parts have {min_fraction:g} of the image each; choose a smaller least size."
        )
    part_of = np.full(len(tree), -1, np.int32)
    part_of[nodes] = np.arange(len(nodes), dtype=np.int32)
    _assign(tree.children, tree.bridge, part_of)
    return PartCut(tree, tuple(nodes), part_of[: tree.leaves].copy())


def _split_of(tree: NestedParts, node: int, least: float) -> int | None:
    """Return the topmost node below with two sides of the least size, passing by small ones."""
    sizes, leaves = tree.voxels, tree.leaves
    while node >= leaves:
        a, b = (int(c) for c in tree.children[node - leaves])
        if sizes[a] >= least and sizes[b] >= least:
            return node
        node = a if sizes[a] >= sizes[b] else b
        if sizes[node] < 2 * least:
            return None
    return None
